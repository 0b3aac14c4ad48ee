"""What a long `reproduce` has done so far, on disk, so that the same command goes on; and stopping in time."""

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
    """Units of work that were done, with their rows, in `units.jsonl`: what is in there is not done again.

    Each line carries a digest, so that what was edited or damaged is not taken for what was measured.
    """

    def __init__(self, folder: pathlib.Path, head: dict[str, Any], minutes: float | None) -> None:
        self._path = folder / "units.jsonl"
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        data = read_bytes(self._path, most=MOST_JSON) if self._path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # half a line of a process that was killed
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
        """What the units took, whenever that was; not what was begun and stopped."""
        return sum(line["seconds"] for line in self._done.values())

    def rows(self, unit: str, work: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """The rows of a unit, done now unless they are there; Preempted once the time is up."""
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
        """What stands in a line; InputError unless it is what was written there."""
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
    """Within it, SIGTERM after so many seconds: training saves and ends, as when preempted; all else just ends."""
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
