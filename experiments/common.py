"""What all experiments share: parsing and running a command, its errors, the table and `results.json`.

Nothing heavy is imported before a command runs, so `--help` answers at once.
"""

import contextlib
import ctypes
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mdm_jax
from experiments.endings import of_the_user, silence_writers
from experiments.plugins import PLUGIN, import_plugins
from experiments.usage import examples_of, grouped
from mdm_jax.endings import ended_well
from mdm_jax.errors import InputError, one_line
from mdm_jax.files import check_place, finite, is_full, make_folder, write_whole

PATIENCE = 10.0
"""Seconds that a process which failed waits for the other processes to end."""

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Parameters of mallopt, from malloc.h."""

SHOWN = 8
"""A longer list is not written out in a printed table."""

ASIDES = ("For full helptext", "Perhaps you meant", "Argument helptext", "Arguments are applied")
"""How parts of tyro's errors begin that do not say what is wrong."""

Row = dict[str, Any]
"""One row of `results.json`; fields that do not apply are left out."""

Commands = Mapping[str, tuple[type, str]]
"""For the name of each command, the dataclass of its flags, and the "module:function" that takes them."""


def parse(experiment: str, description: str, flags: Mapping[str, Callable[..., Any]], argv: Sequence[str]) -> Any:
    """Parses the flags in `argv`. An error is one line on stderr and exit code 2."""
    import tyro

    errors, said = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(said):
            return tyro.extras.subcommand_cli_from_dict(
                dict(flags), prog=f"python -m experiments.{experiment}", description=description, args=list(argv)
            )
    except SystemExit as stop:
        command = next((word for word in argv if word in flags), "")
        sys.stdout.write(grouped(said.getvalue(), examples_of(experiment, command, description)))
        if stop.code == 2:
            sys.stderr.write(f"error: {complaint(errors.getvalue())}; see python -m experiments.{experiment} --help\n")
        raise


def complaint(box: str) -> str:
    """What tyro says is wrong, in one line: without the title and the rules of its box, and its help."""
    body, found = re.sub("[│╭╮╰╯]", " ", box.partition("\n")[2]), []
    for part in re.split(r"^ *(?:[-─]{20,})? *$", body, flags=re.MULTILINE):
        words = re.sub(r" \.$", ".", " ".join(part.split()))
        if words.startswith("Missing from"):
            words = "required: " + ", ".join(re.findall(r"^ {6}(\S+)", part, re.MULTILINE))
        if words and not words.startswith(ASIDES):
            found.append(words)
    return "; ".join(found)


def run(experiment: str) -> None:
    """Runs an experiment. Its module is imported by name, since `__main__` would hold a second copy of its flags."""
    module = importlib.import_module(f"experiments.{experiment}")
    main(experiment, module.__doc__ or "", module.COMMANDS)


def main(experiment: str, description: str, commands: Commands, argv: Sequence[str] | None = None) -> None:
    """Parses and runs one command. Bad input becomes one line on stderr and exit code 2."""
    with ended_well():
        argv = sys.argv[1:] if argv is None else argv
        if "--version" in argv:
            sys.stdout.write(f"mdm_jax {mdm_jax.__version__}, jax {importlib.metadata.version('jax')}\n")
        else:
            _run(experiment, f"{description}\n\n{PLUGIN}", commands, argv)


def named(argv: Sequence[str], commands: Commands) -> Sequence[str]:
    """The words with the command's name in front, which an experiment of one command may leave out."""
    is_left_out = len(commands) == 1 and not set(argv[:1]) & {*commands, "-h", "--help"}
    return [*commands, *argv] if is_left_out else argv


def _run(experiment: str, description: str, commands: Commands, argv: Sequence[str]) -> None:
    from mdm_jax.errors import Interrupted, LostPeerError, Preempted, RunError
    from mdm_jax.ranges import check_ranges

    kinds = {name: kind for name, (kind, _) in commands.items()}
    try:
        argv = named(import_plugins(argv), commands)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    flags = parse(experiment, description, kinds, argv)
    module, function = next(work for kind, work in commands.values() if kind is type(flags)).split(":")
    try:
        check_ranges(flags, name_of=lambda path: "--" + path.replace("_", "-"))
        check_paths(flags)
        silence_threads()
        if is_on_cpu():
            keep_freed_memory()
        cache_compilations()
        if hasattr(flags, "distributed"):
            flags.distributed.start()
        getattr(importlib.import_module(module), function)(flags)
    except Preempted as stop:
        sys.stderr.write(f"{stop}\n")
        if isinstance(stop, Interrupted):
            sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        raise
    except Exception as error:
        from mdm_jax.training.distributed import LOST_PEER, leave, leave_after, lost_peer, what_was_lost

        line = f"error: {' '.join(str(error).split())}"
        if isinstance(error, LostPeerError):
            leave(line, LOST_PEER)
        if lost_peer(error):
            leave(f"error: {what_was_lost(error)}: start the same command again in every process", LOST_PEER)
        is_input = isinstance(error, InputError) or of_the_user(error, flags)
        code = 2 if is_input and not is_full(error) else 1
        leave_after(PATIENCE, code)
        if not (is_input or isinstance(error, RunError) or is_full(error)):
            raise
        sys.stderr.write(f"{line}\n")
        sys.exit(code)


