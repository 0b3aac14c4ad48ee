"""Records the finished units of a long `reproduce` on disk, and stops a unit when its time is up."""

import contextlib
import json
import os
import pathlib
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from mdm_jax.errors import InputError, Preempted, shown
from mdm_jax.files import MOST_JSON, finite, parse_json, read_bytes, write_whole


class Journal:
    """The finished units of work and their rows, in `units.jsonl`. A unit in the file is not done again.

    Each line has a checksum, so edited or damaged lines are found.
    """

    def __init__(self, folder: pathlib.Path, head: dict[str, Any], minutes: float | None) -> None:
        self._path = folder / "units.jsonl"
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        data = read_bytes(self._path, most=MOST_JSON) if self._path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # the process was killed while it wrote a line
            write_whole(self._path, whole)
        lines = [self._parsed(i, line) for i, line in enumerate(whole.splitlines(), 1)]
        head = json.loads(json.dumps(head))
        if lines and lines[0] != head:
            other = ", ".join(name for name in head | lines[0] if head.get(name) != lines[0].get(name))
            raise InputError(
                f"{self._path} is of a run with other {other}: give the same flags again, or another --out"
            )
        self._unwritten = [] if lines else [head]
        self._done = {line["unit"]: line for line in lines[1:]}

    @property
    def seconds(self) -> float:
        """The time that the finished units took, over all calls of the command. Stopped units do not count."""
        return sum(line["seconds"] for line in self._done.values())

    def has(self, unit: str) -> bool:
        """Whether a unit is in the file."""
        return unit in self._done

    def rows(self, unit: str, work: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Returns the rows of a unit. Does the unit unless it is in the file.

        Raises:
          Preempted: the time is up.
        """
        if unit not in self._done:
            left, begin = None if self._deadline is None else self._deadline - time.monotonic(), time.monotonic()
            if left is not None and left <= 0:
                raise Preempted(f"the time is up before {unit}; the same command goes on")
            with stop_after(left):
                rows = work()
            line = finite({"unit": unit, "seconds": round(time.monotonic() - begin, 1), "rows": rows})
            with self._path.open("a") as file:
                file.write("".join(_signed(line) for line in [*self._unwritten, line]))
            self._done[unit], self._unwritten = line, []
        rows = self._done[unit]["rows"]
        assert isinstance(rows, list)
        return rows

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        """Parses a line; raises InputError if it was changed since it was written."""
        complaint = (
            f"{self._path}, line {number}, is not what was written there ({shown(line)}), or an older version wrote "
            + ("it: restore it, " if number == 1 else "it: restore it, or delete the line to do its part again, ")
            + "or give another --out"
        )
        value = parse_json(line, complaint)
        is_ours = isinstance(value, dict) and value.pop("crc32", None) == _crc32(value)
        if not is_ours or (number > 1) != ("unit" in value):
            raise InputError(complaint)
        return value


def _signed(line: dict[str, Any]) -> str:
    return json.dumps(line | {"crc32": _crc32(line)}) + "\n"


def _crc32(line: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(line).encode())


@contextlib.contextmanager
def stop_after(seconds: float | None) -> Iterator[None]:
    """Sends SIGTERM to this process after a time: training saves and ends, other work just ends."""
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Preempted("the time is up; the same command goes on")

    former = signal.signal(signal.SIGTERM, stop)
    alarm = threading.Timer(max(seconds, 0.1), os.kill, (os.getpid(), signal.SIGTERM))
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()
        signal.signal(signal.SIGTERM, former)
