"""Where the numbers of a run go: JSON lines for programs, TensorBoard event files for people."""

import json
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class MetricsWriter:
    """Writes `metrics.jsonl` and TensorBoard events into a run's folder. A context manager.

    A resumed run drops the lines after the step it resumes from, so that no step stands there twice.
    """

    def __init__(self, folder: pathlib.Path, *, resume_step: int) -> None:
        from tensorboardX import SummaryWriter

        path = folder / "metrics.jsonl"
        kept = []
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= resume_step]
        path.write_text("".join(line + "\n" for line in kept))
        self._lines = path.open("a")
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1, write_to_disk=True)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line, and one event per metric."""
        self._lines.write(json.dumps({"step": step, **metrics}) + "\n")
        self._lines.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._events.close()


def _step_of(line: str) -> float:
    """The step of one line; infinite for a line that a crash left unfinished."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """All lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
