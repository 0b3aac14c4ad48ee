"""The training loop: data, steps, progress and checkpoints. Started again, it continues from the newest checkpoint."""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mdm_jax.errors import InputError, Interrupted, LostPeerError, Preempted, RunError, shown
from mdm_jax.files import is_full, local_path
from mdm_jax.models import kinds
from mdm_jax.progress import say
from mdm_jax.ranges import Count, Seed, check_ranges
from mdm_jax.sharding import BATCH, RULES, Rules, check_batch, without_rule
from mdm_jax.training.checkpoint import Checkpointer
from mdm_jax.training.config import OWN, write_config
from mdm_jax.training.distributed import is_lead, lost_peer, meet, what_was_lost
from mdm_jax.training.lock import locked
from mdm_jax.training.log import Evaluate, Log, OnMetrics
from mdm_jax.training.lora import Lora
from mdm_jax.training.objectives import Batch, Loss
from mdm_jax.training.preemption import Preemption
from mdm_jax.training.progress import Trace
from mdm_jax.training.state import OptimizerConfig, TrainState, abstract_state, as_stored, init_state, placed
from mdm_jax.training.step import Apply, make_train_step
from mdm_jax.typing import Array, Denoiser, Params


class BatchIterator(Protocol):
    """An endless iterator of batches with a position that can be stored as JSON."""

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Itself."""
        ...

    def __next__(self) -> Mapping[str, np.ndarray]:
        """The next global batch, or the rows of it on this process's devices (`sharding.local_rows`)."""
        ...

    def get_state(self) -> dict[str, Any]:
        """The position."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """The size of a step, and how often the loop saves, evaluates and logs, in steps."""

    batch_size: Count = 128
    """examples per step, over all devices and all processes"""
    accumulate: Count = 1
    """parts of a batch that are computed one after the other, to save memory; the result is the same but for dropout"""
    checkpoint_every: Count = 1000
    keep: Count = 2
    """number of newest checkpoints to keep"""
    evaluate_every: Count = 1000
    best_metric: str | None = None
    """name of an evaluation metric; the checkpoint where it was best is kept too"""
    best_mode: Literal["max", "min"] = "max"
    log_every: Count = 20
    max_skipped: Count = 20
    """steps in a row in which something was not finite, after which the run stops"""
    profile: bool = False
    """whether to write a trace of five steps to `profile/`"""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.best_mode not in ("max", "min"):
            raise InputError(f"the best metric is the highest, max, or the lowest, min; got {shown(self.best_mode)}")

    def score(self, values: Mapping[str, float]) -> float | None:
        """The evaluation's `best_metric`, negated if the lowest is best; None if it is not finite or not set."""
        if self.best_metric is None:
            return None
        if self.best_metric not in values:
            raise InputError(f"the evaluation gives no {self.best_metric!r}; choose one of {', '.join(values)}")
        value = values[self.best_metric] * (1 if self.best_mode == "max" else -1)
        return value if math.isfinite(value) else None


