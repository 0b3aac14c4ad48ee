"""Predicates, tuples, observations and planted problems against plain Python."""

import itertools
import math
import re

import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.theory import predicates
from mdm_jax.theory.planted import planted_csp
from mdm_jax.theory.predicates import Predicate, SlabObservations, SparseObservations

OR = Predicate("or(2)", 2, 2, (0.0, 1.0, 1.0, 1.0))
FIRST = Predicate("first(2)", 2, 2, (0.0, 0.0, 1.0, 1.0))
NAMED = {
    "nae(3, 2)": (predicates.nae(3, 2), lambda values: len(set(values)) > 1),
    "nae(4, 3)": (predicates.nae(4, 3), lambda values: len(set(values)) > 1),
    "xor(3)": (predicates.xor(3), lambda values: sum(values) % 2),
    "coloring(5)": (predicates.coloring(5), lambda values: values[0] != values[1]),
    "noisy_parity(3, 0.1)": (predicates.noisy_parity(3, 0.1), lambda values: 0.9 if sum(values) % 2 else 0.1),
}


@pytest.mark.parametrize("name", NAMED)
def test_predicate_table_is_what_its_name_says(name):
    predicate, rule = NAMED[name]
    assert predicate.name == name
    for values in itertools.product(range(predicate.num_values), repeat=predicate.k):
        assert predicate.table[values] == pytest.approx(float(rule(values))), values
    assert predicate == NAMED[name][0]
    assert hash(predicate) == hash(NAMED[name][0])


@pytest.mark.parametrize("name", NAMED)
def test_named_predicates_are_symmetric_and_fulfil_b11(name):
    assert NAMED[name][0].is_symmetric
    assert NAMED[name][0].is_balanced


def test_predicates_without_b11_or_symmetry_are_told_apart():
    assert OR.is_symmetric
    assert not OR.is_balanced
    assert not FIRST.is_symmetric
    with pytest.raises(InputError, match=r"needs assumption B\.11"):
        OR.check_balanced("this")


def test_satisfied_share_is_three_quarters_for_not_all_equal_of_three_bits():
    assert predicates.nae(3, 2).satisfied == 0.75
    assert predicates.nae(3, 3).satisfied == pytest.approx(8 / 9)


@pytest.mark.parametrize(("k", "m"), [(2, 3), (3, 2), (3, 3), (4, 2)])
def test_transfer_matrix_of_not_all_equal_has_the_known_second_eigenvalue(k, m):
    matrix = predicates.nae(k, m).transfer(0, k - 1)
    eigenvalues = np.sort(np.linalg.eigvals(matrix).real)
    assert eigenvalues[-1] == pytest.approx(1)
    np.testing.assert_allclose(eigenvalues[:-1], -1 / (m ** (k - 1) - 1), rtol=1e-12)


