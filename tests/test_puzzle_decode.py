"""Answers to Zebra puzzles as grids, whatever the layout; tables of what was solved. Sudoku has a file of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.commands.decode import Decoded, autoregressive, masked, measure
from experiments.commands.reproduce import solved_by
from experiments.commands.scales import chosen_methods
from experiments.zebra_given import solved_by_size
from mdm_jax import PerStep, oracles
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.loading import Model
from mdm_jax.models import kinds
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.kinds import init_params, make_denoiser
from mdm_jax.sampling import SampleResult
from mdm_jax.tasks.zebra import layouts as zebra_layouts
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import sets as zebra_sets
from mdm_jax.tasks.zebra.clues import Size, sizes_of
from mdm_jax.tasks.zebra.task import Zebra

SIZE = Size(4, 3)
TASK = Zebra(max_houses=4, max_attributes=3, num_train=1, num_test=9)
RECORDS = zebra_sets.ordered(*zebra.generate(9, largest=SIZE, seed=3))
CLUES, SOLUTIONS = RECORDS["clues"], RECORDS["solution"]
NETWORK = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 32, "positions": "learned", "init_std": 0.5}


def test_answer_of_a_masked_layout_is_the_grid_and_its_steps():
    layout = zebra_layouts.get("in-place", SIZE)
    start, tokens = layout.start(RECORDS), layout.examples(RECORDS)["tokens"]
    numbers = {row.tobytes(): number for number, row in enumerate(start)}
    steps = np.random.default_rng(0).integers(0, 99, tokens.shape).astype(np.int32)
    idle = []

    def decode(keys, rows):
        """Knows the answers; what fills up a batch holds no mask."""
        del keys
        known = [numbers.get(np.asarray(row).tobytes()) for row in rows]
        idle.extend(np.asarray(row) for row, number in zip(rows, known, strict=True) if number is None)
        out = [np.asarray(row) if number is None else tokens[number] for row, number in zip(rows, known, strict=True)]
        when = [steps[number or 0] for number in known]
        is_open = np.asarray(rows) == layout.mask_id
        return SampleResult(jnp.array(out), jnp.where(is_open, jnp.array(when), -1), jnp.zeros(len(rows)), jnp.int32(1))

    decoded = measure(TASK, layout, decode, RECORDS, batch_size=4)
    row = decoded.row
    np.testing.assert_array_equal(decoded.answers, SOLUTIONS)
    is_cell = SOLUTIONS >= 0
    assert len({int(number) for number in is_cell.sum(axis=1)}) > 1, "some puzzles are smaller than others"
    np.testing.assert_array_equal(decoded.steps, np.where(is_cell, layout.steps(steps, tokens), -1))
    assert [row[field] for field in ("method", "n", "solved", "cells")] == ["mdm", 9, 1.0, 1.0]
    assert idle
    assert not any((row == layout.mask_id).any() or (row == layout.pad_id).all() for row in idle)


@pytest.mark.slow
def test_answer_of_a_masked_model_does_not_depend_on_the_batch_and_takes_the_steps_that_its_masks_want():
    layout = zebra_layouts.get("in-place", SIZE)
    config = TransformerConfig(vocab_size=layout.num_tokens, max_length=layout.length, pad_id=layout.pad_id, **NETWORK)
    model = Model(config, init_params(config, jax.random.key(0)), make_denoiser(config))
    decode = masked(model, layout, oracles.margin, PerStep(1))
    whole, parts = (measure(TASK, layout, decode, RECORDS, batch_size=size) for size in (9, 4))
    np.testing.assert_array_equal(whole.answers, parts.answers)
    cells = (SOLUTIONS >= 0).sum(axis=1)
    assert whole.row["nfe"] == cells.max()
    expected = np.mean(np.sort(cells)[[3, 7, 8]])
    assert parts.row["nfe"] == pytest.approx(expected, abs=0.01), "puzzles of like size share a batch"


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ["triples", "ordered-triples"])
@pytest.mark.slow
def test_answer_of_an_autoregressive_model_goes_on_behind_the_clues_of_each_puzzle(name):
    layout = zebra_layouts.get(name, SIZE)
    config = kinds.from_json({**layout.network, **NETWORK})
    params = init_params(config, jax.random.key(1))
    model = Model(config, params, make_denoiser(config))
    decoded = measure(TASK, layout, autoregressive(model), RECORDS, batch_size=4)
    row = decoded.row
    apply = jax.jit(make_denoiser(config))
    for number in (0, 5):
        sequence = np.zeros((1, layout.length), np.int32)
        sequence[0, : layout.num_prompt] = layout.start(RECORDS)[number]
        for place in range(layout.num_prompt, layout.length):
            sequence[0, place] = np.asarray(apply(params, jnp.asarray(sequence)))[0, place - 1].argmax()
        np.testing.assert_array_equal(decoded.answers[number], layout.answers(sequence)[0])
    assert row["method"] == layout.method
    is_cell = SOLUTIONS >= 0
    assert row["cells"] == pytest.approx((decoded.answers == SOLUTIONS)[is_cell].mean())
    assert (decoded.answers[~is_cell] == -1).all()


def test_solved_by_size_counts_each_size_apart():
    grids = SOLUTIONS.copy()
    grids[0, 0] = (grids[0, 0] + 1) % 3
    found = solved_by_size(RECORDS, Decoded(grids, grids, TASK.score(grids, RECORDS), {}, grids, grids))
    names = [f"{houses}x{attributes}" for houses, attributes in zip(*sizes_of(CLUES), strict=True)]
    assert [row["size"] for row in found] == sorted(set(names))
    assert {row["size"]: row["n"] for row in found} == {name: names.count(name) for name in names}
    for row in found:
        wrong = row["size"] == names[0]
        assert row["solved"] == pytest.approx(1 - wrong / row["n"])
        assert row["solved_ci"] == pytest.approx(list(wilson(row["n"] - wrong, row["n"])))


def test_solved_by_has_a_row_for_each_kind_in_their_order():
    kinds, is_solved = np.array([5, 2, 5, 2, 5]), np.array([True, False, True, False, False])
    found = solved_by("kind", kinds, "number {}".format, is_solved)
    assert [(row["kind"], row["n"], row["solved"]) for row in found] == [
        ("number 2", 2, 0.0),
        ("number 5", 3, pytest.approx(2 / 3)),
    ]


def test_chosen_methods_names_the_one_that_there_is_not():
    assert chosen_methods("arm,mdm,arm") == ["arm", "mdm"]
    with pytest.raises(InputError, match="unknown method 'gpt'; choose one of mdm, arm, arm_ordered"):
        chosen_methods("mdm,gpt")
