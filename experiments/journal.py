"""What a long `reproduce` has done so far, on disk, so that the same command goes on; and stopping in time."""

import contextlib
import json
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from mdm_jax.errors import InputError, Preempted


class Journal:
    """Units of work that were done, with their rows, in `units.jsonl`: what is in there is not done again."""

    def __init__(self, folder: pathlib.Path, head: dict[str, Any], minutes: float | None) -> None:
        self._path = folder / "units.jsonl"
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        text = self._path.read_text() if self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # half a line of a process that was killed
            self._path.write_text(whole)
        lines, head = [json.loads(line) for line in whole.splitlines()], json.loads(json.dumps(head))
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
            line = {"unit": unit, "seconds": round(time.monotonic() - begin, 1), "rows": rows}
            with self._path.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in [*self._unwritten, line]))
            self._done[unit], self._unwritten = line, []
        rows = self._done[unit]["rows"]
        assert isinstance(rows, list)
        return rows


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
