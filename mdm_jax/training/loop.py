"""The loop around the step: data in, progress out, checkpoints on the way. Started again, it goes on where it was."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from tqdm import tqdm

from mdm_jax.errors import InputError
from mdm_jax.sharding import BATCH, check_batch
from mdm_jax.training.checkpoint import Checkpointer
from mdm_jax.training.metrics import MetricsWriter
from mdm_jax.training.state import OptimizerConfig, TrainState, abstract_state, init_state
from mdm_jax.training.step import Apply, Batch, Loss, make_train_step
from mdm_jax.typing import Array, Params


class BatchIterator(Protocol):
    """Batches without end, and a position that can be stored as JSON."""

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Itself."""
        ...

    def __next__(self) -> Mapping[str, np.ndarray]:
        """This process's slice of the next global batch."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Where it stands."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How often things happen, in steps."""

    batch_size: int = 128
    checkpoint_every: int = 1000
    evaluate_every: int = 1000
    log_every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("batch_size", "checkpoint_every", "evaluate_every", "log_every"):
            if getattr(self, field) < 1:
                raise InputError(f"{field.replace('_', ' ')} must be at least 1, got {getattr(self, field)}")


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
    evaluate: Callable[[Params], Mapping[str, float]] | None = None,
) -> TrainState:
    """Trains to `optimizer.num_steps`, from the newest checkpoint in `folder` if there is one.

    Args:
      folder: of the run; gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
      apply: the network.
      init_params: makes fresh parameters from a key.
      loss: nats per sequence.
      batches: the data, `loop.batch_size` examples at a time over all processes.
      to_batch: makes `tokens` and `is_prompt` of one raw batch.
      optimizer: the optimizer's settings.
      loop: how often to log, evaluate and save.
      mesh: where to train.
      evaluate: gets the parameters (their average where one is kept); what it returns joins the metrics.

    Returns:
      The last state.
    """
    check_batch(loop.batch_size, mesh)
    folder.mkdir(parents=True, exist_ok=True)
    with Checkpointer(folder) as checkpointer:
        restored = checkpointer.restore(abstract_state(mesh, init_params, optimizer), tqdm.write)
        if restored is None:
            state = init_state(mesh, init_params, loop.seed, optimizer)
        else:
            state, position = restored
            batches.set_state(position)
        start = int(state.step)
        train_step = make_train_step(apply, loss, optimizer, mesh, state)
        sharding = NamedSharding(mesh, BATCH)
        pending: tuple[int, dict[str, Array]] | None = None
        with (
            MetricsWriter(folder, resume_step=start) as writer,
            tqdm(total=optimizer.num_steps, initial=start, unit="step", dynamic_ncols=True) as bar,
        ):

            def flush() -> None:
                """Writes the metrics of an earlier step, which the device has finished by now."""
                nonlocal pending
                if pending is not None:
                    step, metrics = pending
                    values = {name: float(value) for name, value in metrics.items()}
                    writer.write(step, values)
                    rate = (bar.format_dict["rate"] or 0.0) * loop.batch_size
                    bar.set_postfix_str(f"loss {values['loss_per_token']:.3f} nats/token, {rate:.0f} examples/s")
                    pending = None

            for step in range(start + 1, optimizer.num_steps + 1):
                batch: Batch = {
                    name: jax.make_array_from_process_local_data(sharding, array)
                    for name, array in to_batch(next(batches)).items()
                }
                state, metrics = train_step(state, batch)
                flush()
                is_last = step == optimizer.num_steps
                if step % loop.log_every == 0 or is_last:
                    pending = (step, metrics)
                if evaluate is not None and (step % loop.evaluate_every == 0 or is_last):
                    flush()
                    writer.write(step, evaluate(state.best_params))
                if step % loop.checkpoint_every == 0 or is_last:
                    checkpointer.save(state, batches.get_state())
                bar.update()
            flush()
    return state
