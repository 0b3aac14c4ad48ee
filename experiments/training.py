"""Training as every experiment does it: checks before data are made, the loop, and what it found on the way."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.flags import RunFlags, resolve_dtype
from mdm_jax.data import pipeline
from mdm_jax.errors import InputError
from mdm_jax.loading import Model, load
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params, num_params
from mdm_jax.report import plots
from mdm_jax.sharding import check_batch, local_rows
from mdm_jax.training.checkpoint import CHECKPOINTS
from mdm_jax.training.config import check_config, read_config
from mdm_jax.training.distributed import is_lead
from mdm_jax.training.held_out import held_out_loss
from mdm_jax.training.loop import LoopConfig, fit
from mdm_jax.training.metrics import read_metrics
from mdm_jax.training.objectives import Loss
from mdm_jax.training.state import OptimizerConfig, TrainState
from mdm_jax.typing import Array, Params

HELD_OUT = "held_out_loss_per_token"


@dataclasses.dataclass(frozen=True)
class Run:
    """A training whose flags were found to be right."""

    folder: pathlib.Path
    config: TransformerConfig
    json: dict[str, Any]
    """of the run's `config.json`, beside the optimizer and the batch size"""
    optimizer: OptimizerConfig
    loop: LoopConfig
    mesh: Mesh
    initial: Params | None

    def train(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        to_batch: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
        loss: Loss,
        plain_loss: Loss,
        held_out: Mapping[str, np.ndarray],
        scores: Callable[[Model], dict[str, float]],
        initialise: Callable[[Array], Params] | None = None,
        augment: Callable[[pipeline.Batch, np.random.Generator], pipeline.Batch] | None = None,
    ) -> TrainState:
        """Trains from the newest checkpoint, if there is one, to the last step.

        Args:
          arrays: the records to train on.
          to_batch: makes `tokens` and `is_prompt` of some of them.
          loss: what is minimised.
          plain_loss: what is measured on held-out examples.
          held_out: `tokens` and `is_prompt`.
          scores: what else an evaluation measures, by the names that `begin` was told.
          initialise: makes fresh parameters; None for the network's own.
          augment: as for `pipeline.Batches`.
        """
        batch_size = self.loop.batch_size
        batches = pipeline.Batches(
            arrays,
            batch_size=batch_size,
            seed=self.loop.seed,
            rows=local_rows(self.mesh, batch_size),
            augment=augment,
        )
        denoiser = make_denoiser(self.config)
        how = f"{self.optimizer.num_steps} steps of {batch_size} in {self.folder}, products in {self.config.dtype}"
        say(f"{num_params(self.config):,} parameters, {how}")
        nats_per_token = held_out_loss(denoiser, plain_loss, held_out, self.mesh, batch_size=batch_size)

        def evaluate(params: Params) -> dict[str, float]:
            return {HELD_OUT: nats_per_token(params), **scores(Model(self.config, params, make_denoiser(self.config)))}

        return fit(
            self.folder,
            apply=denoiser,
            init_params=initialise or functools.partial(init_params, self.config),
            loss=loss,
            batches=batches,
            to_batch=to_batch,
            optimizer=self.optimizer,
            loop=self.loop,
            mesh=self.mesh,
            config=self.json,
            evaluate=evaluate,
            start_from=self.initial,
            flops_per_example=3
            * self.config.forward_flops(self.config.max_length, num_logits=self.config.max_length / 2),
        )


