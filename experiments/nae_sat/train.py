"""Training on L&O-NAE-SAT."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.common import Results
from experiments.nae_sat.decode import ORACLES, add_rows, generate, scores
from experiments.nae_sat.flags import DataFlags, Prepare, Train
from experiments.training import begin, computed_in, plot_training, say, trained_in, training_rows
from mdm_jax.data import builders
from mdm_jax.loading import Model
from mdm_jax.models import presets
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.tasks.nae_sat import puzzle as nae_sat
from mdm_jax.tasks.nae_sat.builder import NaeSat, NaeSatConfig
from mdm_jax.training.checkpoint import trained_seconds
from mdm_jax.training.distributed import barrier, is_lead
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import TrainState

DATA_FIELDS = ("num_latents", "num_observations", "num_train", "num_test", "seed")
"""What names a data set, in flags and in a run's config."""
TWO_ORDERS = {name: ORACLES[name] for name in ("random", "margin")}
"""Of an evaluation while training."""


def prepare(flags: Prepare) -> None:
    """`prepare`: the data set on disk."""
    results = Results("nae_sat", "prepare", out=flags.out, seed=flags.seed)
    for split, tokens in load_data(flags).items():
        ones = float(tokens[:, flags.num_latents :].mean())
        results.add(dataset=dataset_name(vars(flags)), split=split, n=len(tokens), observations_that_are_1=ones)
    results.finish()


def load_data(flags: DataFlags) -> dict[str, np.ndarray]:
    """Both splits in memory, int8 [num, N + P], prepared by the first process if they are not yet."""
    config = NaeSatConfig(**{name: getattr(flags, name) for name in DATA_FIELDS})  # is right, before anything is said
    say(f"sequences: {flags.num_train} + {flags.num_test} of {dataset_name(vars(flags))} in {flags.data} ...")
    work = functools.partial(builders.prepare, NaeSat, config, flags.data)
    if is_lead():
        work()
    barrier("the sequences are prepared")
    return {split: builders.read_split(work(), split)["tokens"] for split in ("train", "test")}


def dataset_name(task: Mapping[str, Any]) -> str:
    """What rows call a distribution."""
    return f"N={task['num_latents']}, P={task['num_observations']}"


def train(flags: Train) -> None:
    """`train`: a model of any preset, distribution and budget."""
    results = Results("nae_sat", "train", out=flags.out, seed=flags.seed)
    earlier = trained_seconds(flags.out)
    config = model_config(flags)
    model = Model(config, train_model(flags, config).eval_params, make_denoiser(config))
    task = {name: getattr(flags, name) for name in (*DATA_FIELDS, "length")}
    add_rows(results, model, task, TWO_ORDERS, limit=flags.evaluate_limit, seed=flags.seed, mesh=flags.mesh.make())
    results.finish(earlier=earlier, fields=trained_in(flags))


def model_config(flags: Train) -> TransformerConfig:
    """The preset with the two values to predict, rows for padding and mask, and the length of a sequence."""
    used = flags.num_latents + flags.num_observations
    fitted = {"vocab_size": 2, "num_extra_tokens": 2, "max_length": nae_sat.check_length(flags.length, used)}
    fitted |= computed_in(flags, flags.out)
    return TransformerConfig.from_json(presets.get(flags.model).to_json() | fitted)


def train_model(flags: Train, config: TransformerConfig) -> TrainState:
    """Trains as the flags say, from the newest checkpoint if there is one; the last state."""
    task = {name: getattr(flags, name) for name in (*DATA_FIELDS, "length")}
    nae_sat.observations(flags.num_latents, flags.num_observations, flags.seed)
    run = begin(
        flags,
        config,
        {"name": "nae_sat", **task, "init_from": None if flags.init_from is None else str(flags.init_from)},
        out=flags.out,
        scores=[f"accuracy/{name}" for name in TWO_ORDERS],
        init_from=flags.init_from,
    )
    data = load_data(flags)

    def accuracies(model: Model) -> dict[str, float]:
        values = {}
        for name, oracle in TWO_ORDERS.items():
            filled = generate(model, task, oracle, limit=flags.evaluate_limit, seed=flags.seed, mesh=run.mesh)
            values[f"accuracy/{name}"] = float(scores(filled, task).mean())
        return values

    return run.train(
        {"tokens": data["train"]},
        to_batch=lambda records: nae_sat.examples(records["tokens"], flags.length),
        loss=masked_loss(nae_sat.MASK_ID),
        plain_loss=masked_loss(nae_sat.MASK_ID),
        held_out=nae_sat.examples(data["test"][: flags.evaluate_limit], flags.length),
        scores=accuracies,
    )


def nae_sat_training(run: pathlib.Path) -> list[dict[str, Any]]:
    """What a run's evaluations found, by the examples it had seen; none where nothing was trained."""
    return training_rows(run, "accuracy", dataset_name)


def plot_nae_sat_training(path: pathlib.Path, run: pathlib.Path) -> None:
    """Accuracy in each order over training."""
    plot_training(path, nae_sat_training(run), "accuracy", y_label="observations that agree with the latents (%)")
