import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import mdm_jax
from mdm_jax.errors import RunError
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.evaluation.puzzles import fill_in, score


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 17), (895, 1000)])
def test_wilson_equals_scipys_interval(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_trials_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def context_denoiser(params, tokens):
    """Logits that depend on the whole row."""
    return params[tokens] + jnp.roll(params[tokens], 1, axis=1) + params[tokens].mean(axis=1, keepdims=True)


@pytest.mark.parametrize("mask_id", [0, 5])
def test_fill_in_gives_the_same_answers_whatever_the_batch_size(mask_id):
    params = jax.random.normal(jax.random.key(1), (6, 6))
    puzzles = np.array(jax.random.randint(jax.random.key(2), (7, 8), 0, 6))
    options = {"mask_id": mask_id, "oracle": mdm_jax.oracles.random, "selector": mdm_jax.PerStep(1), "temperature": 1.0}
    decode = functools.partial(mdm_jax.sample, context_denoiser, params, **options)
    whole = fill_in(decode, puzzles, padding=np.full(8, 1), batch_size=100)
    parts = fill_in(decode, puzzles, padding=np.full(8, 1), batch_size=3)
    np.testing.assert_array_equal(whole.tokens, parts.tokens)
    assert (whole.tokens != mask_id).all()
    is_given = puzzles != mask_id
    np.testing.assert_array_equal(whole.tokens[is_given], puzzles[is_given])
    np.testing.assert_array_equal(whole.reveal_step == -1, is_given)
    blanks = (~is_given).sum(axis=1)
    assert whole.nfe == blanks.max()
    assert parts.nfe == pytest.approx(np.mean([blanks[:3].max(), blanks[3:6].max(), blanks[6]]))
    sorted_by_work = fill_in(decode, puzzles, padding=np.full(8, 1), work=blanks, batch_size=3)
    np.testing.assert_array_equal(sorted_by_work.tokens, parts.tokens)
    np.testing.assert_array_equal(sorted_by_work.reveal_step == -1, is_given)
    assert sorted_by_work.nfe == pytest.approx(np.mean(np.sort(blanks)[[2, 5, 6]]))


@pytest.mark.parametrize("row", [0, 4, 6])
def test_fill_in_of_a_row_whose_predictions_are_not_finite_raises(row):
    puzzles = np.arange(7, dtype=np.int32)[:, None].repeat(8, axis=1)

    def decode(keys, x_init):
        log_prob = jnp.where(x_init[:, 0] == row, jnp.nan, -1.5)
        return mdm_jax.SampleResult(x_init, jnp.zeros_like(x_init), log_prob, jnp.int32(8))

    options = {"padding": np.full(8, 9), "batch_size": 3, "work": np.arange(7)[::-1]}
    with pytest.raises(RunError, match="the network's predictions are not finite; the parameters may be damaged"):
        fill_in(decode, puzzles, **options)
    kept = np.delete(puzzles, row, axis=0)
    np.testing.assert_array_equal(fill_in(decode, kept, **options | {"work": None}).tokens, kept)


def test_score_counts_blank_cells_and_whole_puzzles():
    puzzles = np.array([[0, 1], [2, 0], [0, 0]])
    solutions = np.array([[2, 1], [2, 1], [1, 2]])
    filled = mdm_jax.evaluation.puzzles.Filled(np.array([[2, 1], [2, 2], [1, 1]]), puzzles, 1.5, 2.0)
    row = score(filled, solutions, is_asked=puzzles == 0, is_solved=(filled.tokens == solutions).all(axis=1))
    assert row["solved"] == pytest.approx(1 / 3)
    assert row["cells"] == pytest.approx(2 / 4)
    assert row["n"] == 3
    assert row["nfe"] == 1.5
    assert row["per_second"] == 1.5
    assert row["solved_ci"] == pytest.approx(list(wilson(1, 3)))