def check_paths(flags: Any) -> None:
    """Raises InputError for the first path that is outside the file system, a pipe or a device."""
    for field in dataclasses.fields(flags):
        value = getattr(flags, field.name)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, pathlib.Path):
                try:
                    check_place(path)
                except InputError as error:
                    raise InputError(f"--{field.name.replace('_', '-')}: {error}") from None


def silence_threads() -> None:
    """Hides what Orbax and asyncio log about a failure, since the main thread reports it in one line."""
    import absl.logging

    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    silence_writers()


def is_on_cpu() -> bool:
    """Whether JAX computes on the CPU here. Starts no device, since the processes of a run have to meet first.

    Unless JAX_PLATFORMS chooses, JAX computes on the CPU if no plugin for another device is installed.
    """
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.split(",")[0] == "cpu"
    has_plugins = importlib.metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("jax_plugins")
    return not has_plugins and importlib.util.find_spec("libtpu") is None


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory, so that XLA's CPU backend reuses the memory of temporary arrays between steps.

    The backend allocates the temporary arrays of a step at its start and frees them at its end. By default glibc
    returns large pieces to the system at once, and the system then fills gigabytes with zeros in every step. All
    threads get one arena, because glibc returns the large pieces of other arenas in any case. The cost is that the
    process never shrinks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_ARENA_MAX, 1)):
            mallopt(parameter, value)


def cache_compilations() -> None:
    """Keeps compiled programs on disk, so that the next run of the same program starts in seconds.

    JAX_COMPILATION_CACHE_DIR names the folder; an empty value keeps nothing. The default is a folder in the user's
    cache, if it is writable.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = pathlib.Path(cache, "mdm_jax", "compiled")
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def say(line: str) -> None:
    """Writes a line to stderr, in the first process of the run."""
    from mdm_jax.training.distributed import is_lead

    if is_lead():
        sys.stderr.write(line + "\n")


def say_written(*paths: pathlib.Path) -> None:
    """Prints the paths of further files that a command wrote."""
    sys.stdout.write("".join(f"{path}\n" for path in paths))


class Results:
    """Collects the rows of one command, prints them as a table and writes them to `results.json`."""

    def __init__(
        self, experiment: str, command: str, *, out: pathlib.Path, seed: int, scale: str | None = None
    ) -> None:
        argv = ["python", "-m", f"experiments.{experiment}", *sys.argv[1:]]
        self._head = {"experiment": experiment, "command": command, "argv": argv}
        self._head |= {} if scale is None else {"scale": scale}
        self._seed = seed
        self._path = make_folder(out) / "results.json"
        if self._path.is_dir():
            raise InputError(f"{self._path} is a folder: give another --out")
        self._begin = time.perf_counter()
        self.rows: list[Row] = []

    def add(self, **row: Any) -> None:
        """Adds one row, without the fields that are None. NaN becomes null in the file."""
        self.rows.append({name: value for name, value in row.items() if value is not None})

    def finish(
        self,
        *,
        seconds: float | None = None,
        earlier: float = 0.0,
        fields: Mapping[str, Any] | None = None,
        shown: Callable[[Sequence[Row]], str] | None = None,
    ) -> None:
        """Prints the table and writes the file, in the first process of the run.

        Args:
          seconds: the time that the command took; None measures it from `__init__`.
          earlier: the time that earlier calls of the same command took.
          fields: further fields of the file.
          shown: formats the rows as a table; None for `table`.
        """
        import jax

        if jax.process_index() > 0:
            return
        device = jax.devices()[0]
        record = {
            **self._head,
            "seed": self._seed,
            "device": "cpu" if device.platform == "cpu" else device.device_kind,
            "processor": processor(),
            "jax": jax.__version__,
            "commit": commit(),
            "seconds": round(earlier + (time.perf_counter() - self._begin if seconds is None else seconds), 1),
            **(fields or {}),
            "rows": self.rows,
        }
        write_whole(self._path, json.dumps(finite(record), indent=1, allow_nan=False) + "\n")
        shown_rows = (shown or table)(self.rows)
        sys.stdout.write(f"\n{shown_rows}\n\n{record['seconds']} s; written to {one_line(self._path)}\n")


def processor() -> str:
    """The name of the CPU, if the system knows it, and the number of cores."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return f"{names[0]}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def commit() -> str:
    """The short hash of the checkout's commit, with "-dirty" if files differ from it; "unknown" outside one."""
    folder = pathlib.Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text: a column for each field, in the order in which fields first appear.

    Of a long list its length is shown.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *[[_cell(row.get(name)) for name in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    is_text = [any(isinstance(row.get(name), str) for row in rows) for name in columns]

    def pad(text: str, i: int) -> str:
        return text.ljust(widths[i]) if is_text[i] else text.rjust(widths[i])

    lines = ["  ".join(pad(text, i) for i, text in enumerate(line)).rstrip() for line in cells]
    return "\n".join([lines[0], re.sub(r"\S| (?=\S)", "-", lines[0]), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        if len(value) > SHOWN:
            return f"[{len(value)} values]"
        return f"[{', '.join(_cell(item) for item in value)}]"
    return one_line(value)
