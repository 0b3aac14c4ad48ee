"""Selectors: how many they plan, which they choose, against plain Python."""

import dataclasses
import fractions
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

import mdm_jax
from mdm_jax import selection

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

KEY = jax.random.key(0)


def confidence_with(entropy):
    zeros = jnp.zeros_like(entropy)
    return mdm_jax.Confidence(zeros, zeros, entropy, zeros.astype(jnp.int32), zeros, zeros)


@jax.jit
def choose(selector, scores, entropy, is_open, num_reveal):
    return selector.choose(scores, confidence_with(entropy), is_open, num_reveal)


@jax.jit
def plan(selector, key, j, n_0, left):
    return selector.plan(key, j, n_0, left)


def ranked(scores, is_open):
    """Open positions from best to worst: by score, ties to the lowest index, NaN last."""
    return sorted(np.flatnonzero(is_open), key=lambda i: (np.isnan(scores[i]), -np.nan_to_num(scores[i], nan=0), i))


SCORES = st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 0.5, 0.5000001, 1.0, np.inf, np.nan])
ROWS = st.lists(st.tuples(*[st.tuples(SCORES, st.booleans())] * 6), min_size=4, max_size=4)


def columns(rows):
    rows = np.array(rows, np.float64)
    return rows[..., 0].astype(np.float32), rows[..., 1] > 0


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, num_reveal=st.lists(st.integers(0, 6), min_size=4, max_size=4))
def test_planned_choose_of_any_scores_takes_the_best_with_ties_to_the_lowest_index(rows, num_reveal):
    scores, is_open = columns(rows)
    num_reveal = np.minimum(num_reveal, is_open.sum(axis=-1)).astype(np.int32)
    got = choose(mdm_jax.PerStep(2), scores, np.zeros_like(scores), is_open, num_reveal)
    expected = np.zeros_like(is_open)
    for row in range(4):
        expected[row, ranked(scores[row], is_open[row])[: num_reveal[row]]] = True
    np.testing.assert_array_equal(got, expected)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, tau=st.sampled_from([-np.inf, 0.0, 0.5, 0.7, 3.0]))
def test_threshold_choose_takes_all_at_least_tau_and_always_the_best(rows, tau):
    scores, is_open = columns(rows)
    got = choose(mdm_jax.Threshold(tau), scores, np.zeros_like(scores), is_open, None)
    expected = is_open & (scores >= np.float32(tau))
    for row in range(4):
        expected[row, ranked(scores[row], is_open[row])[:1]] = True
    np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    rows=ROWS,
    eighths=st.lists(st.lists(st.integers(0, 16), min_size=6, max_size=6), min_size=4, max_size=4),
    gamma=st.integers(0, 30),
)
def test_entropy_budget_choose_takes_the_longest_prefix_within_the_budget(rows, eighths, gamma):
    # Entropies in eighths of a nat are exact in float32, so that equality with the budget is too.
    scores, is_open = columns(rows)
    entropy = np.array(eighths, np.float32) / 8
    got = choose(mdm_jax.EntropyBudget(gamma / 8), scores, entropy, is_open, None)
    expected = np.zeros_like(is_open)
    for row in range(4):
        order = ranked(scores[row], is_open[row])
        fits = [
            n
            for n in range(1, len(order) + 1)
            if entropy[row, order[:n]].sum() - entropy[row, order[:n]].max() <= gamma / 8
        ]
        if order:
            expected[row, order[: max(fits, default=1)]] = True
    np.testing.assert_array_equal(got, expected)


def test_threshold_and_entropy_budget_plan_nothing_before_the_network():
    ones = jnp.ones(2, jnp.int32)
    assert mdm_jax.Threshold(0.5).plan(KEY, ones, ones, ones) is None
    assert mdm_jax.EntropyBudget(0.5).plan(KEY, ones, ones, ones) is None


def test_per_step_plan_is_k_or_all_that_is_left():
    left = jnp.array([0, 1, 3, 9])
    np.testing.assert_array_equal(plan(mdm_jax.PerStep(3), KEY, left + 1, left, left), [0, 1, 3, 3])


@functools.cache
def masks_left(schedule, n_0, num_steps, j):
    """floor(n_0 (1 - alpha(1 - j/T)) + 1e-4 + 1e-6 n_0), with a rational 1 - alpha for Linear and Polynomial(2)."""
    s = fractions.Fraction(num_steps - j, num_steps)
    if isinstance(schedule, mdm_jax.Cosine):
        masked = fractions.Fraction(math.cos(math.pi * (1 - float(s)) / 2)) if j < num_steps else fractions.Fraction(0)
    else:
        masked = s if isinstance(schedule, mdm_jax.Linear) else s**2
    return math.floor(n_0 * masked + fractions.Fraction(1, 10_000) + fractions.Fraction(n_0, 1_000_000))