def fit(
    folder: str | pathlib.Path,
    *,
    apply: Apply | Denoiser,
    init_params: Callable[[Array], Params],
    loss: Loss,
    batches: BatchIterator,
    to_batch: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    optimizer: OptimizerConfig,
    loop: LoopConfig,
    mesh: Mesh,
    config: Mapping[str, Any] | None = None,
    evaluate: Evaluate | None = None,
    start_from: Params | Callable[[], Params] | None = None,
    lora: Lora | None = None,
    rules: Rules = RULES,
    on_metrics: OnMetrics | None = None,
    flops_per_example: float | None = None,
) -> TrainState:
    """Trains to `optimizer.num_steps`, from the newest checkpoint in `folder` if there is one.

    In JAX's distributed runtime every process calls it with the same arguments. The processes share the folder; the
    first one writes everything but the checkpoints.

    Args:
      folder: of the run; holds `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/` and `lock`.
      apply: the network. Without an argument `dropout_key` it is trained without dropout.
      init_params: makes fresh parameters from a key.
      loss: nats per sequence.
      batches: the data; each process gets the rows of the global batch on its own devices.
      to_batch: maps a raw batch to `tokens` int32 [rows, L] and `is_prompt` bool [rows, L].
      optimizer: the optimizer's settings.
      loop: how often to log, evaluate and save.
      mesh: where to train.
      config: further sections of `config.json`, beside the optimizer and the batch size. A folder refuses a run with
        another config. The section `model`, which `load` reads, is written if `apply.config` is of a registered kind.
      evaluate: maps the network's parameters (their average if there is one) to metrics.
      start_from: initial parameters of a fresh run, in place of those of `init_params`: on `mesh`, or whole in every
        process. A function that gives them is called once, and only if they are needed, so that no copy stays.
      lora: trains adapters of `start_from`, which stays as it is, instead of all parameters.
      rules: where parameters lie on the mesh, by their names.
      on_metrics: called with the step and its metrics whenever metrics are written, in the first process.
      flops_per_example: FLOPs of the model's matrix products, forward and backward, for the progress bar's rates.

    Returns:
      The last state.

    Raises:
      InputError: the batch does not fit the mesh; the folder is in use, or of another run; or its checkpoints cannot be
        used.
      RunError: too many steps in a row were skipped, or most of all steps; or the predictions of an evaluation are not
        finite; or a checkpoint cannot be written.
      LostPeerError: another process is gone. End this one with `distributed.leave`.
      Preempted: SIGTERM came; the state is saved. Interrupted: Ctrl-C did.
    """
    folder = local_path(folder)
    check_batch(loop.batch_size, mesh, parts=loop.accumulate)
    if loop.best_metric is not None and evaluate is None:
        raise InputError(f"nothing measures the metric {shown(loop.best_metric)}: give fit an `evaluate`, or no metric")
    network: Any = getattr(apply, "config", None)
    model = kinds.to_json(network) if kinds.is_known(network) else OWN
    run = {"model": model, **(config or {}), "optimizer": optimizer.to_json(), "batch_size": loop.batch_size}
    base: Params = None
    if lora is not None:
        if start_from is None:
            raise InputError("adapters change parameters that there are: give fit start_from, those of the base")
        base, start_from = placed(mesh, _called(start_from), rules), None
        init_params = functools.partial(lora.init, jax.eval_shape(lambda: base))
        run["lora"] = lora.to_json(base)
    fixed = [] if lora is None else [base]
    stored = jax.eval_shape(init_params, jax.random.key(0))
    metric, total, begin = f"{loop.best_mode} {loop.best_metric}", optimizer.num_steps, time.perf_counter()
    with locked(folder), Preemption() as preemption:
        if is_lead():
            write_config(folder, run)
            _say_what_is_replicated(mesh, stored, rules)
        meet(mesh)
        with Checkpointer(folder, keep=loop.keep, metric=metric) as checkpointer:
            init_pool = _init_pool(loss, batches, to_batch, loop.batch_size)
            restored = checkpointer.restore(abstract_state(mesh, init_params, optimizer, rules, init_pool), say)
            if restored is None:
                state = init_state(mesh, init_params, loop.seed, optimizer, _called(start_from), rules, init_pool)
            else:
                state, position = restored
                batches.set_state(position)
                if is_lead():
                    say(f"goes on from step {int(state.step)} of {total}")
            step = start = int(state.step)
            train_step = make_train_step(
                apply,
                init_params,
                loss,
                optimizer,
                mesh,
                accumulate=loop.accumulate,
                rules=rules,
                merge=None if lora is None else lora.merge,
            )
            log = Log(
                folder,
                start,
                total,
                batch_size=loop.batch_size,
                log_every=loop.log_every,
                max_skipped=loop.max_skipped,
                flops=flops_per_example,
                on_metrics=on_metrics,
            )
            trace_folder = folder / "profile" if loop.profile and is_lead() else None
            try:
                with log, Trace(trace_folder, start=start, total=total) as trace:
                    for step in range(start + 1, total + 1):
                        batch = _on_mesh(to_batch(next(batches)), loop.batch_size, mesh)
                        trace.before(step)
                        state, metrics = train_step(state, batch, *fixed)
                        trace.after(step, state.step)
                        log.push(step, metrics, batch)
                        score, is_last = None, step == total
                        if evaluate is not None and (is_last or step % loop.evaluate_every == 0):
                            params = as_stored(state.eval_params, stored)
                            params = params if lora is None else lora.merged(base, params)
                            score = loop.score(log.evaluate(step, evaluate, params))
                            del params  # or the next step would need memory for it, too
                        is_best = score is not None and score > checkpointer.best_score
                        is_asked = preemption.requested(step)
                        if is_last or is_best or is_asked or step % loop.checkpoint_every == 0:
                            log.flush()  # or a crash right after the save would leave this step out of the metrics
                            with log.progress.paused():
                                if _is_worth_saving(state, is_last=is_last):
                                    seconds = checkpointer.seconds + time.perf_counter() - begin
                                    checkpointer.save(state, batches.get_state(), score=score, seconds=seconds)
                        if is_asked:
                            _stop(preemption, step, total, int(state.skipped_in_a_row), checkpointer)
            except Exception as error:
                if lost_peer(error):
                    raise LostPeerError(
                        f"{what_was_lost(error)}, at step {step}; {checkpointer.what_is_good}: start the same command "
                        "again in every process"
                    ) from error
                if is_full(error) or (isinstance(error, OSError) and _lies_in(folder, error.filename)):
                    raise RunError(
                        f"{folder} cannot be written to, at step {step} ({error}); {checkpointer.what_is_good}: make "
                        "room, and give the same command again"
                    ) from error
                raise
            if preemption.asked and not jax.distributed.is_initialized():  # while the last step was evaluated or saved
                _stop(preemption, step, total, int(state.skipped_in_a_row), checkpointer)
    if not _most_count(state):
        raise RunError(
            f"{int(state.skipped)} of {total} steps were skipped, since the loss, its gradient or what came of it was "
            "not finite: this is no trained model; look at the data, or start anew with a lower learning rate"
        )
    return state


