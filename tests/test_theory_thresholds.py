"""Thresholds against their known values."""

import math

import jax
import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.theory import belief_propagation as bp
from mdm_jax.theory import predicates, thresholds
from mdm_jax.theory.predicates import Predicate

OR = Predicate("or(2)", 2, 2, (0.0, 1.0, 1.0, 1.0))
BALANCED = Predicate("uneven", 3, 2, (0.0, 1.0, 0.5, 0.5, 1.0, 0.0, 0.5, 0.5))
"""Fulfils B.11, and the order of its arguments matters."""


@pytest.mark.parametrize(
    ("predicate", "degree"),
    [
        (predicates.coloring(5), 16),
        (predicates.coloring(3), 4),
        (predicates.nae(3, 3), 32),
        (predicates.nae(3, 2), 4.5),
        (predicates.nae(4, 3), 26**2 / 3),
        (predicates.xor(2), 1),
        (predicates.noisy_parity(2, 0.1), 1 / 0.8**2),
        (predicates.xor(3), math.inf),
        (predicates.noisy_parity(4, 0.2), math.inf),
    ],
)
def test_kesten_stigum_threshold_has_its_known_value(predicate, degree):
    assert thresholds.kesten_stigum(predicate) == pytest.approx(degree)


def test_kesten_stigum_threshold_of_an_asymmetric_predicate_counts_every_pair_of_places():
    assert BALANCED.is_balanced
    assert not BALANCED.is_symmetric
    # Of the six ordered pairs only (0, 2) and (2, 0) tell of one another, with λ = -1/2: 1/d = (2 / 3) λ².
    assert thresholds.kesten_stigum(BALANCED) == pytest.approx(6)


def regular_clauses(rng, num_variables, degree, k):
    """Clauses in which every variable occurs `degree` times, by exchanging places until none has one twice."""
    places = rng.permutation(np.repeat(np.arange(num_variables), degree)).reshape(-1, k)
    while (bad := np.flatnonzero((np.diff(np.sort(places, axis=1), axis=1) == 0).any(axis=1))).size:
        for a, b, i in zip(bad, rng.integers(len(places), size=len(bad)), rng.integers(k, size=len(bad)), strict=True):
            places[a, i], places[b, i] = places[b, i], places[a, i]
    return places


@pytest.mark.parametrize(("predicate", "degree"), [(predicates.nae(3, 2), 6), (predicates.coloring(4), 8)])
def test_jacobian_of_belief_propagation_has_the_radius_behind_the_threshold(predicate, degree):
    num, k = 6000, predicate.k
    graph = bp.factor_graph(regular_clauses(np.random.default_rng(0), num, degree, k), num)
    radius = thresholds.jacobian_radius(jax.random.key(0), predicate, graph)
    eigenvalue = 1 / (predicate.num_values ** (k - 1) - 1)
    assert radius == pytest.approx(eigenvalue * math.sqrt((k - 1) * (degree - 1)), rel=0.03)


def test_jacobian_on_a_graph_that_is_not_random_has_the_radius_of_that_graph_not_of_the_limit():
    num = 20
    graph = bp.factor_graph(np.array([[i, (i + step) % num] for step in (1, 2) for i in range(num)]), num)
    angle = 2 * math.pi / num
    largest = 2 * math.cos(angle) + 2 * math.cos(2 * angle)  # adjacency eigenvalue below the trivial one, 4
    exact = (largest + math.sqrt(largest**2 - 4 * 3)) / 2  # of walks that do not turn back, by Ihara and Bass
    radius = thresholds.jacobian_radius(jax.random.key(0), predicates.coloring(3), graph, steps=60)
    assert radius == pytest.approx(exact / 2, rel=0.01)
    assert radius > 1.15 * math.sqrt(3) / 2, "the limit of large random graphs"


def test_jacobian_of_parities_of_three_is_zero():
    graph = bp.factor_graph(np.array([[0, 1, 2], [2, 3, 4]]), 5)
    assert thresholds.jacobian_radius(jax.random.key(0), predicates.xor(3), graph) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("predicate", "below", "above"),
    [
        (predicates.coloring(5), 12.9, 13.6),  # 13.23 in the literature
        (predicates.nae(3, 3), 25.7, 26.9),
    ],
)
def test_free_entropy_gain_changes_its_sign_at_condensation(predicate, below, above):
    # Below, the planted assignment is one of many as good.
    gains = [
        float(thresholds.free_entropy_gain(jax.random.key(0), predicate, degree, depth=53)) for degree in (below, above)
    ]
    assert gains[0] < -0.003
    assert gains[1] > 0.003


@pytest.mark.slow
def test_free_entropy_gain_is_zero_where_nothing_can_be_known():
    gain = thresholds.free_entropy_gain(jax.random.key(0), predicates.coloring(5), 6.0, depth=36)
    assert abs(float(gain)) < 1e-4


@pytest.mark.slow
def test_condensation_of_a_continuous_transition_is_the_kesten_stigum_threshold():
    assert thresholds.condensation(predicates.nae(3, 2), jax.random.key(0)) == pytest.approx(4.5)
    assert thresholds.intractable_mask_rates(predicates.nae(3, 2), 20) == pytest.approx((0.995, 0.995))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("predicate", "low", "high"),
    [
        (predicates.coloring(5), 13.15, 13.35),
        (predicates.nae(3, 3), 26.0, 26.7),
        (predicates.xor(3), 2.72, 2.79),  # 3 * 0.9179, where random XORSAT ceases to have solutions
    ],
)
def test_condensation_threshold_has_its_known_value(predicate, low, high):
    assert low < thresholds.condensation(predicate, jax.random.key(0)) < high


def test_intractable_rates_lie_where_the_revealed_clauses_are_between_the_thresholds(monkeypatch):
    monkeypatch.setattr(thresholds, "condensation", lambda predicate, key: 26.2)
    predicate, n = predicates.nae(3, 3), 100
    low, high = thresholds.intractable_mask_rates(predicate, n)
    for rate, degree in ((low, 32), (high, 26.2)):
        clauses = (1 - rate) * predicate.satisfied * n**3  # as the paper counts tuples
        assert 3 * clauses / n == pytest.approx(degree)
    assert low < high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: thresholds.kesten_stigum(OR), r"needs assumption B\.11"),
        (lambda: thresholds.condensation(OR, jax.random.key(0)), r"needs assumption B\.11"),
        (
            lambda: thresholds.condensation(BALANCED, jax.random.key(0)),
            "needs a symmetric predicate, and uneven is not",
        ),
        (
            lambda: thresholds.condensation(predicates.noisy_parity(3, 0.5), jax.random.key(0)),
            "does not depend on its arguments",
        ),
        (lambda: thresholds.intractable_mask_rates(predicates.nae(3, 2), 2), "k=3 distinct latents"),
    ],
)
def test_bad_parameters_are_one_line_that_names_them(call, message):
    with pytest.raises(InputError, match=message):
        call()
