"""The loop around the step: data in, progress out, checkpoints on the way. Started again, it goes on where it was."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from tqdm import tqdm

from mdm_jax.errors import InputError, LostPeerError, Preempted, RunError
from mdm_jax.sharding import BATCH, check_batch
from mdm_jax.training.checkpoint import Checkpointer
from mdm_jax.training.distributed import is_lead, lost_peer
from mdm_jax.training.metrics import MetricsWriter
from mdm_jax.training.objectives import Batch, Loss
from mdm_jax.training.preemption import Preemption
from mdm_jax.training.progress import Progress, Trace
from mdm_jax.training.state import OptimizerConfig, TrainState, abstract_state, as_stored, init_state
from mdm_jax.training.step import Apply, make_train_step
from mdm_jax.typing import Array, Params


class BatchIterator(Protocol):
    """Batches without end, and a position that can be stored as JSON."""

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Itself."""
        ...

    def __next__(self) -> Mapping[str, np.ndarray]:
        """The next global batch, or those of its rows that lie on this process's devices (`sharding.local_rows`)."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Where it stands."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        ...


Evaluate = Callable[[Params], Mapping[str, float]]
"""parameters -> metrics by name"""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How much is done at a time, and how often other things happen, in steps."""

    batch_size: int = 128
    """examples per step, over all devices and all processes"""
    accumulate: int = 1
    """parts that a batch is worked off in, to save memory; the result is the same but for dropout"""
    checkpoint_every: int = 1000
    keep: int = 2
    """newest checkpoints that stay"""
    evaluate_every: int = 1000
    best_metric: str | None = None
    """of the evaluation; the checkpoint where it was best stays too"""
    best_mode: Literal["max", "min"] = "max"
    log_every: int = 20
    max_skipped: int = 20
    """steps in a row with a loss or gradient that is not finite, after which the run stops"""
    profile: bool = False
    """whether to write a trace of five steps to `profile/`"""
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("batch_size", "accumulate", "checkpoint_every", "keep", "evaluate_every", "log_every", "max_skipped")
        for field in counts:
            if getattr(self, field) < 1:
                raise InputError(f"{field.replace('_', ' ')} must be at least 1, got {getattr(self, field)}")
        if self.best_mode not in ("max", "min"):
            raise InputError(f"the best metric is the highest, max, or the lowest, min; got {self.best_mode!r}")

    def score(self, values: Mapping[str, float]) -> float | None:
        """What `best_metric` says of an evaluation, the higher the better; None if it says nothing."""
        if self.best_metric is None:
            return None
        if self.best_metric not in values:
            raise InputError(f"the evaluation gives no {self.best_metric!r}; choose one of {', '.join(values)}")
        value = values[self.best_metric] * (1 if self.best_mode == "max" else -1)
        return value if math.isfinite(value) else None


