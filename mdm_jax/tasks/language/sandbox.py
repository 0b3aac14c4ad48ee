"""Runs programs that a model wrote, each in a process of its own that can do next to nothing but compute.

The process reads files as its user may, and writes none: the kernel filters its system calls (seccomp). It ends the
process that opens a file for writing, or makes, renames, changes or deletes one; that starts a process or a program,
opens a socket, or sends a signal. The time of the processor and of the clock, memory, open files and output have
limits. The environment is empty. The process dies with the one that started it. None of that needs a privilege, and
root's own do not help the program.

What it does not do. A program may read what its user may read, though it has nowhere to send it. It uses the kernel as
any process does: a hole in the kernel is a hole here. It shares an interpreter with its tests: one that looks for the
token which says that the tests have passed can find it, and an object that claims to equal everything passes them. This
holds off programs that are wrong, not a model that attacks its own evaluation.

Linux on x86-64 and 64-bit ARM only. Elsewhere, and where the kernel refuses the filter, nothing is run.
"""

import dataclasses
import functools
import pathlib
import secrets
import signal
import subprocess
import sys
import sysconfig
import tempfile
from typing import IO, NamedTuple

from mdm_jax.errors import InputError, one_line
from mdm_jax.tasks.language import jail
from mdm_jax.tasks.language.jail import ARCHITECTURES

ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The order of a set of texts is the same in every run."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may use up."""

    seconds: int = 3
    """of the processor"""
    patience: float = 15.0
    """seconds by the clock, which a busy machine needs more of"""
    memory: int = 1 << 30
    """bytes of addresses"""
    output: int = 1 << 20
    """bytes written to standard output and error"""


class Verdict(NamedTuple):
    """What became of a program."""

    passed: bool
    """whether it came to its end without an exception"""
    why: str
    """passed, out of time, forbidden, too much output, or how it ended"""


@functools.cache
def check_sandbox() -> None:
    """InputError unless programs can be contained here: a harmless one ends well, and one with a socket is stopped."""
    machine = f"{sys.platform} on {jail.platform.machine()}"
    if sys.platform != "linux" or jail.platform.machine() not in ARCHITECTURES:
        raise InputError(
            f"programs of a model run in a sandbox of Linux on {' or '.join(ARCHITECTURES)}, not {machine}"
        )
    harmless, harmful = run_program("x = 1"), run_program("import socket; socket.socket()")
    if not harmless.passed or harmful.why != "forbidden":
        raise InputError(
            "programs of a model cannot be contained here, so none is run: the sandbox needs seccomp filters, and "
            f"a harmless program ended with: {harmless.why}; one that opens a socket with: {harmful.why}"
        )


def run_program(program: str, limits: Limits = Limits()) -> Verdict:
    """Runs a program in Python, in the sandbox; may be called from several threads."""
    token = secrets.token_hex(16)
    folders = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    numbers = (limits.seconds, limits.memory, limits.output)
    command = [sys.executable, *("-s", "-S", "-P", "-B"), jail.__file__, *map(str, numbers), *folders]
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                command,
                input=f"{token}\n{program}".encode(errors="replace"),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                cwd=pathlib.Path(sys.executable).anchor,
                start_new_session=True,
                timeout=limits.patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Verdict(False, "out of time")
        return _verdict(done.returncode, output, token, limits)


def _verdict(code: int, output: IO[bytes], token: str, limits: Limits) -> Verdict:
    size = output.seek(0, 2)
    output.seek(max(0, size - 600))
    said = output.read().decode(errors="replace").rpartition("\n")[2]
    if code == -signal.SIGSYS:
        return Verdict(False, "forbidden")
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Verdict(False, "out of time")
    if size >= limits.output:
        return Verdict(False, "too much output")
    if code == 0 and said == token:
        return Verdict(True, "passed")
    why = said if code == 1 else f"ended by signal {-code}" if code < 0 else f"left with code {code}"
    return Verdict(False, one_line(why, 200))