def test_transfer_matrix_is_the_conditional_of_one_argument_given_another():
    rng = np.random.default_rng(0)
    predicate = Predicate("any", 3, 3, tuple(rng.random(27)))
    for i, j in itertools.permutations(range(3), 2):
        joint = np.zeros((3, 3))
        for values in itertools.product(range(3), repeat=3):
            joint[values[i], values[j]] += predicate.table[values]
        np.testing.assert_allclose(predicate.transfer(i, j), joint / joint.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: predicates.nae(1, 3), "k at least 2, got 1"),
        (lambda: predicates.nae(3, 1), "m at least 2, got 1"),
        (lambda: predicates.coloring(1), "m at least 2, got 1"),
        (lambda: predicates.xor(1), "k at least 2, got 1"),
        (lambda: predicates.noisy_parity(3, 0.6), "noise=0.6"),
        (lambda: Predicate("short", 2, 2, (1.0,)), "m^k = 4 probabilities, got 1"),
        (lambda: Predicate("never", 2, 2, (0.0,) * 4), "not all be 0"),
        (lambda: predicates.num_tuples(3, 4), "k=4 distinct latents cannot be drawn from N=3"),
        (lambda: predicates.random_tuples(np.random.default_rng(0), 7, 3, 2), "give at most 6"),
        (lambda: predicates.random_slabs(np.random.default_rng(0), 0, 3, 1.0), "above 0"),
        (lambda: SparseObservations(predicates.nae(3, 2), np.zeros((4, 2), np.int32)), "[P, 3]"),
        (lambda: SparseObservations(predicates.coloring(2), np.zeros((4, 2), np.int32)), "names one latent twice"),
        (lambda: planted_csp(np.random.default_rng(0), OR, 5, 1.0, tuples=np.zeros((0, 2), np.int32)), "0 tuples of 5"),
        (lambda: planted_csp(np.random.default_rng(0), OR, 5, -1.0), "degree=-1.0"),
    ],
)
def test_bad_parameters_are_one_line_that_names_them(make, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_all_tuples_are_every_ordered_choice_of_distinct_latents():
    found = predicates.all_tuples(5, 3)
    assert sorted(map(tuple, found.tolist())) == sorted(itertools.permutations(range(5), 3))


@pytest.mark.parametrize("num", [5, 25, 60])
def test_random_tuples_are_different_and_of_distinct_latents(num):
    found = predicates.random_tuples(np.random.default_rng(1), num, 5, 3)
    assert found.shape == (num, 3)
    assert len(set(map(tuple, found.tolist()))) == num
    assert all(len(set(row)) == 3 for row in found.tolist())
    assert found.min() >= 0
    assert found.max() < 5


@pytest.mark.parametrize(("n", "k"), [(16, 16), (20, 9), (100_000, 5)])
def test_random_tuples_are_drawn_at_once_where_few_or_very_many_are_distinct(n, k):
    found = predicates.random_tuples(np.random.default_rng(2), 50, n, k)
    assert len(set(map(tuple, found.tolist()))) == 50
    assert all(len(set(row)) == k for row in found.tolist())


def test_planted_problem_of_more_tuples_than_numpy_counts_has_its_degree():
    found = planted_csp(np.random.default_rng(0), predicates.nae(5, 2), 20_000, 3.0)
    assert abs(len(found.clauses) - 12_000) < 5 * math.sqrt(12_000)


def test_random_tuples_are_uniform():
    # 20 tuples of which 4 are drawn: each comes with probability 1/5, 3,000 times; 5 standard deviations.
    counts = dict.fromkeys(itertools.permutations(range(5), 2), 0)
    for seed in range(3000):
        for row in predicates.random_tuples(np.random.default_rng(seed), 4, 5, 2).tolist():
            counts[tuple(row)] += 1
    assert all(abs(count - 600) < 5 * math.sqrt(3000 * 0.2 * 0.8) for count in counts.values())


def test_sparse_observations_look_up_their_own_latents():
    rng = np.random.default_rng(2)
    predicate = Predicate("any", 3, 3, tuple(rng.random(27)))
    tuples = predicates.random_tuples(rng, 7, 5, 3)
    latents = rng.integers(3, size=(2, 4, 5))
    found = SparseObservations(predicate, tuples).probabilities(latents)
    assert found.shape == (2, 4, 7)
    for index in np.ndindex(2, 4, 7):
        values = latents[index[:2]][tuples[index[2]]]
        assert found[index] == pytest.approx(predicate.table[tuple(values)])


def test_slabs_are_one_where_the_bits_lie_between_their_planes():
    slabs = SlabObservations(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, -1.0]]), beta=1.0)
    bits = np.array([[1, 1, 0], [1, 1, 1]])  # ±1: (1, 1, -1) and (1, 1, 1); heights 0, 3 and 6, 1; width √3
    np.testing.assert_array_equal(slabs.probabilities(bits), [[1, 0], [0, 1]])
    drawn = predicates.random_slabs(np.random.default_rng(0), 5, 3, 0.7)
    assert drawn.num_observations == 5
    assert drawn.directions.shape == (5, 3)


def test_planted_clauses_are_fulfilled_and_as_many_as_the_degree_says():
    predicate = predicates.nae(3, 3)
    found = planted_csp(np.random.default_rng(3), predicate, 3000, 20.0)
    values = found.assignment[found.clauses]
    assert (values != values[:, :1]).any(axis=1).all()
    wanted = 20 * 3000 / 3
    assert abs(len(found.clauses) - wanted) < 5 * math.sqrt(wanted) + 0.02 * wanted  # σ is not quite balanced
    assert len(set(map(tuple, found.clauses.tolist()))) == len(found.clauses)


def test_planted_noisy_clauses_are_fulfilled_as_often_as_the_noise_says():
    found = planted_csp(np.random.default_rng(4), predicates.noisy_parity(3, 0.2), 3000, 30.0)
    share = (found.assignment[found.clauses].sum(axis=1) % 2).mean()
    assert abs(share - 0.8) < 5 * math.sqrt(0.16 / len(found.clauses))


def test_planted_clauses_of_a_fixed_set_are_among_it():
    rng = np.random.default_rng(5)
    tuples = predicates.random_tuples(rng, 200, 30, 3)
    found = planted_csp(rng, predicates.nae(3, 2), 30, 9.0, tuples=tuples)
    assert set(map(tuple, found.clauses.tolist())) <= set(map(tuple, tuples.tolist()))
    nums = [len(planted_csp(rng, predicates.nae(3, 2), 30, 9.0, tuples=tuples).clauses) for _ in range(300)]
    assert abs(np.mean(nums) - 90) < 5 * math.sqrt(100 / 300)
    with pytest.raises(InputError, match="degree=16: 200 tuples of 30 variables give from 0 to 15"):
        planted_csp(rng, predicates.nae(3, 2), 30, 16, tuples=tuples)
