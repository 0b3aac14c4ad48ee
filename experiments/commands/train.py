"""`train` checks its flags, trains a model, and measures it on held-out records."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.commands.decode import TWO_ORDERS, add_row, measure, one_by_one
from experiments.commands.flags import FitFlags, TrainFlags
from experiments.commands.prepare import load_splits
from experiments.common import Results, say
from experiments.flags import RunFlags, resolve_dtype
from mdm_jax.data import pipeline
from mdm_jax.data.checks import Split
from mdm_jax.errors import InputError
from mdm_jax.loading import Model, load
from mdm_jax.models import kinds, presets
from mdm_jax.models.config import ModelConfig
from mdm_jax.models.judged import JudgedTransformerConfig, with_head
from mdm_jax.sharding import check_batch, local_rows
from mdm_jax.tasks.base import Records, Task, fields_of, take
from mdm_jax.training.checkpoint import trained_seconds
from mdm_jax.training.config import check_config, read_config
from mdm_jax.training.distributed import is_lead, meet
from mdm_jax.training.held_out import held_out_loss
from mdm_jax.training.loop import LoopConfig, fit
from mdm_jax.training.record import all_steps
from mdm_jax.training.state import OptimizerConfig
from mdm_jax.typing import Params

HELD_OUT = "held_out_loss_per_token"


def train(flags: TrainFlags) -> None:
    """Trains a model, and measures it on held-out records, decoding one token at a time."""
    results = Results(flags.experiment, "train", out=flags.out, seed=flags.seed)
    earlier = trained_seconds(flags.out)
    task = flags.task()
    layout = flags.layout_of(task)
    model, held_out = train_model(flags)
    test, mesh = take(flags.evaluate_limit, held_out), flags.mesh.make()
    for _, decode, how in one_by_one(model, task, layout):
        fields = {"dataset": task.title, **how}
        add_row(results, task, layout, decode, test, fields, mesh=mesh, seed=flags.draw_seed)
    results.finish(earlier=earlier, fields={"mesh": dict(mesh.shape), "processes": jax.process_count()})


def train_model(
    flags: FitFlags, orders: tuple[str, ...] | None = TWO_ORDERS, data: Mapping[Split, Records] | None = None
) -> tuple[Model, Records]:
    """Trains a model, from the newest checkpoint if there is one.

    Args:
      flags: the flags of the training.
      orders: the names of the oracles that evaluations decode with; an empty tuple measures the held-out loss alone,
        None nothing.
      data: both splits, if they were read before.

    Returns:
      The model, and all held-out records.

    Raises:
      InputError: as `begin`; or the data cannot be made.
    """
    task = flags.task()
    layout, config = flags.layout_of(task), network(flags, task)
    loss, plain = flags.losses(layout)
    run = begin(flags, task, config, ["greedy"] if layout.mask_id is None and orders else orders or ())
    data = load_splits(task, flags.data) if data is None else data
    layout.check(data["train"])
    if is_lead():
        flags.write_beside(task)
    test = take(flags.evaluate_limit, data["test"])
    batch_size, mesh = run.loop.batch_size, run.mesh
    batches = pipeline.Batches(
        data["train"],
        batch_size=batch_size,
        seed=run.loop.seed,
        rows=local_rows(mesh, batch_size),
        augment=flags.augmentation(),
    )
    denoiser = kinds.make_denoiser(config)
    how = f"{run.optimizer.num_steps} steps of {batch_size} in {flags.out}, products in {config.dtype}"
    say(f"{kinds.num_params(config):,} parameters, {how}")
    nats_per_token = held_out_loss(denoiser, plain, layout.examples(test), mesh, batch_size=batch_size)

    def evaluate(params: Params) -> dict[str, float]:
        model, found = Model(config, params, denoiser), {HELD_OUT: nats_per_token(params)}
        for name, decode, _ in one_by_one(model, task, layout, orders or ()):
            decoded = measure(task, layout, decode, test, mesh=mesh, seed=flags.draw_seed)
            found[f"{task.metric}/{name}"] = decoded.row[task.metric]
        return found

    state = fit(
        flags.out,
        apply=denoiser,
        init_params=functools.partial(flags.start_params, config, layout),
        loss=loss,
        batches=batches,
        to_batch=layout.examples,
        optimizer=run.optimizer,
        loop=run.loop,
        mesh=mesh,
        config=run.json,
        evaluate=None if orders is None else evaluate,
        start_from=run.initial,
        flops_per_example=flops_of(config, config.max_length),
    )
    return Model(config, state.eval_params, denoiser), data["test"]


def flops_of(config: ModelConfig, length: int) -> float | None:
    """Floating-point operations of training on a sequence, where the kind of network says how many."""
    flops = config.forward_flops(length, num_logits=length / 2)
    return None if flops is None else 3 * flops


def network(flags: FitFlags, task: Task) -> ModelConfig:
    """The preset, with the changes that the flags and the layout make."""
    changes = computed_in(flags, flags.out) | dict(flags.layout_of(task).network)
    changes |= {} if flags.dropout is None else {"dropout": flags.dropout}
    return flags.fitted(kinds.adapted(presets.get(flags.model), changes))


@dataclasses.dataclass(frozen=True)
class Run:
    """A training with checked flags."""

    json: dict[str, Any]
    """the values of config.json beside the optimizer and the batch size"""
    optimizer: OptimizerConfig
    loop: LoopConfig
    mesh: Mesh
    initial: Callable[[], Params] | None
    """gives the parameters to start from, once, and keeps none; None for new ones"""


def check_metric(name: str | None, names: Sequence[str]) -> None:
    """InputError for a --best-metric that the evaluation does not give."""
    if name not in (None, *names):
        raise InputError(f"--best-metric {name} is none of the evaluation's: {', '.join(names)}")


def begin(flags: FitFlags, task: Task, config: ModelConfig, orders: Sequence[str]) -> Run:
    """Checks the flags before the data are made, which may take long.

    Args:
      flags: the flags of the training.
      task: the task to train on.
      config: the network.
      orders: the names of the orders that an evaluation measures.

    Raises:
      InputError: the folder holds another run, the batch does not fit the mesh, the evaluation has no such metric, or
        the initial weights belong to another network.
    """
    optimizer, loop, mesh = optimizer_of(flags, flags.out), flags.loop(), flags.mesh.make()
    names = [*(f"{task.metric}/{name}" for name in orders), HELD_OUT]
    check_metric(loop.best_metric, names)
    if task.num_train is not None and loop.batch_size > task.num_train:
        raise InputError(f"--batch-size {loop.batch_size} is more than there is to train on, {task.num_train}")
    initial = None
    if flags.init_from is not None and not all_steps(flags.out):  # a resumed run has its own weights
        initial = [_initial_params(flags.init_from, config, mesh)].pop
    init_from = None if flags.init_from is None else str(flags.init_from)
    chosen = {"name": task.name, **fields_of(task), **flags.recorded(), "init_from": init_from}
    run = {"model": kinds.to_json(config), "task": chosen}
    check_config(flags.out, run | {"optimizer": optimizer.to_json(), "batch_size": loop.batch_size})
    check_batch(loop.batch_size, mesh, parts=loop.accumulate)
    return Run(run, optimizer, loop, mesh, initial)


def optimizer_of(flags: RunFlags, out: pathlib.Path) -> OptimizerConfig:
    """The optimizer of the flags. A resumed run keeps its warm-up unless the flags name one."""
    optimizer = flags.optimizer_config()
    if flags.warmup_steps is None and (out / "config.json").exists():
        found = read_config(out).get("optimizer")
        warmup = found.get("warmup_steps") if isinstance(found, dict) else None
        if isinstance(warmup, int):
            return dataclasses.replace(optimizer, warmup_steps=warmup)
    return optimizer


def computed_in(flags: RunFlags, out: pathlib.Path) -> dict[str, Any]:
    """The fields of the config that say how the network computes. A resumed run keeps its dtype if the flag is auto."""
    dtype: str = resolve_dtype(flags.dtype)
    if flags.dtype == "auto" and (out / "config.json").exists():
        dtype = read_config(out)["model"].get("dtype", dtype)
    param_dtype = "float32" if flags.param_dtype == "auto" else flags.param_dtype
    return {"dtype": dtype, "param_dtype": param_dtype, "remat": flags.remat}


def _initial_params(path: pathlib.Path, config: ModelConfig, mesh: Mesh) -> Params:
    """The parameters of a trained model, on the mesh; InputError unless it is that network, but for a quality head."""
    meet(mesh)
    params = load(path, mesh=mesh).params
    params = with_head(config, params) if isinstance(config, JudgedTransformerConfig) else params
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, kinds.param_shapes(config)):
        raise InputError(f"{path} is another network than the flags make: give those it was made with")
    return params