def _called(start_from: Params | Callable[[], Params] | None) -> Params | None:
    return start_from() if callable(start_from) else start_from


def _init_pool(
    loss: Loss, batches: BatchIterator, to_batch: Callable[..., Mapping[str, np.ndarray]], batch_size: int
) -> Callable[[], Any] | None:
    """What makes the first pool of a loss that has one: of a batch of zeros as large as those to come."""
    init, position = loss.init, batches.get_state()
    if init is None:
        return None
    arrays = to_batch(next(batches))
    batches.set_state(position)
    return lambda: init({name: jnp.zeros((batch_size, *x.shape[1:]), x.dtype) for name, x in arrays.items()})


def _lies_in(folder: pathlib.Path, name: Any) -> bool:
    """Whether `name`, the file name of an OSError, lies in the run's folder."""
    return isinstance(name, str) and folder.absolute() in pathlib.Path(name).absolute().parents


def _most_count(state: TrainState) -> bool:
    """Whether at least half of the steps were not skipped."""
    return 2 * int(state.skipped) <= int(state.step)


def _is_worth_saving(state: TrainState, *, is_last: bool) -> bool:
    """False within a streak of skipped steps: their checkpoints are alike and would displace those from before it."""
    return not int(state.skipped_in_a_row) or (is_last and _most_count(state))


def _stop(preemption: Preemption, step: int, total: int, skipped: int, checkpointer: Checkpointer) -> None:
    what = f"step {step} of {total} is saved in {checkpointer.folder / str(step)}"
    if skipped:
        what = f"step {step} of {total} is not saved, as the last {skipped} were skipped; {checkpointer.what_is_good}"
    raise (Interrupted if preemption.by_hand else Preempted)(f"asked to stop: {what}; the same command goes on")


def _say_what_is_replicated(mesh: Mesh, params: Params, rules: Rules) -> None:
    share, name = without_rule(params, rules)
    if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1 and share > 0.1:
        say(
            f"{share:.0%} of the parameters, such as {name}, lie whole on every device, since no rule of "
            "sharding.RULES meets their names: give fit `rules` that do"
        )


def _on_mesh(arrays: Mapping[str, np.ndarray], batch_size: int, mesh: Mesh) -> Batch:
    """This process's rows of a batch as part of the global arrays."""

    def spread(array: np.ndarray) -> Array:
        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(NamedSharding(mesh, BATCH), array, shape)

    return {name: spread(array) for name, array in arrays.items()}
