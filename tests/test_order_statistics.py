"""Statistics of orders against plain loops over pairs and steps."""

import itertools

import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.evaluation.order_statistics import (
    dependent_pairs,
    describe,
    kendall_tau,
    left_to_rightness,
    mean_at_reveal,
    mean_of,
    relative_dependence,
    relative_jump,
)

RNG = np.random.default_rng(0)
ORDERS = RNG.integers(-1, 5, size=(40, 7))
"""With ties and given positions."""
OTHERS = RNG.integers(-1, 7, size=(40, 7))


def plain_left_to_rightness(steps):
    masked = {i for i, step in enumerate(steps) if step >= 0}
    hits = total = 0
    for step in sorted({step for step in steps if step >= 0}):
        now = {i for i in masked if steps[i] == step}
        hits += len(now & set(sorted(masked)[: len(now)]))
        total += len(now)
        masked -= now
    return hits / total if total else np.nan


def plain_tau(steps, other):
    same = opposite = 0
    for i, j in itertools.combinations(range(len(steps)), 2):
        if min(steps[i], steps[j], other[i], other[j]) >= 0:
            product = (int(steps[i]) - steps[j]) * (int(other[i]) - other[j])
            same, opposite = same + (product > 0), opposite + (product < 0)
    return (same - opposite) / (same + opposite) if same + opposite else np.nan


def plain_jump(steps, places):
    def distance(i, j):
        return sum(abs(a - b) for a, b in zip(places[i], places[j], strict=True))

    groups = [[i for i, s in enumerate(steps) if s == step] for step in sorted({s for s in steps if s >= 0})]
    everyone = [i for group in groups for i in group]
    pairs = [distance(i, j) for i, j in itertools.combinations(everyone, 2)]
    if len(groups) < 2 or not sum(pairs):
        return np.nan
    jumps = [np.mean([distance(i, j) for i in a for j in b]) for a, b in itertools.pairwise(groups)]
    return np.mean(jumps) / np.mean(pairs)


def plain_dependence(steps, related):
    pairs = [(i, j) for i, j in itertools.combinations(range(len(steps)), 2) if min(steps[i], steps[j]) >= 0]
    together = [related[i, j] for i, j in pairs if steps[i] == steps[j]]
    everyone = [related[i, j] for i, j in pairs]
    return np.mean(together) / np.mean(everyone) if together and any(everyone) else np.nan


def test_statistics_of_orders_with_ties_and_givens_are_those_of_plain_loops():
    places = RNG.integers(0, 4, size=(7, 2))
    np.testing.assert_allclose(left_to_rightness(ORDERS), [plain_left_to_rightness(o) for o in ORDERS])
    taus = [plain_tau(a, b) for a, b in zip(ORDERS, OTHERS, strict=True)]
    np.testing.assert_allclose(kendall_tau(ORDERS, OTHERS), taus)
    np.testing.assert_allclose(kendall_tau(ORDERS, OTHERS[0]), [plain_tau(o, OTHERS[0]) for o in ORDERS])
    np.testing.assert_allclose(relative_jump(ORDERS, places), [plain_jump(o, places) for o in ORDERS])
    line = np.arange(7)[:, None]
    np.testing.assert_allclose(relative_jump(ORDERS), [plain_jump(o, line) for o in ORDERS])
    np.testing.assert_allclose(relative_jump(ORDERS[None])[0], relative_jump(ORDERS))
    related = RNG.random((7, 7)) < 0.3
    related |= related.T
    np.testing.assert_allclose(relative_dependence(ORDERS, related), [plain_dependence(o, related) for o in ORDERS])


def test_statistics_of_known_orders_are_known_numbers():
    forward, backward, tied = np.arange(6), np.arange(6)[::-1], np.array([0, 0, 1, 1, 2, 2])
    assert left_to_rightness(forward) == left_to_rightness(tied) == kendall_tau(tied, forward) == 1
    assert left_to_rightness(backward) == pytest.approx(1 / 6)
    assert kendall_tau(forward, backward) == -1
    assert relative_jump(forward) == relative_jump(backward) == pytest.approx(3 / 7)  # 1, where pairs have 7/3
    every = np.array(list(itertools.permutations(range(5))))
    assert kendall_tau(every, np.arange(5)).mean() == pytest.approx(0, abs=1e-12)
    assert relative_jump(every).mean() == pytest.approx(1)
    related = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])  # two of the six pairs
    found = relative_dependence([[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 2]], related)
    np.testing.assert_allclose(found, [3, 0, 1, 3])
    count = dependent_pairs([[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, 2, 2]], related)
    np.testing.assert_array_equal(count, [2, 0, 2, 0, 1])


def test_statistic_without_anything_to_compare_is_nan_and_left_out_of_a_row():
    given, at_once, forward = np.full(4, -1), np.zeros(4, int), np.arange(4)
    assert np.isnan([left_to_rightness(given), kendall_tau(at_once, at_once), relative_jump(at_once)]).all()
    assert describe(at_once) == {"left_to_rightness": 1.0}
    assert "relative_dependence" not in describe(forward, related=np.ones((4, 4)))
    one = describe(forward, others={"rules": [3, 2, 1, 0]})
    assert one == pytest.approx({"left_to_rightness": 1, "tau_reading": 1, "tau_rules": -1, "relative_jump": 0.6})
    means = mean_of([one, describe(forward[::-1].copy(), others={"rules": given}), describe(given)])
    assert means == pytest.approx({"left_to_rightness": 0.625, "tau_reading": 0, "tau_rules": -1, "relative_jump": 0.6})


def test_mean_at_reveal_counts_revealed_positions_only():
    means = mean_at_reveal([[9.0, 1.0, 2.0], [np.nan, 5.0, 6.0]], [[-1, 0, 1], [-1, -1, 0]])
    np.testing.assert_allclose(means, [1.5, 6.0])


def test_order_of_a_wrong_shape_or_dtype_is_refused_in_one_line():
    for call in (
        lambda: left_to_rightness(np.zeros(3)),
        lambda: kendall_tau(np.zeros((2, 3), int), np.zeros(2, int)),
        lambda: relative_jump(np.zeros(3, int), np.zeros((2, 2))),
        lambda: relative_jump(np.zeros(3, int), 3),
        lambda: mean_at_reveal(np.zeros(4), np.zeros(3, int)),
        lambda: relative_dependence(np.zeros(3, int), np.zeros((2, 2))),
        lambda: dependent_pairs(np.zeros(3, int), np.zeros((2, 2))),
        lambda: relative_dependence(np.zeros(3, int), np.triu(np.ones((3, 3)))),
    ):
        with pytest.raises(InputError):
            call()