@pytest.mark.parametrize("schedule", [mdm_jax.Linear(), mdm_jax.Cosine(), mdm_jax.Polynomial(2)], ids=str)
def test_top_k_plan_from_every_start_leaves_what_the_schedule_says(schedule):
    cases = [
        (n_0, num_steps, j)
        for n_0 in (0, 1, 2, 3, 7, 50, 81, 100, 255, 1024)
        for num_steps in (1, 2, 3, 7, 10, 49, 50, 81, 100)
        for j in range(1, num_steps + 1)
    ]
    n_0, num_steps, j = np.array(cases).T
    before = np.array([n if i == 1 else masks_left(schedule, n, t, i - 1) for n, t, i in cases])
    after = np.array([masks_left(schedule, n, t, i) for n, t, i in cases])

    @jax.jit
    def planned(num_steps, j, n_0, left):
        def one(num_steps, j, n_0, left):
            selector = mdm_jax.TopK(1, schedule)
            selector = jax.tree.unflatten(jax.tree.structure(selector), [num_steps])
            return selector.plan(KEY, j[None], n_0[None], left[None])[0]

        return jax.vmap(one)(num_steps, j, n_0, left)

    got = planned(*(jnp.asarray(x, jnp.int32) for x in (num_steps, j, n_0, before)))
    np.testing.assert_array_equal(got, before - after)
    assert (after[j == num_steps] == 0).all()


def test_top_k_plan_at_whole_numbers_leaves_no_mask_too_few():
    # 81 masks in 81 steps: float32 gives 81 * (1 - 14/81) below 67, which would reveal two in one step and none later.
    j = jnp.arange(1, 82)
    got = plan(mdm_jax.TopK(81), KEY, j, jnp.full(81, 81), 82 - j)
    np.testing.assert_array_equal(got, np.ones(81))


def test_top_k_plan_of_rows_with_other_starts_is_their_own():
    got = plan(mdm_jax.TopK(4), KEY, jnp.array([1, 1, 3, 4]), jnp.array([8, 3, 8, 8]), jnp.array([8, 3, 4, 2]))
    np.testing.assert_array_equal(got, [2, 1, 2, 2])


@pytest.mark.thinned(2)
@pytest.mark.parametrize("schedule", [mdm_jax.Linear(), mdm_jax.Cosine()], ids=str)
def test_binomial_plan_of_many_rows_follows_the_binomial_law_of_the_step(schedule):
    rows, num_steps = 4000, 5
    steps, lefts = [1, 3, 4], [2, 9, 60]
    j, left = (np.repeat(x, rows).astype(np.int32) for x in np.array([(j, n) for j in steps for n in lefts]).T)
    got = np.asarray(plan(mdm_jax.Binomial(num_steps, schedule), KEY, j, left + 3, left))
    assert got.dtype == np.int32
    for index, (step, n) in enumerate([(j, n) for j in steps for n in lefts]):
        t, s = 1 - (step - 1) / num_steps, 1 - step / num_steps
        if isinstance(schedule, mdm_jax.Cosine):
            t, s = math.sin(math.pi * t / 2), math.sin(math.pi * s / 2)
        p = (t - s) / t
        law = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        toy.assert_frequencies(got[index * rows : (index + 1) * rows], law)


@pytest.mark.slow
def test_binomial_plan_in_and_after_the_last_step_takes_all_that_is_left():
    left = jnp.array([0, 1, 5, 300, 7])
    got = plan(mdm_jax.Binomial(6), KEY, jnp.array([6, 6, 6, 6, 9]), left, left)
    np.testing.assert_array_equal(got, left)


def test_binomial_plan_of_rows_with_nothing_left_is_zero():
    zero = jnp.zeros(50, jnp.int32)
    np.testing.assert_array_equal(plan(mdm_jax.Binomial(6), KEY, zero + 2, zero + 4, zero), zero)


@pytest.mark.slow
@pytest.mark.thinned(2)
@pytest.mark.parametrize("toward", [0.0, 1.0])
def test_binomial_counts_do_not_hang_on_the_last_bit_of_a_probability_of_one_half(toward):
    @dataclasses.dataclass(frozen=True)
    class Half(mdm_jax.Linear):
        value: float

        def reveal_prob(self, t, s):
            return jnp.full_like(t, self.value)

    keys, left = jax.random.split(KEY, 200), jnp.full(200, 9)
    near = float(np.nextafter(np.float32(0.5), np.float32(toward)))
    one, other = (plan(mdm_jax.Binomial(4, Half(p)), keys, jnp.full(200, 2), left, left) for p in (0.5, near))
    np.testing.assert_array_equal(one, other)


def test_binomial_plan_of_a_row_depends_on_its_key_alone():
    keys, left = jax.random.split(KEY, 40), jnp.arange(40) + 3
    whole = np.asarray(plan(mdm_jax.Binomial(4), keys, jnp.full(40, 2), left, left))
    backwards = plan(mdm_jax.Binomial(4), keys[::-1], jnp.full(40, 2), left[::-1], left[::-1])
    np.testing.assert_array_equal(backwards, whole[::-1])


