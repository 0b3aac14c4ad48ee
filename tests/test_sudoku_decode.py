"""Answers as grids, whatever the layout: tokens, and the step at which each cell was filled in."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.commands.decode import autoregressive, correcting, decoders_for, masked, measure, searching
from experiments.commands.evaluate import evaluate
from experiments.commands.proposals import ways
from experiments.commands.view import Page
from experiments.sudoku import Evaluate
from mdm_jax import (
    PerStep,
    Threshold,
    best_sample,
    oracles,
    pseudo_log_likelihood,
    sample,
    search_sample,
    symmetric_average,
    symmetric_rank,
    symmetric_sample,
)
from mdm_jax.errors import InputError
from mdm_jax.loading import Model
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sampling import SampleResult
from mdm_jax.tasks.base import held_out, take
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku import sets as sudoku_sets
from mdm_jax.tasks.sudoku.task import Sudoku
from mdm_jax.tasks.zebra.task import Zebra

TASK = Sudoku(size=4, num_train=1, num_test=9)
RECORDS = sudoku_sets.rated(*sudoku.generate(9, size=4, seed=3))
PUZZLES, SOLUTIONS = RECORDS["puzzle"], RECORDS["solution"]
SIZE = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 32, "positions": "learned", "init_std": 0.5}


@pytest.mark.parametrize("name", ["in-place", "question-answer", "shifted"])
def test_answer_of_a_masked_layout_is_the_grid_and_its_steps(name):
    layout = sudoku_layouts.get(name, 4)
    whole = {start.tobytes(): row for start, row in zip(layout.start(RECORDS), range(9), strict=True)}
    tokens = layout.examples(RECORDS)["tokens"]
    step = np.random.default_rng(0).integers(0, 99, tokens.shape).astype(np.int32)

    def decode(keys, start):
        """Knows the answers; what fills up a batch is none of the puzzles."""
        rows = [whole.get(np.asarray(row).tobytes(), 0) for row in start]
        steps = np.where(start == layout.mask_id, step[rows], -1)
        return SampleResult(jnp.asarray(tokens[rows]), jnp.asarray(steps), jnp.zeros(len(rows)), jnp.int32(1))

    decoded = measure(TASK, layout, decode, RECORDS, batch_size=4)
    row = decoded.row
    np.testing.assert_array_equal(decoded.answers, SOLUTIONS)
    first = {"in-place": 0, "question-answer": 16, "shifted": 17}[name]
    expected = step[:, first : first + 16]
    np.testing.assert_array_equal(
        decoded.steps, np.where(PUZZLES == 0, expected, -1) if name == "in-place" else expected
    )
    assert [row[field] for field in ("method", "n", "solved", "cells")] == ["mdm", 9, 1.0, 1.0]


@pytest.mark.slow
def test_answer_of_a_masked_model_takes_the_steps_that_its_masks_want():
    layout = sudoku_layouts.get("shifted", 4)
    config = TransformerConfig(vocab_size=31, max_length=34, shift_logits=True, **SIZE)
    model = Model(config, init_params(config, jax.random.key(0)), make_denoiser(config))
    decode = masked(model, layout, oracles.margin, PerStep(5))
    decoded = measure(TASK, layout, decode, RECORDS, batch_size=4)
    alone = measure(TASK, layout, decode, take(4, RECORDS), batch_size=4)
    np.testing.assert_array_equal(decoded.answers[:4], alone.answers)
    assert decoded.row["nfe"] == 4, "17 masks, 5 at a time"


@pytest.mark.slow
def test_answer_found_by_search_is_the_greedy_one_with_one_filling_and_costs_more_with_four():
    layout = sudoku_layouts.get("in-place", 4)
    config = TransformerConfig(vocab_size=5, max_length=16, **SIZE)
    model = Model(config, init_params(config, jax.random.key(0)), make_denoiser(config))
    found = {width: measure(TASK, layout, searching(model, layout, oracles.margin, width), RECORDS) for width in (1, 4)}
    plain = measure(TASK, layout, masked(model, layout, oracles.margin), RECORDS)
    np.testing.assert_array_equal(found[1].answers, plain.answers)
    np.testing.assert_array_equal(found[1].steps, plain.steps)
    assert found[1].row["nfe"] == plain.row["nfe"] == (PUZZLES == 0).sum(axis=1).max()
    assert plain.row["nfe"] < found[4].row["nfe"] <= 4 * plain.row["nfe"]


@pytest.mark.slow
def test_answer_that_a_corrector_had_nothing_to_take_back_of_is_the_plain_one():
    layout = sudoku_layouts.get("in-place", 4)
    config = TransformerConfig(vocab_size=5, max_length=16, **SIZE)
    model = Model(config, init_params(config, jax.random.key(0)), make_denoiser(config))
    plain = measure(TASK, layout, masked(model, layout, oracles.margin), RECORDS)
    for judge in ("leave-one-out", "filled"):
        found = {k: measure(TASK, layout, correcting(model, layout, oracles.margin, judge, k), RECORDS) for k in (1, 4)}
        np.testing.assert_array_equal(found[1].answers, plain.answers)
        assert found[1].row["nfe"] == plain.row["nfe"]
        assert (found[4].answers[PUZZLES != 0] == PUZZLES[PUZZLES != 0]).all()
        assert found[4].row["nfe"] > -(-(PUZZLES == 0).sum(axis=1).max() // 4)


@pytest.mark.slow
def test_answer_of_one_proposal_is_the_greedy_one_and_of_three_costs_three_times_as_much():
    layout = sudoku_layouts.get("in-place", 4)
    config = TransformerConfig(vocab_size=5, max_length=16, **SIZE)
    model = Model(config, init_params(config, jax.random.key(0)), make_denoiser(config))
    decode = masked(model, layout, oracles.margin)
    plain = measure(TASK, layout, decode, RECORDS)
    flags = Evaluate(proposals=(1, 3), choose="symmetric")
    (_, one, how, _), (_, three, _, _) = ways(flags, model, layout)
    assert how == {"proposals": 1, "choose": "symmetric"}
    found = measure(TASK, layout, one(decode), RECORDS)
    np.testing.assert_array_equal(found.answers, plain.answers)
    assert found.row["nfe"] == plain.row["nfe"]
    assert measure(TASK, layout, three(decode), RECORDS).row["nfe"] == 3 * plain.row["nfe"]


@pytest.mark.parametrize(
    ("flags", "layout", "said"),
    [
        ({"choose": "stable"}, "in-place", "give --proposals too"),
        ({"proposals": (2,)}, "triples", "--proposals is for masked models"),
        ({"proposals": (2,), "choose": "stable", "noise": 0.1, "check": 4}, "in-place", "leave --check out"),
        ({"proposals": (2,), "choose": "average", "check": 4}, "in-place", "makes one answer: leave --check out"),
        ({"proposals": (2,), "choose": "average", "keep": "dual"}, "in-place", "--keep reads what lies behind them"),
        (
            {"proposals": (2,), "choose": "average", "corrector": "quality"},
            "in-place",
            "reads what lies behind",
        ),
        ({"choose": "average"}, "in-place", "give --proposals too"),
        ({"proposals": (1, 2), "oracle": "random,margin"}, "in-place", "all proposals of margin would be the same"),
        ({"proposals": (2,), "choose": "stable"}, "in-place", "all proposals of margin would be the same"),
        ({"proposals": (2,), "viewer": "a.html", "remask_steps": 3, "noise": 0.1}, "in-place", "--viewer shows one"),
    ],
)
def test_proposals_that_make_no_sense_are_refused(flags, layout, said):
    with pytest.raises(InputError, match=said):
        ways(Evaluate(**flags), None, sudoku_layouts.get(layout, 4))


def small_model():
    layout = sudoku_layouts.get("in-place", 4)
    config = TransformerConfig(vocab_size=5, max_length=16, **SIZE)
    return Model(config, init_params(config, jax.random.key(0)), make_denoiser(config)), layout


def test_flags_of_a_search_reach_it():
    model, layout = small_model()
    flags = Evaluate(search_width=3, check=2, threshold=0.2)
    named = decoders_for(flags, model, TASK, layout, {"margin": oracles.margin}, flags.selector())
    ((_, decode, how),) = named
    assert (how["search_width"], how["check"], how["selector"]) == (3, 2, "Threshold(tau=0.2)")
    keys, start = jax.random.split(jax.random.key(0), 9), jnp.asarray(layout.start(RECORDS))
    options = {"mask_id": layout.mask_id, "width": 3}
    want = search_sample(model.denoiser, model.params, keys, start, selector=Threshold(0.2), check=2, **options)
    got = decode(keys, start)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    others = [
        search_sample(model.denoiser, model.params, keys, start, **options, **changes)
        for changes in ({"check": 2}, {"selector": Threshold(0.2)})
    ]
    assert int(got.nfe) == int(want.nfe)
    assert all(int(want.nfe) != int(other.nfe) for other in others), "each flag makes a difference here"


def test_check_ranks_proposals():
    model, layout = small_model()
    flags = Evaluate(proposals=(3,), noise=1.0, check=2)
    ((_, keep, how, _),) = ways(flags, model, layout)
    assert how == {"proposals": 3, "choose": "likeliest"}
    decode = masked(model, layout, oracles.with_noise(oracles.margin, 1.0))
    keys, start = jax.random.split(jax.random.key(0), 9), jnp.asarray(layout.start(RECORDS))
    options = {"mask_id": layout.mask_id, "num_calls": 2}
    want = best_sample(
        decode,
        keys,
        start,
        num=3,
        rank=lambda tokens, free: pseudo_log_likelihood(model.denoiser, model.params, tokens, free, **options),
    )
    got, plain = keep(decode)(keys, start), best_sample(decode, keys, start, num=3)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    assert int(got.nfe) == int(plain.nfe) + 3 * 2
    assert (got.tokens != plain.tokens).any()


def test_enough_and_forms_of_the_check_reach_the_sampler():
    model, layout = small_model()
    flags = Evaluate(proposals=(4,), choose="symmetric", check=2, check_forms=3, enough=-23.0, seed=1)
    ((_, keep, how, _),) = ways(flags, model, layout)
    assert how == {"proposals": 4, "choose": "symmetric", "check_forms": 3, "enough": -23.0}
    decode = masked(model, layout, oracles.margin)
    keys, start = jax.random.split(jax.random.key(0), 9), jnp.asarray(layout.start(RECORDS))
    (of_answers, of_check) = (
        dict(zip(("positions", "tokens"), layout.symmetries(num, seed), strict=True)) for num, seed in ((4, 1), (3, 2))
    )

    def rank(tokens, free):
        options = {"mask_id": layout.mask_id, "num_calls": 2}
        return pseudo_log_likelihood(model.denoiser, model.params, tokens, free, **options)

    options = {"rank": symmetric_rank(rank, **of_check), "enough": -23.0, **of_answers}
    want, got = symmetric_sample(decode, keys, start, **options), keep(decode)(keys, start)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    assert int(got.nfe) == int(want.nfe)
    without = [
        symmetric_sample(decode, keys, start, **options | {name: other})
        for name, other in (("enough", None), ("rank", rank))
    ]
    assert all((got.tokens != other.tokens).any() for other in without), "each flag makes a difference here"


def test_average_of_one_form_is_the_greedy_answer_and_of_three_another_for_three_times_the_calls():
    model, layout = small_model()
    one, three = ways(Evaluate(proposals=(1, 3), choose="average", seed=1), model, layout)
    assert (three.label, three.fields) == ("3 forms", {"proposals": 3, "choose": "average"})
    keys, start = jax.random.split(jax.random.key(0), 9), jnp.asarray(layout.start(RECORDS))
    plain = masked(model, layout, oracles.margin)(keys, start)
    found = [way.keep(masked(way.model, layout, oracles.margin))(keys, start) for way in (one, three)]
    np.testing.assert_array_equal(found[0].tokens, plain.tokens)
    assert (int(found[0].nfe), int(found[1].nfe)) == (int(plain.nfe), 3 * int(plain.nfe))
    positions, tokens = layout.symmetries(3, 1)
    average = symmetric_average(model.denoiser, mask_id=layout.mask_id, positions=positions, tokens=tokens)
    want = sample(average, model.params, keys, start, mask_id=layout.mask_id, temperature=0)
    np.testing.assert_array_equal(found[1].tokens, want.tokens)
    assert (found[1].tokens != plain.tokens).any(), "the forms make a difference here"
    (beam,) = ways(Evaluate(proposals=(3,), choose="average", search_width=2, check=2), model, layout)
    assert beam.fields["proposals"] == 3, "the check is the search's"


def test_evaluate_decodes_the_averaged_network_and_shows_what_it_said(tmp_path, monkeypatch):
    model, layout = small_model()
    monkeypatch.setattr("experiments.commands.evaluate.load_run", lambda *_: (model, TASK, layout))
    pages = []
    monkeypatch.setattr(Page, "write", lambda page: pages.append(page))
    flags = {"limit": 5, "proposals": (3,), "choose": "average", "viewer": tmp_path / "page.html", "out": tmp_path}
    evaluate(Evaluate(**flags))
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    records = held_out(TASK, 5)
    start = jnp.asarray(layout.start(records))
    (way,) = ways(Evaluate(proposals=(3,), choose="average"), model, layout)
    want = way.keep(masked(way.model, layout, oracles.margin))(jax.random.split(jax.random.key(0), 5), start)
    assert row["nfe"] == int(want.nfe)
    ((said,),) = (page.at_reveal.values() for page in pages)
    log_prob = np.nansum(np.log(said.token_prob))
    assert log_prob == pytest.approx(float(want.log_prob[0]), abs=1e-3)  # probabilities are written in float32


@pytest.mark.parametrize("enough", [0.0, -23.0])
def test_enough_reaches_the_sampler_of_likely_answers(enough):
    model, layout = small_model()
    ((_, keep, how, _),) = ways(Evaluate(proposals=(4,), noise=1.0, check=2, enough=enough), model, layout)
    assert how == {"proposals": 4, "choose": "likeliest", "enough": enough}
    calls = []

    def decode(keys, tokens):
        calls.append(len(tokens))
        return masked(model, layout, oracles.with_noise(oracles.margin, 1.0))(keys, tokens)

    keep(decode)(jax.random.split(jax.random.key(0), 9), jnp.asarray(layout.start(RECORDS)))
    assert calls[0] == 9, "one after another"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"check": 2}, "--check chooses among several answers"),
        ({"check": 2, "search_width": 1}, "--check chooses among several answers"),
        ({"check": 2, "proposals": (1,)}, "--check chooses among several answers"),
        ({"search_width": 2, "remask_steps": 3}, "--search-width takes nothing back"),
    ],
)
def test_check_and_search_that_make_no_sense_are_refused(flags, said):
    model, layout = small_model()
    flags = Evaluate(**flags)
    with pytest.raises(InputError, match=said):
        list(decoders_for(flags, model, TASK, layout, {"margin": oracles.margin}, flags.selector()))


def test_proposals_of_symmetric_forms_want_a_layout_that_has_some():
    layout = Zebra(num_train=1, num_test=1).layouts["in-place"]
    for choose in ("symmetric", "average"):
        with pytest.raises(InputError, match=f"names no symmetries: --choose {choose} is not for it"):
            ways(Evaluate(proposals=(2,), choose=choose), None, layout)
    with pytest.raises(InputError, match="--check-forms is not for it"):
        ways(Evaluate(proposals=(2,), noise=1.0, check=2, check_forms=2), small_model()[0], layout)


@pytest.mark.parametrize(
    "flags",
    [
        {"enough": 0.0},
        {"check_forms": 2},
        {"enough": -1.0, "proposals": (2,)},
        {"check_forms": 2, "check": 2},
        {"enough": 0.0, "proposals": (2,), "choose": "stable"},
        {"enough": 0.0, "proposals": (2,), "choose": "average"},
        {"check_forms": 2, "proposals": (2,), "choose": "average"},
    ],
)
def test_how_proposals_are_checked_wants_proposals_and_a_check(flags):
    model, layout = small_model()
    said = "leave --check-forms and --enough out" if "choose" in flags else "give --proposals and --check"
    with pytest.raises(InputError, match=said):
        ways(Evaluate(**flags), model, layout)


def test_ladder_holds_our_sets_and_the_lists_of_the_folder_and_says_which_it_lacks(tmp_path, capsys):
    puzzles, solutions = sudoku.generate(3, clues=30, seed=1)
    lines = ["".join(map(str, puzzle)) for puzzle in puzzles]
    (tmp_path / "puzzles6_forum_hardest_1106").write_text("\n".join(["# a list", *lines]) + "\n")
    nine = Sudoku(num_train=1, num_test=1, difficulty="normal")
    flags = Evaluate(ladder=tmp_path, limit=2)
    sets = flags.datasets(nine)
    assert list(sets) == ["normal", "hard", "forum_hardest_1106"]
    assert {len(records["puzzle"]) for records in sets.values()} == {2}
    np.testing.assert_array_equal(sets["forum_hardest_1106"]["solution"], solutions[:2])
    model = small_model()[0]
    assert flags.about(model, nine) == {"trained_on": "normal", "init_from": None}
    of_a_file = Model(*model[:3], {"dataset": "9x9-file-0123456789ab", "init_from": "sudoku-6m"})
    assert flags.about(of_a_file, nine) == {"trained_on": "9x9-file-0123456789ab", "init_from": "sudoku-6m"}
    said = capsys.readouterr().err
    assert all(f"holds no list {name}" in said for name in ("17_clue", "magictour_top1465", "forum_hardest_se11_1k"))
    for other, words in (
        ({"difficulty": "hard"}, "leave one of them out"),
        ({"ladder": tmp_path / "none"}, "there is no such folder"),
    ):
        with pytest.raises(InputError, match=words):
            dataclasses.replace(flags, **other).datasets(nine)
    with pytest.raises(InputError, match="solves 4x4, not 9x9"):
        flags.datasets(TASK)
    (tmp_path / "puzzles6_forum_hardest_1106").unlink()
    with pytest.raises(InputError, match="holds none of the lists"):
        flags.datasets(nine)


def greedy(config, params, prompt):
    """Token by token, the whole sequence anew for each: what stands behind is hidden from a causal network."""
    apply = jax.jit(make_denoiser(config))
    tokens = np.zeros((1, config.max_length), np.int32)
    tokens[0, : len(prompt)] = prompt
    for place in range(len(prompt), config.max_length):
        tokens[0, place] = np.asarray(apply(params, jnp.asarray(tokens)))[0, place - 1].argmax()
    return tokens[0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["triples", "ordered-triples"])
def test_answer_of_an_autoregressive_model_goes_on_behind_the_givens_of_each_puzzle(name):
    layout = sudoku_layouts.get(name, 4)
    config = TransformerConfig(vocab_size=6, max_length=48, causal=True, **SIZE)
    params = init_params(config, jax.random.key(1))
    model = Model(config, params, make_denoiser(config))
    decoded = measure(TASK, layout, autoregressive(model), RECORDS, batch_size=4)
    row = decoded.row
    assert len(set((PUZZLES != 0).sum(axis=1))) > 1
    for puzzle, tokens, steps in zip(PUZZLES.tolist(), decoded.answers, decoded.steps, strict=True):
        prompt = [number for cell in range(16) if puzzle[cell] for number in (cell // 4, cell % 4, puzzle[cell])]
        grid, grid_steps = [0] * 16, [-1] * 16
        sequence = greedy(config, params, prompt)
        for place in range(0, 48, 3):
            line, column, digit = sequence[place : place + 3]
            if line < 4 and column < 4 and 1 <= digit <= 4:
                grid[4 * line + column] = digit
                grid_steps[4 * line + column] = max(place + 2 - len(prompt), -1)
        assert tokens.tolist() == grid
        assert steps.tolist() == grid_steps
    assert (decoded.steps > 0).sum() > 9, "the model has something to say"
    assert row["method"] == layout.method
    is_right = (decoded.answers == SOLUTIONS)[PUZZLES == 0]
    assert row["cells"] == pytest.approx(is_right.mean())
