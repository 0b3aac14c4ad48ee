"""Training on Zebra puzzles."""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax

from experiments.common import Results
from experiments.puzzles.data import MaskedLayout, Records
from experiments.puzzles.train import add_trained_rows, fitted_config, train_model
from experiments.training import trained_in, training_rows
from experiments.zebra.data import GAME, bounds, data_fields, dataset_name, load_data
from experiments.zebra.flags import Train
from mdm_jax.loading import Model
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import init_params
from mdm_jax.tasks.zebra import layouts as zebra_layouts
from mdm_jax.tasks.zebra.layouts import Layout
from mdm_jax.training.checkpoint import trained_seconds
from mdm_jax.typing import Array, Params


def train(flags: Train) -> None:
    """`train`: a model at any sizes, preset, layout and budget."""
    results = Results("zebra", "train", out=flags.out, seed=flags.seed)
    earlier = trained_seconds(flags.out)
    model, test = train_zebra(flags)
    add_trained_rows(results, flags, GAME, layout_of(flags), model, test, dataset_name(data_fields(flags)))
    results.finish(earlier=earlier, fields=trained_in(flags))


def layout_of(flags: Train) -> Layout:
    """The layout, for puzzles up to the largest."""
    return zebra_layouts.get(flags.layout, bounds(data_fields(flags))[1])


def model_config(flags: Train) -> TransformerConfig:
    """The preset with the vocabulary and the length of a puzzle; each clue is read as one position.

    Weights start with the deviation that keeps a vector's length: with 0.02 in layers this narrow, clues stay unread
    for much longer, since where to look and what to take from there are each of use with the other alone.
    """
    layout = layout_of(flags)
    fields: dict[str, Any] = {"vocab_size": layout.num_tokens, "max_length": layout.length, "positions": "learned"}
    fields |= {"num_groups": layout.num_groups, "group_length": layout.group_length}
    if isinstance(layout, MaskedLayout):
        fields["pad_id"] = layout.pad_id  # a decoder with a cache hides none
    config = fitted_config(flags, layout, **fields)
    return dataclasses.replace(config, init_std=config.width**-0.5)


def start_params(config: TransformerConfig, layout: Layout, key: Array) -> Params:
    """Fresh parameters; a cell's position starts as the sum of orthogonal vectors of its attribute and its value."""
    params = init_params(config, key)
    if isinstance(layout, MaskedLayout):
        houses, attributes = layout.size
        vectors = jax.nn.initializers.orthogonal()(jax.random.fold_in(key, 1), (houses + attributes, config.width))
        cells = (vectors[:attributes, None] + vectors[None, attributes:]).reshape(-1, config.width)
        cells *= config.init_std * math.sqrt(config.width / 2)  # as long as a token's vector
        params["position_embedding"]["embedding"] = cells.astype(config.param_dtype)
    return params


def train_zebra(flags: Train) -> tuple[Model, Records]:
    """Trains as the flags say, from the newest checkpoint if there is one; the model and the held-out split."""
    config, layout = model_config(flags), layout_of(flags)
    load, initialise = functools.partial(load_data, flags), functools.partial(start_params, config, layout)
    return train_model(flags, GAME, config, layout, data_fields(flags), load, initialise=initialise)


def zebra_training(run: pathlib.Path) -> list[dict[str, Any]]:
    """What a run's evaluations found, by the examples it had seen; none where nothing was trained."""
    return training_rows(run, "solved", dataset_name, method=run.name)
