"""Fresh parameters that know how the positions of a puzzle lie to one another."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.models.config import ModelConfig, TransformerConfig
from mdm_jax.models.kinds import init_params
from mdm_jax.tasks.base import Layout
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.layouts import Masked, Triples
from mdm_jax.tasks.zebra import layouts as zebra_layouts
from mdm_jax.typing import Array, Params

_orthogonal = jax.nn.initializers.orthogonal()


def sudoku_params(config: ModelConfig, layout: Layout, key: Array) -> Params:
    """Fresh parameters; learned positions and some heads start with the units of the grid built in.

    In place, the embedding of a cell's position is the sum of orthogonal vectors of its row, its column and its box,
    as long as a token's vector. In each layer a quarter of the heads, rounded down, starts by attending to the cell's
    row, as many to its column, and as many to its box, with exp(5) times the weight of cells elsewhere.

    In triples, the embedding is the sum of vectors of the triple and of the slot in it. Heads start by attending to the
    row and to the column of their own triple: with exp(7) for the triple and as much for the slot, on average, since a
    head has fewer dimensions than there are triples.
    """
    params = init_params(config, key)
    is_in_place = isinstance(layout, Masked) and layout.in_place
    if not (isinstance(config, TransformerConfig) and (is_in_place or isinstance(layout, Triples))):
        return params
    if config.positions != "learned":
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


def zebra_params(config: ModelConfig, layout: Layout, key: Array) -> Params:
    """Fresh parameters; the embedding of a cell's position is the sum of vectors of its attribute and its value."""
    params = init_params(config, key)
    if isinstance(layout, zebra_layouts.Masked) and isinstance(config, TransformerConfig):
        houses, attributes = layout.size
        vectors = jax.nn.initializers.orthogonal()(jax.random.fold_in(key, 1), (houses + attributes, config.width))
        cells = (vectors[:attributes, None] + vectors[None, attributes:]).reshape(-1, config.width)
        cells *= config.init_std * math.sqrt(config.width / 2)  # as long as a token's vector
        params["position_embedding"]["embedding"] = cells.astype(config.param_dtype)
    return params
