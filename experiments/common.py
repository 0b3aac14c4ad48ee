"""What all experiments share: the flags, the one-line errors, the table, and `results.json`.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import contextlib
import dataclasses
import importlib
import io
import json
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from mdm_jax.typing import Oracle, Selector

Row = dict[str, Any]
"""One row of `results.json`; fields that do not apply are left out."""


Commands = Mapping[str, tuple[type, str]]
"""Name of a command -> the frozen dataclass of its flags, and "module:function", which takes them and does the work."""


@dataclasses.dataclass(frozen=True)
class MeshFlags:
    """How the devices are laid out; the three numbers multiply to the number of devices."""

    data: int = -1
    """copies of the model that split the batch (-1: as many as the devices allow)"""
    fsdp: int = 1
    """ways to split parameters and optimizer state"""
    tensor: int = 1
    """ways to split matrices within a layer"""

    def make(self) -> "Mesh":
        """The mesh."""
        from mdm_jax.sharding import make_mesh

        return make_mesh(self.data, self.fsdp, self.tensor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeFlags:
    """How a model is decoded."""

    oracle: str = "margin"
    """order to decode in, or several with commas: random, left_to_right, top_prob, margin, neg_entropy, token_prob"""
    noise: float = 0.0
    """standard deviation of Gaussian noise on the oracle's scores"""
    tokens_per_step: int | None = None
    """reveal this many per step (the default: 1)"""
    num_steps: int | None = None
    """or: reveal all in this many steps, as many in each as the linear schedule says"""
    binomial_steps: int | None = None
    """or: reveal a binomial number in each of this many steps (vanilla inference, with the random oracle)"""
    threshold: float | None = None
    """or: reveal all that score at least this"""
    entropy_budget: float | None = None
    """or: reveal the longest prefix within this budget (nats)"""
    temperature: float = 0.0
    """of the tokens; 0 takes the likeliest"""
    block_length: int | None = None
    """decode block by block from the left"""

    def oracles(self) -> "dict[str, Oracle]":
        """The oracles by name."""
        from mdm_jax import InputError, oracles

        names = ("random", "left_to_right", "top_prob", "margin", "neg_entropy", "token_prob")
        chosen = self.oracle.split(",")
        for name in chosen:
            if name not in names:
                raise InputError(f"unknown oracle {name!r}; choose from {', '.join(names)}")
        found: dict[str, Oracle] = {name: getattr(oracles, name) for name in chosen}
        if self.noise:
            found = {name: oracles.with_noise(oracle, self.noise) for name, oracle in found.items()}
        return found

    def selector(self) -> "Selector":
        """The selector that the flags ask for."""
        from mdm_jax import Binomial, EntropyBudget, InputError, PerStep, Threshold, TopK

        made = {
            "--tokens-per-step": (PerStep, self.tokens_per_step),
            "--num-steps": (TopK, self.num_steps),
            "--binomial-steps": (Binomial, self.binomial_steps),
            "--threshold": (Threshold, self.threshold),
            "--entropy-budget": (EntropyBudget, self.entropy_budget),
        }
        asked = {flag: make for flag, make in made.items() if make[1] is not None}
        if len(asked) > 1:
            raise InputError(f"{' and '.join(asked)} exclude each other; give one of them")
        for kind, value in asked.values():
            return kind(value)
        return PerStep(1)


def parse(experiment: str, description: str, flags: Mapping[str, Callable[..., Any]], argv: Sequence[str]) -> Any:
    """The flags that `argv` gives; what cannot be parsed is one line on stderr and exit code 2."""
    import tyro

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.extras.subcommand_cli_from_dict(
                dict(flags), prog=f"python -m experiments.{experiment}", description=description, args=list(argv)
            )
    except SystemExit as stop:
        if stop.code == 2:
            lines = [line.strip("│╭╮╰╯ ") for line in errors.getvalue().splitlines()]
            words = [line for line in lines if line and not line.startswith("─") and "full helptext" not in line]
            sys.stderr.write(f"error: {'; '.join(words[:3])}; see python -m experiments.{experiment} --help\n")
        raise


def main(experiment: str, description: str, commands: Commands, argv: Sequence[str] | None = None) -> None:
    """Parses and runs one command; what it cannot use becomes one line on stderr and exit code 2."""
    kinds = {name: kind for name, (kind, _) in commands.items()}
    flags = parse(experiment, description, kinds, sys.argv[1:] if argv is None else argv)
    module, function = next(work for kind, work in commands.values() if kind is type(flags)).split(":")
    from mdm_jax.errors import InputError

    try:
        if not 0 <= flags.seed < 1 << 32:
            raise InputError(f"--seed must lie in [0, 2^32), got {flags.seed}")
        getattr(importlib.import_module(module), function)(flags)
    except (InputError, OSError) as error:  # of the latter: a file that is missing, in the way or not to be written
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)


class Results:
    """Collects the rows of one command, and ends it with a table on the terminal and `results.json`."""

    def __init__(self, experiment: str, command: str, *, out: pathlib.Path, seed: int) -> None:
        argv = ["python", "-m", f"experiments.{experiment}", *sys.argv[1:]]
        self._head = {"experiment": experiment, "command": command, "argv": argv}
        self._seed = seed
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / "results.json"
        self._begin = time.perf_counter()
        self.rows: list[Row] = []

    def add(self, **row: Any) -> None:
        """Adds one row; fields that are None do not apply and are left out."""
        self.rows.append({name: value for name, value in row.items() if value is not None})

    def finish(self) -> None:
        """Prints the table and writes the file."""
        import jax

        device = jax.devices()[0]
        record = {
            **self._head,
            "seed": self._seed,
            "device": "cpu" if device.platform == "cpu" else device.device_kind,
            "jax": jax.__version__,
            "commit": commit(),
            "seconds": round(time.perf_counter() - self._begin, 1),
            "rows": self.rows,
        }
        self._path.write_text(json.dumps(record, indent=1) + "\n")
        sys.stdout.write(f"\n{table(self.rows)}\n\n{record['seconds']} s; written to {self._path}\n")


def commit() -> str:
    """The short hash of the checkout's commit, or "unknown" outside one."""
    folder = pathlib.Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, a column per field in order of first appearance."""
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
        return f"[{', '.join(_cell(item) for item in value)}]"
    return str(value)
