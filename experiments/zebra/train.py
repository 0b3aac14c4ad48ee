"""Training on Zebra puzzles."""

import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import Results
from experiments.puzzles.data import Records
from experiments.puzzles.decode import Masked
from experiments.puzzles.train import add_trained_rows, fitted_config, train_model
from experiments.training import training_rows
from experiments.zebra.data import GAME, bounds, data_fields, dataset_name, load_data
from experiments.zebra.flags import Train
from mdm_jax.data import zebra_layouts
from mdm_jax.data.zebra_layouts import Layout
from mdm_jax.loading import Model
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import init_params
from mdm_jax.typing import Array, Params


def train(flags: Train) -> None:
    """`train`: a model at any sizes, preset, layout and budget."""
    results = Results("zebra", "train", out=flags.out, seed=flags.seed)
    model, test = train_zebra(flags)
    add_trained_rows(results, flags, GAME, layout_of(flags), model, test, dataset_name(data_fields(flags)))
    results.finish()


def layout_of(flags: Train) -> Layout:
    """The layout, for puzzles up to the largest."""
    return zebra_layouts.get(flags.layout, bounds(data_fields(flags))[1])


def model_config(flags: Train) -> TransformerConfig:
    """The preset with the vocabulary and the length of a puzzle, and positions of both kinds.

    Before anything is filled in, cells differ by where they stand alone, which relative positions (RoPE) hardly tell;
    tokens of a clue belong together by how far apart they are, which learned ones take long to tell.
    """
    layout = layout_of(flags)
    return fitted_config(
        flags,
        layout,
        vocab_size=layout.num_tokens,
        max_length=layout.length,
        positions="both",
        pad_id=layout.pad_id if isinstance(layout, Masked) else None,  # elsewhere it stands behind all else
    )


def start_params(config: TransformerConfig, layout: Layout, key: Array) -> Params:
    """Fresh parameters; positions, each as long as a token's vector, start from how they lie to one another.

    That of a cell is the sum of orthogonal vectors of its attribute and its house; elsewhere they are sinusoids of the
    place (Vaswani et al. 2017), in which the token before is always the same rotation away: clues are read in groups.
    """
    params = init_params(config, key)
    place, channel = np.arange(config.max_length)[:, None], np.arange(config.width // 2)
    angles = place / 1000 ** (channel / len(channel))
    table = jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=1) * math.sqrt(2))
    if isinstance(layout, Masked):
        houses, attributes = layout.size
        vectors = jax.nn.initializers.orthogonal()(jax.random.fold_in(key, 1), (houses + attributes, config.width))
        cells = vectors[:attributes, None] + vectors[None, attributes:]
        cells *= math.sqrt(config.width / 2)
        table = table.at[layout.size.max_tokens :].set(cells.reshape(-1, config.width))
    old = params["position_embedding"]["embedding"]
    params["position_embedding"]["embedding"] = (config.init_std * table).astype(old.dtype)
    return params


def train_zebra(flags: Train) -> tuple[Model, Records]:
    """Trains as the flags say, from the newest checkpoint if there is one; the model and the held-out split."""
    config, layout = model_config(flags), layout_of(flags)
    load, initialise = functools.partial(load_data, flags), functools.partial(start_params, config, layout)
    return train_model(flags, GAME, config, layout, data_fields(flags), load, initialise=initialise)


def zebra_training(run: pathlib.Path) -> list[dict[str, Any]]:
    """What a run's evaluations found, by the examples it had seen; none where nothing was trained."""
    return training_rows(run, "solved", dataset_name, method=run.name)
