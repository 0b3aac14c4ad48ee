import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import mdm_jax
from mdm_jax.errors import RunError
from mdm_jax.evaluation.intervals import grouped_interval, mean_interval, paired_interval, wilson
from mdm_jax.evaluation.puzzles import fill_in, summary


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 17), (895, 1000)])
def test_wilson_equals_scipys_interval(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_trials_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def context_denoiser(params, tokens):
    """Logits that depend on the whole row."""
    return params[tokens] + jnp.roll(params[tokens], 1, axis=1) + params[tokens].mean(axis=1, keepdims=True)


@pytest.mark.slow
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


@pytest.mark.parametrize("first", [0.001, 0.02, 0.3])
def test_paired_interval_covers_the_difference_in_nineteen_of_twenty_cases_also_where_scores_seldom_differ(first):
    n, second = 30, 0.02  # the shares of records that one score has alone, and the other
    kinds = stats.multinomial(n, [first, second, 1 - first - second])
    covered = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if a + b > n:
            continue
        low, high = paired_interval(np.repeat([1.0, -1.0, 0.0], [a, b, n - a - b]))
        covered += float(kinds.pmf([a, b, n - a - b])) * (low <= first - second <= high)
    assert covered > 0.94
    low, high = paired_interval(np.zeros(n))
    assert -0.1 < low < -0.05 < 0.05 < high < 0.1, "three in thirty, by the rule of three"
    assert paired_interval([1.0, 1.0])[1] == 1


def test_grouped_interval_covers_the_mean_where_the_scores_of_a_group_are_alike():
    rng, inside, narrow = np.random.default_rng(0), [], []
    groups = np.repeat(np.arange(80), rng.integers(1, 8, 80))
    for _ in range(400):
        values = (rng.random(80) < 0.3)[groups].astype(float)  # one answer for all pieces of a function
        low, high = grouped_interval(values, groups.tolist())
        inside.append(low < 0.3 < high)
        low, high = wilson(int(values.sum()), len(values))
        narrow.append(low < 0.3 < high)
    assert 0.91 < np.mean(inside) < 0.98
    assert np.mean(narrow) < 0.8
    assert grouped_interval(values, list(range(len(values)))) == wilson(int(values.sum()), len(values))
    assert grouped_interval(values / 2, list(range(len(values)))) == mean_interval(values / 2)


def test_summary_has_intervals_where_values_are_independent_and_none_for_the_parts_of_answers():
    is_solved = np.array([True, False, False, True, True])
    cells = np.array([[1, 0, np.nan]] * 2 + [[1, 1, 1]] * 3)
    shares = np.array([0.5, 1, 1, 0.75, 1])
    row = summary({"solved": is_solved, "cells": cells, "accuracy": shares})
    assert list(row) == ["n", "solved", "solved_ci", "cells", "accuracy", "accuracy_ci"]
    assert (row["n"], row["solved"], row["cells"], row["accuracy"]) == (5, 0.6, 11 / 13, 0.85)
    assert row["solved_ci"] == list(wilson(3, 5))
    low, high = mean_interval(shares)
    assert row["accuracy_ci"] == [low, 1.0]
    assert high > 1
    assert summary({"cells": np.full((2, 3), np.nan)})["cells"] == 1.0, "nothing was asked"
