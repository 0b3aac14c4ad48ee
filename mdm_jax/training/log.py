"""The log of a run's steps: to files, to the terminal, and to a callback."""

import pathlib
from collections.abc import Callable, Mapping
from types import TracebackType

from mdm_jax.errors import NotFiniteError, Preempted, RunError
from mdm_jax.progress import say
from mdm_jax.training.distributed import is_lead
from mdm_jax.training.metrics import MetricsWriter
from mdm_jax.training.objectives import Batch
from mdm_jax.training.progress import Progress
from mdm_jax.typing import Array, Params

Evaluate = Callable[[Params], Mapping[str, float]]
"""parameters -> metrics by name"""

ADVICE = "the checkpoints are good: look at the data, or start anew with a lower learning rate"
"""Where numbers are not finite."""

OnMetrics = Callable[[int, Mapping[str, float]], None]
"""(step, metrics by name); called in the first process for each line of `metrics.jsonl`"""


class Log:
    """Logs the metrics of each step, once the next step is dispatched. A context manager."""

    def __init__(
        self,
        folder: pathlib.Path,
        start: int,
        total: int,
        *,
        batch_size: int,
        log_every: int,
        max_skipped: int,
        flops: float | None,
        on_metrics: OnMetrics | None,
    ) -> None:
        self._writer = MetricsWriter(folder, resume_step=start, is_lead=is_lead())
        self.progress = Progress(start, total, examples=batch_size, flops=flops, is_shown=is_lead())
        self._total, self._log_every, self._max_skipped, self._on_metrics = total, log_every, max_skipped, on_metrics
        self._pending: tuple[int, dict[str, Array]] | None = None

    def push(self, step: int, metrics: dict[str, Array], batch: Batch) -> None:
        """Takes the metrics of a step that was just dispatched; writes those of the step before."""
        self.flush()
        self._pending = (step, metrics)
        self.progress.advance(batch["tokens"].shape[1])

    def flush(self) -> None:
        """Waits for pending metrics and writes them.

        Raises:
          RunError: `max_skipped` steps in a row were skipped.
        """
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        skipped = int(metrics["skipped_in_a_row"])
        if step % self._log_every == 0 or step == self._total or skipped:
            values = {name: float(value) for name, value in metrics.items()}
            self._write(step, values)
            self.progress.show(values["loss_per_token"], int(values["skipped_steps"]))
        if skipped >= self._max_skipped:
            raise RunError(
                f"the loss, its gradient or what came of it was not finite in {skipped} steps in a row, up to step "
                f"{step}, which were skipped; {ADVICE}"
            )

    def evaluate(self, step: int, evaluate: Evaluate, params: Params) -> Mapping[str, float]:
        """Evaluates the parameters, and writes and prints the metrics; RunError if predictions are not finite."""
        self.flush()
        try:
            with self.progress.paused():
                values = {name: float(value) for name, value in evaluate(params).items()}
        except NotFiniteError:
            raise RunError(f"the predictions of the evaluation at step {step} are not finite; {ADVICE}") from None
        self._write(step, values)
        if is_lead():
            say(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        return values

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        self._writer.write(step, values)
        if self._on_metrics is not None and is_lead():
            self._on_metrics(step, values)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, Preempted):
                self.flush()
        finally:
            self.progress.close()
            self._writer.close()
