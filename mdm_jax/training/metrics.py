"""The metrics of a run: JSON lines for programs, TensorBoard event files for people."""

import json
import math
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from mdm_jax.errors import MissingExtraError, of_extra
from mdm_jax.files import read_bytes
from mdm_jax.progress import say


class MetricsWriter:
    """Writes `metrics.jsonl` and, with tensorboardX, TensorBoard events. A context manager.

    A resumed run first removes the lines after the step from which it resumes, so that no step
    occurs twice, and damaged lines.
    """

    def __init__(self, folder: pathlib.Path, *, resume_step: int, is_lead: bool = True) -> None:
        """Opens the files.

        Args:
          folder: of the run.
          resume_step: number of steps that are done.
          is_lead: whether this process writes; the other processes of a run do not.
        """
        self._is_lead = is_lead
        if not is_lead:
            return
        path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(folder) if line["step"] <= resume_step] if path.exists() else []
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(line) + "\n" for line in kept))
        part.replace(path)
        self._lines = path.open("a")
        self._events = _events(folder / "tensorboard", resume_step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line, with null for values that are not finite, and an event per finite value."""
        if not self._is_lead:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        for name, value in finite.items():
            if value is not None and self._events is not None:
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        if self._is_lead:
            self._lines.close()
            if self._events is not None:
                self._events.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _events(folder: pathlib.Path, resume_step: int) -> Any:
    """A writer of TensorBoard events; None, with a printed line, if the package is missing."""
    try:
        with of_extra("experiments"):
            from tensorboardX import SummaryWriter
    except MissingExtraError as error:
        say(f"no TensorBoard events are written, only metrics.jsonl: {error}")
        return None
    return SummaryWriter(str(folder), purge_step=resume_step + 1, write_to_disk=True)


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, without damaged ones."""
    lines = read_bytes(folder / "metrics.jsonl").decode(errors="replace").splitlines()
    return [values for values in map(_read, lines) if values is not None]


def _read(line: str) -> dict[str, Any] | None:
    """The values of a line; None if `write` could not have written it."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or type(values.get("step")) is not int:
        return None
    is_whole = all(value is None or type(value) in (int, float) for value in values.values())
    return values if is_whole else None