def begin(
    flags: RunFlags,
    config: TransformerConfig,
    task: Mapping[str, Any],
    *,
    out: pathlib.Path,
    scores: Sequence[str],
    init_from: pathlib.Path | None = None,
) -> Run:
    """Checks all that can be wrong before there are data, which may take long to make.

    Args:
      flags: of the training.
      config: of the network.
      task: what it is trained on, for the run's `config.json`.
      out: the run's folder.
      scores: names of what the evaluation measures beside the held-out loss.
      init_from: weights to start from instead of random ones.

    Raises:
      InputError: the folder holds another run, the batch does not fit the mesh, the evaluation has no such metric, or
        the weights to start from are of another network.
    """
    optimizer, loop, mesh = _optimizer(flags, out), flags.loop(), flags.mesh.make()
    names = [*scores, HELD_OUT]
    if loop.best_metric not in (None, *names):
        raise InputError(f"--best-metric {loop.best_metric} is none of the evaluation's: {', '.join(names)}")
    is_fresh = not (out / CHECKPOINTS).exists()  # a run that goes on has no need of them any more
    if loop.batch_size > task["num_train"]:
        raise InputError(f"--batch-size {loop.batch_size} is more than there is to train on, {task['num_train']}")
    initial = _initial_params(init_from, config) if init_from is not None and is_fresh else None
    run: dict[str, Any] = {"model": config.to_json(), "task": dict(task)}
    check_config(out, run | {"optimizer": optimizer.to_json(), "batch_size": loop.batch_size})
    check_batch(loop.batch_size, mesh, parts=loop.accumulate)
    return Run(out, config, run, optimizer, loop, mesh, initial)


def _optimizer(flags: RunFlags, out: pathlib.Path) -> OptimizerConfig:
    """The optimizer that the flags ask for; a run that goes on keeps its own warm-up where they ask for none."""
    optimizer = flags.optimizer_config()
    if flags.warmup_steps is None and (out / "config.json").exists():
        found = read_config(out).get("optimizer")
        warmup = found.get("warmup_steps") if isinstance(found, dict) else None
        if isinstance(warmup, int):
            return dataclasses.replace(optimizer, warmup_steps=warmup)
    return optimizer


def computed_in(flags: RunFlags, out: pathlib.Path) -> dict[str, Any]:
    """The fields of a network's config that say how it computes; a run that goes on keeps its own where flags say auto.

    Args:
      flags: of the training.
      out: the run's folder.
    """
    dtype: str = resolve_dtype(flags.dtype)
    if flags.dtype == "auto" and (out / "config.json").exists():
        dtype = read_config(out)["model"].get("dtype", dtype)
    return {"dtype": dtype, "param_dtype": flags.param_dtype, "remat": flags.remat}


def trained_in(flags: RunFlags) -> dict[str, Any]:
    """Where a training ran, for its `results.json`."""
    return {"mesh": dict(flags.mesh.make().shape), "processes": jax.process_count()}


def _initial_params(path: pathlib.Path, config: TransformerConfig) -> Params:
    """The parameters of a trained model; InputError if it is not of this architecture."""
    params = load(path).params
    wanted = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, wanted):
        raise InputError(f"{path} is another network than the flags make: give those it was made with")
    return params


def training_rows(
    run: pathlib.Path, field: str, dataset: Callable[[Mapping[str, Any]], str], *, method: str = "mdm"
) -> list[dict[str, Any]]:
    """What a run's evaluations found in each order, by the examples it had seen; none where nothing was trained.

    Args:
      run: its folder.
      field: metrics are called field/order, and rows have a field of that name.
      dataset: what rows call the task of the run's config.
      method: what rows call the model.
    """
    if not (run / "metrics.jsonl").exists():
        return []
    config = read_config(run)
    common = {"method": method, "dataset": dataset(config["task"])}
    return [
        common
        | {"oracle": name.removeprefix(f"{field}/"), "examples": config["batch_size"] * line["step"], field: value}
        for line in read_metrics(run)
        for name, value in line.items()
        if name.startswith(f"{field}/")
    ]


def plot_training(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], field: str, *, y_label: str) -> None:
    """One curve for each order in `training_rows`."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        examples, shares = series.setdefault(row["oracle"], ([], []))
        examples.append(row["examples"])
        shares.append(row[field])
    plots.curves(path, series, x_label="training examples", y_label=y_label, title="Over training")


def say(line: str) -> None:
    """A line on stderr, of the first process."""
    if is_lead():
        sys.stderr.write(line + "\n")
