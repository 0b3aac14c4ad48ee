"""What a model of Sudoku starts from."""

import dataclasses
import json
import re

import commands
import jax
import numpy as np
import pytest

from experiments.fresh_params import sudoku_params as start_params
from mdm_jax.models import presets
from mdm_jax.models.kinds import num_params
from mdm_jax.models.transformer import init_params
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.tasks.sudoku import puzzle as sudoku

IN_PLACE = sudoku_layouts.get("in-place")


def attention_weights(params, config, tokens, layer, head):
    """Of one head of one layer on the sum of embeddings [L, L], without a causal mask."""
    x = params["token_embedding"]["embedding"][tokens] + params["position_embedding"]["embedding"]
    x = np.asarray(x / np.sqrt(np.mean(np.square(x), axis=1, keepdims=True)), np.float64)
    columns = slice(head * config.head_width, (head + 1) * config.head_width)
    kernels = params[f"layers_{layer}"]["attention"]
    query, key = (x @ np.asarray(kernels[name]["kernel"], np.float64)[:, columns] for name in ("query", "key"))
    scores = query @ key.T / np.sqrt(config.head_width)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def shares_of_units(params, config, grid, layer, head):
    """Per cell, the share of its attention in its row, its column and its box."""
    weights = attention_weights(params, config, grid, layer, head)
    units = sudoku.units_of_cells(sudoku.size_of(config.max_length))
    return [float((weights * (units[:, None, k] == units[None, :, k])).sum(axis=1).mean()) for k in range(3)]


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("preset", "size"), [("sudoku_6m_deep", 9), ("sudoku_800k", 6)])
@pytest.mark.slow
def test_heads_begin_by_attending_to_the_row_the_column_and_the_box_of_a_cell(preset, size):
    config = dataclasses.replace(presets.get(preset), vocab_size=size + 1, max_length=size * size, num_layers=2)
    params = jax.jit(lambda key: start_params(config, IN_PLACE, key))(jax.random.key(0))
    assert num_params(params) == num_params(config)
    grid = np.random.default_rng(0).integers(0, size + 1, size * size)
    for layer in range(config.num_layers):
        for head in range(config.num_heads):
            shares = shares_of_units(params, config, grid, layer, head)
            unit = head // (config.num_heads // 4)
            if unit < 3:
                assert shares[unit] > 0.85, (layer, head)
                assert max(share for k, share in enumerate(shares) if k != unit) < 0.65, (
                    "other units overlap with it at most half"
                )
            else:
                assert max(shares) < 0.25, "the last heads know of no unit"


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("preset", "size"), [("arm_42m", 9), ("sudoku_800k", 6)])
@pytest.mark.slow
def test_heads_of_triples_begin_by_attending_to_the_row_and_the_column_of_their_own_triple(preset, size):
    layout = sudoku_layouts.get("ordered-triples", size)
    fields = {"vocab_size": layout.num_tokens, "max_length": layout.length, "causal": True, "num_layers": 2}
    config = dataclasses.replace(presets.get(preset), **fields)
    params = jax.jit(lambda key: start_params(config, layout, key))(jax.random.key(0))
    assert num_params(params) == num_params(config)
    tokens = np.random.default_rng(0).integers(0, size + 1, config.max_length)
    triple, place = np.divmod(np.arange(config.max_length), 3)
    for layer in range(config.num_layers):
        for head in range(config.num_heads):
            weights = np.tril(attention_weights(params, config, tokens, layer, head))
            weights /= weights.sum(axis=1, keepdims=True)
            kind = head // (config.num_heads // 4)
            for wanted in range(2):
                share = (weights * ((triple == triple[:, None]) & (place == wanted))).sum(axis=1)
                share = share[place > wanted].mean()  # of those that come after it
                assert share > 0.5 if kind == wanted else share < 0.25, (layer, head, share)


@pytest.mark.slow
def test_start_draws_fresh_parameters_from_each_key_and_leaves_other_sequences_alone():
    config = presets.get("sudoku_800k")
    one, other = (start_params(config, IN_PLACE, jax.random.key(seed)) for seed in (0, 1))
    for path in (("position_embedding", "embedding"), ("layers_0", "attention", "query", "kernel")):
        first, second = one, other
        for name in path:
            first, second = first[name], second[name]
        assert abs(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]) < 0.1
    layout = sudoku_layouts.get("shifted")
    config = dataclasses.replace(config, max_length=164, vocab_size=layout.num_tokens, shift_logits=True)
    plain = init_params(config, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, start_params(config, layout, jax.random.key(0)), plain)


@pytest.mark.slow
def test_run_whose_file_of_puzzles_was_edited_is_not_gone_on_with_and_one_that_was_not_says_how_it_ran(tmp_path):
    source = tmp_path / "puzzles.txt"
    puzzles, _ = sudoku.generate(100, size=4, clues=6, seed=1)
    lines = ["".join(map(str, puzzle)) for puzzle in puzzles]
    source.write_text("\n".join(lines))
    argv = ["train", "--size", 4, "--source", source, "--num-train", 20, "--num-test", 4, "--data", tmp_path / "data"]
    argv += [
        "--model",
        "sudoku_800k",
        "--steps",
        1,
        "--batch-size",
        4,
        "--evaluate-limit",
        1,
        "--out",
        tmp_path / "run",
    ]
    (_, _, _), (status, lines, _) = commands.run_all("sudoku", [argv, argv])
    said = "\n".join(lines)
    assert status == 0, said
    assert "goes on from step 1 of 1" in said
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (found["mesh"], found["processes"]) == ({"data": 1, "fsdp": 1, "tensor": 1}, 1)
    assert re.search(r" parameters, 1 steps of 4 in .*, products in (float32|bfloat16)", said)
    source.write_text("\n".join(lines[1:]))
    commands.assert_refused("sudoku", [(argv, "holds a run with another config (task: dataset ")])
