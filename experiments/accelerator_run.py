"""Runs the slices of `accelerator`: each command in a process of its own, with a limit of its own."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments.accelerator import Measure
from experiments.accelerator_plan import Slice, slices
from experiments.common import Row, commit, processor, say, say_written, table
from experiments.journal import stop_after
from experiments.measured import FOLDER
from mdm_jax.data.checks import lookup
from mdm_jax.errors import InputError
from mdm_jax.files import finite, make_folder, parse_json, write_whole
from mdm_jax.training.lock import locked

GRACE = 10.0
"""Seconds between the request to stop, on which a training saves, and the end of a process that does not."""
TOY = 300.0
"""Seconds that each command of a rehearsal may take, where compiling on a CPU takes the most of them."""
LEAST = 10.0
"""A command with fewer seconds left is not started."""
ENDS = ("step", "ended", "command_seconds")
"""The fields that say how a command ended."""
PROGRAM = """
import json, jax
device = jax.devices()[0]
print(json.dumps({"device": "cpu" if device.platform == "cpu" else device.device_kind, "jax": jax.__version__}))
"""


def measure(flags: Measure) -> None:
    """Measures what is missing, in order of worth, and writes a file for each slice."""
    deadline = time.monotonic() + 60 * flags.minutes
    with locked(make_folder(flags.out)), stop_after(60 * flags.minutes + 2 * GRACE):
        machine, plans = machine_here(), slices(flags.source, flags.ladder)
        if machine["device"] == "cpu" and not flags.rehearse:
            raise InputError("there is no accelerator here: see --rehearse, or the jax[cuda12] and jax[tpu] packages")
        written = []
        for name in chosen(flags, plans, machine["device"]):
            if time.monotonic() + LEAST > deadline:
                say(f"{name}: the time is up; the same command goes on")
                break
            path, rows = flags.out / f"{file_of(name)}.json", run_slice(name, plans[name], flags, deadline)
            argv = ["python", "-m", "experiments.accelerator", *sys.argv[1:]]
            head = {"experiment": "accelerator", "command": name, "argv": argv}
            head |= {"scale": "toy"} if flags.rehearse else {}
            about = {"seed": 0, **machine, "processor": processor(), "commit": commit()}
            seconds = sum(row["command_seconds"] for row in rows if "command_seconds" in row)
            record = {**head, **about, "seconds": round(seconds, 1), "rows": rows}
            write_whole(path, json.dumps(finite(record), indent=1, allow_nan=False) + "\n")
            ends = [{field: row[field] for field in ENDS if field in row} for row in rows if "ended" in row]
            sys.stdout.write(f"\n{name}\n{table(ends)}\n")
            written.append(path)
        say_written(*written)


def machine_here() -> Row:
    """Device, driver, versions and flags. A process of its own asks JAX, so that this one takes no device."""
    try:
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = error.stderr or ""
        why = (said if isinstance(said, str) else said.decode()).strip().splitlines()[-1:] or ["it does not answer"]
        raise InputError(f"JAX finds no device: {why[0]}") from None
    machine: Row = json.loads(done.stdout.splitlines()[-1])
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        machine["driver"] = found[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        pass  # no NVIDIA card
    return machine | {name.lower(): os.environ[name] for name in ("XLA_FLAGS",) if name in os.environ}


def chosen(flags: Measure, plans: dict[str, Slice], device: str) -> list[str]:
    """The slices to measure, in order."""
    if flags.slices is not None:
        names = flags.slices.split(",")
        for name in names:
            plan = lookup("slice", plans, name)
            if plan.takes_source and flags.source is None:
                raise InputError(f"the slice {name} takes a corpus: give --source")
        return names
    without = [name for name, plan in plans.items() if plan.takes_source and flags.source is None]
    if without:
        say(f"left out, as they take a corpus (--source): {', '.join(without)}")
    left = [name for name in plans if name not in without]
    done = [] if flags.rehearse else [name for name in left if is_measured(name, device, flags.out)]
    if done:
        say(f"measured already on {device}: {', '.join(done)}")
    return [name for name in left if name not in done]


def file_of(name: str) -> str:
    """The file of a slice, without the ending."""
    return f"accelerator-{name}"


def is_measured(name: str, device: str, out: pathlib.Path) -> bool:
    """Whether there is a file of this slice, from such a device: no rehearsal, and no command failed or was cut off."""
    for path in (FOLDER / f"{file_of(name)}.json", out / f"{file_of(name)}.json"):
        if path.exists():
            record = parse_json(path.read_bytes(), f"{path} is no file of results: delete it")
            ends = [row["ended"] for row in record["rows"] if "ended" in row]
            if record.get("device") == device and "scale" not in record and set(ends) == {"well"}:
                return True
    return False


def run_slice(name: str, plan: Slice, flags: Measure, deadline: float) -> list[Row]:
    """Runs the commands of a slice, and appends their rows to rows.jsonl as they end."""
    folder, rows = make_folder(flags.out / name), list[Row]()
    for command in plan.commands:
        if flags.rehearse and command.toy is None:
            continue
        seconds = min(TOY if flags.rehearse else command.seconds, deadline - time.monotonic())
        argv = command.argv(rows, is_toy=flags.rehearse, out=str(folder))
        found: list[Row] = []
        if seconds < LEAST:
            end: Row = {"ended": "not begun: the time is up"}
        else:
            say(f"{name}: {command.name}, at most {seconds:.0f} s")
            begin = time.time()
            end = run_command(argv, folder / f"{command.name}.log", seconds)
            found = rows_of(folder / command.name, since=begin)
        lines = [
            {"step": command.name, **end, "command": " ".join(argv)},
            *({"step": command.name, **row} for row in found),
        ]
        with (flags.out / "rows.jsonl").open("a") as file:
            file.writelines(json.dumps(finite({"slice": name, **line})) + "\n" for line in lines)
        say(f"{name}: {command.name} ended {end['ended']}")
        rows += lines
    return rows


def run_command(argv: Sequence[str], log: pathlib.Path, seconds: float) -> Row:
    """Runs `python -m experiments.ARGV` for at most so many seconds, its output in the log, and says how it ended."""
    begin = time.monotonic()
    with log.open("w") as said:
        words = [sys.executable, "-m", f"experiments.{argv[0]}", *argv[1:]]
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: Any = process.wait(timeout=seconds)
            ended = "well" if code == 0 else f"with code {code}: {last_line(log)}"
        except subprocess.TimeoutExpired:
            ended = f"cut off after {seconds:.0f} s"
        finally:  # also if this process is interrupted
            stop(process)
    return {"ended": ended, "command_seconds": round(time.monotonic() - begin, 1)}


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and all that it started: first asked, then by force."""
    with contextlib.suppress(ProcessLookupError):  # nothing of it is left
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: pathlib.Path) -> str:
    """The last line that a command wrote."""
    lines = log.read_text(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def rows_of(folder: pathlib.Path, *, since: float) -> list[Row]:
    """The rows that a command has written since then: all of them, or those before it was cut off."""
    found = {path.name: path for path in folder.glob("*.json*") if path.stat().st_mtime >= since}
    if "results.json" in found:
        rows: list[Row] = json.loads(found["results.json"].read_text())["rows"]
        return rows
    if "units.jsonl" in found:
        return [row for unit in lines_of(found["units.jsonl"])[1:] for row in unit["rows"]]
    name = next((name for name in ("rows.jsonl", "metrics.jsonl") if name in found), None)
    return [] if name is None else lines_of(found[name])


def lines_of(path: pathlib.Path) -> list[Row]:
    """The lines of a file, without one that was cut off."""
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
