"""Initial parameters of puzzle models, with the structure of the grid built in."""

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
    """Initial parameters for Sudoku. Learned positions and some heads start with the units of the grid.

    In place, the embedding of a position is the sum of orthogonal vectors of the cell's row, column and box. Its norm
    is that of a token's vector. In each layer, a quarter of the heads, rounded down, attend to the row of the cell, a
    quarter to its column and a quarter to its box, with exp(5) times the weight of other cells.

    In triples, the embedding of a position is the sum of vectors of its triple and of its slot in the triple. A quarter
    of the heads attend to the row of their own triple, and a quarter to its column. On average, the triple and the slot
    contribute a factor of exp(7) each. It is an average because a head has fewer dimensions than there are triples.
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
        queries = keys = [vectors[unit * size : (unit + 1) * size] for unit in range(3)]
    else:
        num_triples = config.max_length // 3
        triple, slot = np.divmod(np.arange(config.max_length), 3)
        parts = np.stack([triple, num_triples + slot], axis=1)
        vectors = _orthogonal(key_units, (num_triples + 3, config.width))  # of the triples, the slots
        triples, slots = vectors[:num_triples], vectors[num_triples:]
        queries = 2 * [jnp.concatenate([triples, slots.sum(axis=0, keepdims=True)])]  # from any slot
        keys = [jnp.concatenate([triples, slots[i : i + 1]]) for i in range(2)]
    length = config.init_std * math.sqrt(config.width / parts.shape[1])
    table = params["position_embedding"]["embedding"]
    params["position_embedding"]["embedding"] = (length * vectors[parts].sum(axis=1)).astype(table.dtype)
    if config.kv_heads != config.num_heads:
        return params
    part_square = config.width / (2 * parts.shape[1])  # of a normalised input; the token has the other half
    gain = math.sqrt((5 if is_in_place else 7) * math.sqrt(config.head_width) / part_square)
    heads = [kind for kind in range(len(queries)) for _ in range(config.num_heads // 4)]
    for layer in range(config.num_layers):
        weights = params[f"layers_{layer}"]["attention"]
        for head, kind in enumerate(heads):
            head_key = jax.random.fold_in(key_heads, layer * len(heads) + head)
            into = _orthogonal(head_key, (len(queries[kind]), config.head_width))
            into *= max(1, math.sqrt(len(into) / config.head_width))  # rows have norm 1 on average
            columns = slice(head * config.head_width, (head + 1) * config.head_width)
            for name, rows in (("query", queries[kind]), ("key", keys[kind])):
                kernel = weights[name]["kernel"]
                weights[name]["kernel"] = kernel.at[:, columns].set((gain * rows.T @ into).astype(kernel.dtype))
    return params


def zebra_params(config: ModelConfig, layout: Layout, key: Array) -> Params:
    """Initial parameters for Zebra. A cell's position embedding is the sum of vectors of its attribute and value."""
    params = init_params(config, key)
    if isinstance(layout, zebra_layouts.Masked) and isinstance(config, TransformerConfig):
        houses, attributes = layout.size
        vectors = jax.nn.initializers.orthogonal()(jax.random.fold_in(key, 1), (houses + attributes, config.width))
        cells = (vectors[:attributes, None] + vectors[None, attributes:]).reshape(-1, config.width)
        cells *= config.init_std * math.sqrt(config.width / 2)  # the norm of a token's vector
        params["position_embedding"]["embedding"] = cells.astype(config.param_dtype)
    return params