def fit(
    folder: pathlib.Path,
    *,
    apply: Apply,
    init_params: Callable[[Array], Params],
    loss: Loss,
    batches: BatchIterator,
    to_batch: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    optimizer: OptimizerConfig,
    loop: LoopConfig,
    mesh: Mesh,
    evaluate: Evaluate | None = None,
    start_from: Params | None = None,
    flops_per_example: float | None = None,
) -> TrainState:
    """Trains to `optimizer.num_steps`, from the newest checkpoint in `folder` if there is one.

    Several processes of JAX's distributed runtime all call it with the same arguments; the folder is shared, and the
    first process writes all that is not a checkpoint.

    Args:
      folder: of the run; gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
      apply: the network.
      init_params: makes fresh parameters from a key.
      loss: nats per sequence.
      batches: the data; in each process those rows of the global batch that lie on its devices.
      to_batch: makes `tokens` and `is_prompt` of one raw batch.
      optimizer: the optimizer's settings.
      loop: how often to log, evaluate and save.
      mesh: where to train.
      evaluate: gets the parameters (their average where one is kept); what it returns joins the metrics.
      start_from: parameters that a fresh run starts from instead, as from `init_params`; whole in every process.
      flops_per_example: of the model's products, forward and backward, for the rates on the progress bar.

    Returns:
      The last state.

    Raises:
      InputError: the batch does not fit the mesh, or a checkpoint cannot be used.
      RunError: too many steps in a row were skipped, or a checkpoint cannot be written.
      LostPeerError: another process is gone. End this one with `distributed.leave`.
      Preempted: SIGTERM came; the state is saved.
    """
    check_batch(loop.batch_size, mesh, parts=loop.accumulate)
    folder.mkdir(parents=True, exist_ok=True)
    stored = jax.eval_shape(init_params, jax.random.key(0))
    metric = f"{loop.best_mode} {loop.best_metric}"
    with Preemption() as preemption, Checkpointer(folder, keep=loop.keep, metric=metric) as checkpointer:
        restored = checkpointer.restore(abstract_state(mesh, init_params, optimizer), tqdm.write)
        if restored is None:
            state = init_state(mesh, init_params, loop.seed, optimizer, start_from)
        else:
            state, position = restored
            batches.set_state(position)
        start, total = int(state.step), optimizer.num_steps
        step = start
        train_step = make_train_step(apply, init_params, loss, optimizer, mesh, accumulate=loop.accumulate)
        trace_folder = folder / "profile" if loop.profile and is_lead() else None
        try:
            with (
                _Log(folder, start, total, loop, flops_per_example) as log,
                Trace(trace_folder, start=start, total=total) as trace,
            ):
                for step in range(start + 1, total + 1):
                    batch = _on_mesh(to_batch(next(batches)), loop.batch_size, mesh)
                    trace.before(step)
                    state, metrics = train_step(state, batch)
                    trace.after(step, state.step)
                    log.push(step, metrics, batch)
                    score, is_last = None, step == total
                    if evaluate is not None and (is_last or step % loop.evaluate_every == 0):
                        score = loop.score(log.evaluate(step, evaluate, as_stored(state.best_params, stored)))
                    is_best = score is not None and score > checkpointer.best_score
                    is_asked = preemption.requested(step)
                    if is_last or is_best or is_asked or step % loop.checkpoint_every == 0:
                        log.flush()  # or a crash right after the save would leave this step out of the metrics
                        with log.progress.paused():
                            checkpointer.save(state, batches.get_state(), score=score)
                    if is_asked and not is_last:
                        raise Preempted(f"asked to stop: step {step} of {total} is saved; the same command goes on")
        except Exception as error:
            if lost_peer(error):
                raise LostPeerError(
                    f"another process of the run is gone, at step {step}; {checkpointer.what_is_good}: start the same "
                    "command again in every process"
                ) from error
            if isinstance(error, OSError):
                raise RunError(
                    f"{folder} cannot be written to, at step {step} ({error}); {checkpointer.what_is_good}: make room, "
                    "and give the same command again"
                ) from error
            raise
    return state


def _on_mesh(arrays: Mapping[str, np.ndarray], batch_size: int, mesh: Mesh) -> Batch:
    """This process's rows of a batch, as part of the global one."""

    def spread(array: np.ndarray) -> Array:
        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(NamedSharding(mesh, BATCH), array, shape)

    return {name: spread(array) for name, array in arrays.items()}


class _Log:
    """Metrics to the run's files and to the bar, each step's after the next one is under way. A context manager."""

    def __init__(self, folder: pathlib.Path, start: int, total: int, loop: LoopConfig, flops: float | None) -> None:
        self._writer = MetricsWriter(folder, resume_step=start, is_lead=is_lead())
        self.progress = Progress(start, total, examples=loop.batch_size, flops=flops, is_shown=is_lead())
        self._loop, self._total = loop, total
        self._pending: tuple[int, dict[str, Array]] | None = None

    def push(self, step: int, metrics: dict[str, Array], batch: Batch) -> None:
        """Takes the metrics of a step that was just sent off, and writes those of the step before."""
        self.flush()
        self._pending = (step, metrics)
        self.progress.advance(batch["tokens"].shape[1])

    def flush(self) -> None:
        """Waits for the metrics that it holds and writes them; RunError if too many steps were skipped."""
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        skipped = int(metrics["skipped_in_a_row"])
        if step % self._loop.log_every == 0 or step == self._total or skipped:
            values = {name: float(value) for name, value in metrics.items()}
            self._writer.write(step, values)
            self.progress.show(values["loss_per_token"], int(values["skipped_steps"]))
        if skipped >= self._loop.max_skipped:
            raise RunError(
                f"the loss or its gradient was not finite in {skipped} steps in a row, up to step {step}, which were "
                "skipped; the checkpoints are good: look at the data, or start anew with a lower learning rate"
            )

    def evaluate(self, step: int, evaluate: Evaluate, params: Params) -> Mapping[str, float]:
        """Evaluates, and writes what comes out."""
        self.flush()
        with self.progress.paused():
            values = evaluate(params)
        self._writer.write(step, values)
        return values

    def __enter__(self) -> "_Log":
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
