"""The information curve and its schedules against enumeration of all sequences, orders and schedules."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.theory import predicates
from mdm_jax.theory.information_curve import Counts, best_counts, divergence, entropies, nll
from mdm_jax.theory.latents_observations import BayesDenoiser, LatentsObservations, states

LAW = LatentsObservations(
    3, (0.5, 0.5), predicates.SparseObservations(predicates.nae(3, 2), np.array([[0, 1, 2], [2, 1, 0]], np.int32))
)
"""Three bits, and twice the same observation of them: L = 5."""
DENOISER, PARAMS = BayesDenoiser(2, mask_id=2), states(LAW)
SEQUENCES = np.array([(a, b, c, *[int(len({a, b, c}) > 1)] * 2) for a, b, c in itertools.product((0, 1), repeat=3)])
"""All that are possible; they are equally likely."""


def entropy(positions):
    """H of these positions together, by counting."""
    _, counts = np.unique(SEQUENCES[:, sorted(positions)], axis=0, return_counts=True)
    return -sum(n / 8 * math.log(n / 8) for n in counts)


CURVE = np.array(
    [
        np.mean(
            [
                entropy({*shown, i}) - entropy(shown)
                for shown in itertools.combinations(range(5), j)
                for i in set(range(5)) - set(shown)
            ]
        )
        for j in range(5)
    ]
)


def test_curve_and_divergence_are_those_of_enumeration():
    drawn = np.tile(SEQUENCES, (1000, 1))
    found = entropies(DENOISER, PARAMS, drawn, mask_id=2, seed=0)
    error = found.std(axis=0) / len(drawn) ** 0.5
    assert (np.abs(found.mean(axis=0) - CURVE) <= 5 * error + 1e-6).all()
    np.testing.assert_allclose(found[:, 0], CURVE[0], rtol=1e-6)  # nothing is shown yet
    assert CURVE.sum() == pytest.approx(entropy(range(5)))  # the chain rule
    one_by_one = nll(DENOISER, PARAMS, drawn, [1] * 5, mask_id=2, seed=3)
    np.testing.assert_allclose(one_by_one, math.log(8), atol=1e-5)
    for counts in ([2, 3], [1, 1, 3], [5]):
        exact = np.mean(
            [
                sum(entropy({*order[:n], i}) - entropy(order[:n]) for i in order[n : n + a])
                - (entropy(order[: n + a]) - entropy(order[:n]))
                for order in itertools.permutations(range(5))
                for n, a in zip(np.cumsum([0, *counts]).tolist(), counts, strict=False)
            ]
        ) * len(counts)
        assert divergence(CURVE, counts) == pytest.approx(exact)
        measured = nll(DENOISER, PARAMS, drawn, counts, mask_id=2, seed=3) - one_by_one
        assert abs(measured.mean() - exact) < 5 * measured.std() / len(drawn) ** 0.5 + 1e-6


def test_best_counts_are_the_best_of_all():
    rng = np.random.default_rng(0)
    for curve in (CURVE, np.sort(rng.random(7))[::-1], np.array([1.0, 0.5, 0.5, 0.5])):
        for num_steps in range(1, len(curve) + 1):
            every = [
                np.diff([0, *cuts, len(curve)]) for cuts in itertools.combinations(range(1, len(curve)), num_steps - 1)
            ]
            counts = best_counts(curve, num_steps)
            assert (counts.sum(), len(counts), counts.min() >= 1) == (len(curve), num_steps, True)
            least = min(divergence(curve, one) for one in every)
            assert divergence(curve, counts) == pytest.approx(least, abs=1e-12)


@pytest.mark.slow
def test_sampler_reveals_the_counts():
    x_init = jnp.full((4, 5), 2).at[0, 0].set(1)  # one row has less to reveal
    selector = Counts(jnp.array([1, 3, 1]))
    result = mdm_jax.sample(DENOISER, PARAMS, jax.random.key(0), x_init, mask_id=2, selector=selector)
    counts = [np.bincount(row[row >= 0], minlength=3).tolist() for row in np.asarray(result.reveal_step)]
    assert counts == [[1, 3, 0], [1, 3, 1], [1, 3, 1], [1, 3, 1]]


def test_schedule_that_does_not_fit_is_refused_in_one_line():
    for counts in ([], [2, 2], [6, -1], [5, 0]):
        with pytest.raises(InputError, match="sum to the 5 positions"):
            divergence(CURVE, counts)
    for counts in ([1, 2], jnp.array([1.9, 1.9, 56.2]), np.array([[1, 2]]), jnp.array([], int), jnp.array([True])):
        with pytest.raises(InputError, match=r"counts are an array int \[T\]"):
            Counts(counts)
    for counts in (jnp.array([3, -1, 3]), np.array([0, 5])):
        with pytest.raises(InputError, match="counts are positive"):
            Counts(counts)
    jax.eval_shape(lambda counts: Counts(counts).counts, jnp.array([0, 5]))  # what is not known passes
    for num_steps in (0, 6):
        with pytest.raises(InputError, match="in 1 to 5 steps"):
            best_counts(CURVE, num_steps)
