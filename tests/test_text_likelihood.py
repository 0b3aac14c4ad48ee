"""The likelihood of whole sequences, against enumeration of all subsets, steps and draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.evaluation import imbalance
from mdm_jax.evaluation.sequence_likelihood import along_order, at_positions, bound, of_pairs, subset_terms

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

L = 4
PARAMS = toy.net_params(0, length=L)
X_0 = np.array([[1, 0, 4, 2], [3, 3, 0, 1]])
ORDER = np.array([[2, 0, 3, 1], [1, 2, 0, 3]])


@pytest.fixture(scope="module")
def tables():
    """-log p_theta(x_0^i | x[M]) of both sequences, for every M, float64 [2, 2^L, L]."""
    return np.stack([toy.nll_table(toy.context_net, PARAMS, row, toy.MASK) for row in X_0])


def scored(function, x_0, *more, **options):
    return function(toy.context_net, PARAMS, x_0, *more, mask_id=toy.MASK, **options)


def brute_force(table, order):
    """The terms of an order, from the table of all subsets."""
    is_masked = toy.subsets(L)
    rows = [np.flatnonzero((is_masked == np.isin(np.arange(L), order[j:])).all(axis=1))[0] for j in range(L)]
    return table[rows, order]


def assert_unbiased(found, truth):
    """Of the draws of many equal sequences: the mean is the truth, the mean of error² the variance of the draws."""
    num, spread = len(found.nats), found.nats.std(ddof=1)
    assert spread > 0.05
    assert abs(found.nats.mean() - truth) < 4 * spread / np.sqrt(num)
    squares = found.error**2
    noise = np.hypot(squares.std(), 2 * spread**2) / np.sqrt(num)  # of both, with room for heavy tails
    assert abs(squares.mean() - spread**2) < 4 * noise


def test_mean_of_the_terms_of_all_subsets_is_the_exact_bound(tables):
    is_masked = toy.subsets(L)[1:]
    for row, table in zip(X_0, tables, strict=True):
        terms = np.asarray(scored(subset_terms, jnp.asarray(np.tile(row, (len(is_masked), 1))), jnp.asarray(is_masked)))
        by_size = [terms[is_masked.sum(axis=1) == n].mean() for n in range(1, L + 1)]
        np.testing.assert_allclose(np.mean(by_size), toy.exact_loss(table), rtol=1e-6)


@pytest.mark.parametrize("num_draws", [4, 2 * L, 10])
def test_bound_and_its_error_are_unbiased(tables, num_draws):
    found = scored(bound, np.tile(X_0[:1], (800, 1)), num_draws=num_draws, batch_size=640)
    assert_unbiased(found, toy.exact_loss(tables[0]))


@pytest.mark.parametrize("num_draws", [2, 6, 40])
def test_bound_from_features_fits_their_budget_and_is_that_from_logits(num_draws):
    x_0, params = np.random.default_rng(2).integers(0, 5, (3, 12)), toy.net_params(3)
    nets = (toy.context_net, toy.features_net)
    one, other = (bound(net, params, x_0, mask_id=toy.MASK, num_draws=num_draws, batch_size=7).nats for net in nets)
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_order_is_the_brute_force_sum_and_order_nll(tables):
    found = scored(along_order, X_0, ORDER, batch_size=3)
    for i in range(2):
        np.testing.assert_allclose(found.terms[i], brute_force(tables[i], ORDER[i]), rtol=1e-6)
        np.testing.assert_allclose(found.nats[i], brute_force(tables[i], ORDER[i]).sum(), rtol=1e-6)
    np.testing.assert_allclose(found.nats, scored(mdm_jax.order_nll, X_0, ORDER), rtol=1e-6)
    assert (found.error == 0).all()
    with_all_steps = scored(along_order, X_0, ORDER, num_steps=L + 2)
    np.testing.assert_allclose(with_all_steps.nats, found.nats, rtol=1e-6)


def test_mean_of_all_orders_is_the_exact_bound(tables):
    orders = np.array(list(itertools.permutations(range(L))))
    found = scored(along_order, np.tile(X_0[:1], (len(orders), 1)), orders)
    np.testing.assert_allclose(found.nats.mean(), toy.exact_loss(tables[0]), rtol=1e-6)


@pytest.mark.parametrize("sizes", [(2, 3), (4, 2, 3)])
def test_two_of_each_part_are_unbiased_over_all_draws(sizes):
    values = [np.random.default_rng(size).normal(size=size) for size in sizes]
    draws = itertools.product(*(itertools.combinations(own, 2) for own in values))
    weights = np.array(sizes)
    found = of_pairs(np.array(list(draws)), weights, 1 - 2 / weights)
    np.testing.assert_allclose(found.nats.mean(), sum(own.sum() for own in values))
    np.testing.assert_allclose((found.error**2).mean(), found.nats.var())


def test_some_steps_of_an_order_are_unbiased(tables):
    short = L - 2
    found = scored(along_order, np.tile(X_0[:1], (800, 1)), np.tile(ORDER[:1], (800, 1)), num_steps=short)
    assert_unbiased(found, brute_force(tables[0], ORDER[0]).sum())


def test_orders_see_the_same_steps_whatever_the_batch():
    x_0 = np.random.default_rng(1).integers(0, 5, (3, 12))
    params, orders = toy.net_params(0), np.asarray(mdm_jax.uniform_order(jax.random.key(0), 3, 12))
    options = {"mask_id": toy.MASK, "num_steps": 6, "seed": 4}
    one = along_order(toy.context_net, params, x_0, mdm_jax.identity_order(3, 12), **options)
    other = along_order(toy.context_net, params, x_0, orders, **options, batch_size=5)
    assert (one.steps == other.steps).all()
    assert [set(row // 4) for row in one.steps] == [{0, 1, 2}] * 3, "two of each third"
    alone = along_order(toy.context_net, params, x_0[:1], orders[:1], **options)
    np.testing.assert_allclose(alone.terms[0], other.terms[0], rtol=1e-6)


def test_errors_against_a_proxy_stand_at_the_positions_that_the_steps_reveal(tables):
    proxy = toy.net_params(7, length=L)
    ours = scored(along_order, X_0, ORDER, num_steps=2)
    other = along_order(toy.context_net, proxy, X_0, ORDER, mask_id=toy.MASK, num_steps=2)
    log_p, is_taken = at_positions(ours, ORDER)
    found = imbalance.errors(log_p, at_positions(other, ORDER)[0], is_taken, L)
    assert is_taken.sum(axis=1).tolist() == [2, 2]
    by_hand = (ours.terms - other.terms) ** 2
    np.testing.assert_allclose(found.latents[0], by_hand.mean(), rtol=1e-6)
    at = {place: [] for place in range(L)}
    for i, j in itertools.product(range(2), range(2)):
        at[ORDER[i, ours.steps[i, j]]].append(by_hand[i, j])
    np.testing.assert_allclose(
        found.positions[:, 0], [np.mean(at[i]) if at[i] else np.nan for i in range(L)], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("function", "change", "words"),
    [
        (bound, {"x_0": [[1, toy.MASK]]}, "x_0 holds the mask token, 5"),
        (bound, {"num_draws": 3}, "num_draws must be even"),
        (bound, {"batch_size": 0}, "batch_size must be"),
        (along_order, {"order": ORDER, "num_steps": 1}, "num_steps must be"),
        (along_order, {"order": [[0, 0, 1, 2]] * 2}, "every position from 0 to 3 once"),
    ],
)
def test_wrong_argument_is_named(function, change, words):
    with pytest.raises(InputError, match=words):
        function(toy.context_net, PARAMS, **{"x_0": X_0, "mask_id": toy.MASK} | change)
