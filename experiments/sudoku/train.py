"""Training on Sudokus."""

import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import Results
from experiments.puzzles.data import Records
from experiments.puzzles.decode import TWO_ORDERS
from experiments.puzzles.train import add_trained_rows, fitted_config, train_model
from experiments.sudoku.data import GAME, data_fields, dataset_name, load_data, source_fields
from experiments.sudoku.flags import Train
from experiments.training import plot_training, trained_in, training_rows
from mdm_jax.loading import Model
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import init_params
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku import symmetry as sudoku_symmetry
from mdm_jax.tasks.sudoku.layouts import Layout, Masked, Triples
from mdm_jax.training.checkpoint import trained_seconds
from mdm_jax.typing import Array, Oracle, Params

_orthogonal = jax.nn.initializers.orthogonal()


def train(flags: Train) -> None:
    """`train`: a model at any size, preset, layout and budget."""
    results = Results("sudoku", "train", out=flags.out, seed=flags.seed)
    earlier = trained_seconds(flags.out)
    model, test = train_sudoku(flags)
    dataset = dataset_name(flags.size, flags.difficulty)
    add_trained_rows(results, flags, GAME, sudoku_layouts.get(flags.layout), model, test, dataset)
    results.finish(earlier=earlier, fields=trained_in(flags))


def train_sudoku(flags: Train, oracles: Mapping[str, Oracle] = TWO_ORDERS) -> tuple[Model, Records]:
    """Trains as the flags say, from the newest checkpoint if there is one; the model and the held-out split."""
    layout = sudoku_layouts.get(flags.layout)
    config = fitted_config(
        flags,
        layout,
        vocab_size=layout.num_tokens(flags.size),
        max_length=layout.length(flags.size),
        shift_logits=isinstance(layout, Masked) and layout.shift_logits,
    )

    def load() -> Mapping[str, Records]:
        data = load_data(flags)
        if isinstance(layout, Triples):
            layout.check(data["train"])
        return data

    return train_model(
        flags,
        GAME,
        config,
        layout,
        data_fields(flags) | source_fields(flags) | {"augment": flags.augment},
        load,
        oracles,
        initialise=functools.partial(start_params, config, layout),
        augment=sudoku_symmetry.augment if flags.augment else None,
    )


def start_params(config: TransformerConfig, layout: Layout, key: Array) -> Params:
    """Fresh parameters; with learned positions they start from what positions have to do with each other.

    In place, a cell's position is the sum of orthogonal vectors of its row, its column and its box, as long as a
    token's vector; in triples, of its triple and its place there. In each layer a quarter of the heads, rounded down,
    begin by attending to the cell's row, as many to its column, and as many to its box: with exp(5) times the weight of
    cells elsewhere. In triples they attend to the row and to the column of the own triple, with exp(7) for the triple
    and as much for the place in it, on average: a head has fewer dimensions than there are triples.
    """
    params = init_params(config, key)
    is_in_place = isinstance(layout, Masked) and layout.in_place
    if config.positions != "learned" or not (is_in_place or isinstance(layout, Triples)):
        return params
    key_units, key_heads = jax.random.split(jax.random.fold_in(key, 1))
    if is_in_place:
        size = sudoku.size_of(config.max_length)
        parts = sudoku.units_of_cells(size)
        vectors = _orthogonal(key_units, (3 * size, config.width))  # of the rows, the columns, the boxes
        asked = sought = [vectors[unit * size : (unit + 1) * size] for unit in range(3)]
    else:
        num_triples = config.max_length // 3
        triple, place = np.divmod(np.arange(config.max_length), 3)
        parts = np.stack([triple, num_triples + place], axis=1)
        vectors = _orthogonal(key_units, (num_triples + 3, config.width))  # of the triples, the places
        triples, places = vectors[:num_triples], vectors[num_triples:]
        asked = 2 * [jnp.concatenate([triples, places.sum(axis=0, keepdims=True)])]  # from whatever place
        sought = [jnp.concatenate([triples, places[i : i + 1]]) for i in range(2)]
    length = config.init_std * math.sqrt(config.width / parts.shape[1])
    table = params["position_embedding"]["embedding"]
    params["position_embedding"]["embedding"] = (length * vectors[parts].sum(axis=1)).astype(table.dtype)
    if config.kv_heads != config.num_heads:
        return params
    part_square = config.width / (2 * parts.shape[1])  # of a normalised input: half is the token's
    gain = math.sqrt((5 if is_in_place else 7) * math.sqrt(config.head_width) / part_square)
    heads = [kind for kind in range(len(asked)) for _ in range(config.num_heads // 4)]
    for layer in range(config.num_layers):
        weights = params[f"layers_{layer}"]["attention"]
        for head, kind in enumerate(heads):
            head_key = jax.random.fold_in(key_heads, layer * len(heads) + head)
            into = _orthogonal(head_key, (len(asked[kind]), config.head_width))
            into *= max(1, math.sqrt(len(into) / config.head_width))  # its rows are of length 1 on average
            columns = slice(head * config.head_width, (head + 1) * config.head_width)
            for name, rows in (("query", asked[kind]), ("key", sought[kind])):
                kernel = weights[name]["kernel"]
                weights[name]["kernel"] = kernel.at[:, columns].set((gain * rows.T @ into).astype(kernel.dtype))
    return params


def sudoku_training(run: pathlib.Path) -> list[dict[str, Any]]:
    """What a run's evaluations found, by the examples it had seen; none where nothing was trained."""
    return training_rows(run, "solved", lambda task: dataset_name(task["size"], task["difficulty"]), method=run.name)


def plot_sudoku_training(path: pathlib.Path, run: pathlib.Path) -> None:
    """Puzzles solved in each order over training."""
    plot_training(path, sudoku_training(run), "solved", y_label="held-out Sudokus solved (%)")