@pytest.mark.parametrize(
    ("make", "value", "name"),
    [
        (mdm_jax.PerStep, 0, "k"),
        (mdm_jax.PerStep, -1, "k"),
        (mdm_jax.PerStep, 1.5, "k"),
        (mdm_jax.TopK, 0, "num_steps"),
        (mdm_jax.TopK, 2.5, "num_steps"),
        (mdm_jax.Binomial, 0, "num_steps"),
        (mdm_jax.Binomial, np.int64(-3), "num_steps"),
        (mdm_jax.EntropyBudget, -0.1, "gamma"),
        (mdm_jax.EntropyBudget, math.nan, "gamma"),
    ],
)
def test_selector_with_an_impossible_number_is_refused(make, value, name):
    with pytest.raises(mdm_jax.InputError, match=name):
        make(value)


@pytest.mark.parametrize("value", [np.int32(0), jnp.asarray(0), np.asarray(-2)], ids=["numpy scalar", "jax", "numpy"])
def test_per_step_with_a_concrete_array_below_one_is_refused(value):
    # It would reveal nothing, for ever.
    with pytest.raises(mdm_jax.InputError, match="k"):
        mdm_jax.PerStep(value)


def test_selectors_made_twice_are_equal_and_their_numbers_are_leaves():
    pairs = [
        (mdm_jax.PerStep(2), mdm_jax.PerStep(2), [2]),
        (mdm_jax.TopK(5, mdm_jax.Cosine()), mdm_jax.TopK(5, mdm_jax.Cosine()), [5]),
        (mdm_jax.Binomial(5), mdm_jax.Binomial(5, mdm_jax.Linear()), [5]),
        (mdm_jax.Threshold(0.5), mdm_jax.Threshold(0.5), [0.5]),
        (mdm_jax.EntropyBudget(0.5), mdm_jax.EntropyBudget(0.5), [0.5]),
    ]
    for a, b, leaves in pairs:
        assert a == b
        assert hash(a) == hash(b)
        assert jax.tree.leaves(a) == leaves
        assert jax.tree.structure(a) == jax.tree.structure(b)
    assert jax.tree.structure(mdm_jax.TopK(5)) != jax.tree.structure(mdm_jax.TopK(5, mdm_jax.Cosine()))


@pytest.mark.thinned(5)
@pytest.mark.parametrize(
    "selector",
    [mdm_jax.PerStep(2), mdm_jax.TopK(3), mdm_jax.Binomial(3), mdm_jax.Threshold(0.5), mdm_jax.EntropyBudget(0.5)],
    ids=str,
)
def test_selector_under_strict_promotion_and_the_key_reuse_checker_is_the_same(selector):
    rng = np.random.default_rng(0)
    scores, entropy = (jnp.asarray(rng.random((3, 6)), jnp.float32) for _ in range(2))
    is_open = jnp.asarray(rng.random((3, 6)) < 0.7)
    left = is_open.sum(axis=-1, dtype=jnp.int32)

    def step(key):
        planned = selector.plan(key, jnp.ones(3, jnp.int32), left, left)
        return selector.choose(scores, confidence_with(entropy), is_open, planned)

    expected = jax.jit(step)(KEY)
    with jax.debug_key_reuse(True):
        np.testing.assert_array_equal(jax.jit(step)(jax.random.key(0)), expected)
    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_array_equal(jax.jit(step)(KEY), expected)


def test_rank_by_score_of_two_zeros_is_a_tie():
    rank = selection.rank_by_score(jnp.array([[0.0, -0.0, 0.0]]), jnp.ones((1, 3), bool))
    np.testing.assert_array_equal(rank, [[0, 1, 2]])


def test_entropy_budget_without_a_limit_takes_all_that_is_open():
    is_open = jnp.asarray([[True, False, True, True]])
    entropy = jnp.asarray([[0.5, 9.0, 2.0, 2.0]])
    got = choose(mdm_jax.EntropyBudget(math.inf), -entropy, entropy, is_open, None)
    np.testing.assert_array_equal(got, is_open)


@pytest.mark.slow
def test_classes_in_tells_apart_what_jax_takes_for_one_structure():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Nested:
        parts: tuple

    one, other = mdm_jax.TopK(5), mdm_jax.Binomial(5)
    assert selection.classes_in(one) == (mdm_jax.TopK, None)
    assert selection.classes_in(one) == selection.classes_in(mdm_jax.TopK(jnp.int32(7), mdm_jax.Cosine()))
    assert selection.classes_in(one) != selection.classes_in(other)
    assert selection.classes_in(mdm_jax.Threshold(0.5)) != selection.classes_in(mdm_jax.EntropyBudget(0.5))
    assert selection.classes_in(Nested((one, 1))) == (Nested, (tuple, (mdm_jax.TopK, None), None))
    assert selection.classes_in(Nested((one,))) != selection.classes_in(Nested((other,)))
