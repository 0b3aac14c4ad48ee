"""One objective in three forms (Kim et al. 2025, section 2), by enumeration of all orders and all subsets at L = 4.

The right-hand sides are float64 NumPy over the network's logits; nothing of mdm_jax.losses is in them.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mdm_jax

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

L = 4
ROUNDING = 16 * 2**-24
"""Relative, of a sum of four conditionals in float32: in each, two roundings (of the difference, of the logarithm) and
one of the sum, of numbers up to half again as large."""
ORDERS = np.array(list(itertools.permutations(range(L))))
SCHEDULES = [mdm_jax.Linear(), mdm_jax.Cosine(), mdm_jax.Polynomial(2), mdm_jax.Polynomial(2.5)]
PROMPTS = {
    "no prompt": [False, False, False, False],
    "one given": [False, True, False, False],
    "two given": [True, False, False, True],
    "three given": [True, True, False, True],
    "all given": [True, True, True, True],
}
NETS = {
    "mask above the vocabulary": (toy.context_net, toy.net_params(0), 5),
    "mask inside the vocabulary": (toy.context_net, toy.net_params(1, vocab_size=6), 2),
    "hidden features and a head": (toy.features_net, toy.net_params(2), 5),
}
X_0 = np.array([3, 0, 4, 1])


@functools.cache
def table(net):
    denoiser, params, mask_id = NETS[net]
    return toy.nll_table(denoiser, params, X_0, mask_id)


@functools.cache
def all_order_nlls(net, prompt):
    """`order_nll` of X_0 for each of the 24 orders: float64 [24]."""
    denoiser, params, mask_id = NETS[net]
    x_0 = jnp.broadcast_to(jnp.asarray(X_0), ORDERS.shape)
    is_prompt = jnp.broadcast_to(jnp.asarray(PROMPTS[prompt]), ORDERS.shape)
    nll = jax.jit(functools.partial(mdm_jax.order_nll, denoiser, mask_id=mask_id))
    return np.asarray(nll(params, x_0, jnp.asarray(ORDERS), is_prompt=is_prompt), np.float64)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_order_nll_of_every_order_is_the_sum_of_its_conditionals(net, prompt):
    nll, member = table(net), toy.subsets(L)
    index = {tuple(row): i for i, row in enumerate(member)}
    for order, got in zip(ORDERS, all_order_nlls(net, prompt), strict=True):
        left = [i for i in order if not PROMPTS[prompt][i]]
        expected = 0.0
        while left:
            is_masked = np.isin(np.arange(L), left)
            expected += nll[index[tuple(is_masked)], left.pop(0)]
        np.testing.assert_allclose(got, expected, rtol=ROUNDING)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_order_average_over_all_orders_equals_both_weighted_sums_over_subsets(net, prompt):
    # Proposition 2.1 with weight 1/|M| / C(L', |M|), and its other form 1/L' / C(L'-1, |M|-1).
    nll, is_free = table(net), ~np.array(PROMPTS[prompt])
    average = all_order_nlls(net, prompt).mean()
    np.testing.assert_allclose(average, toy.exact_loss(nll, is_free), rtol=ROUNDING)
    other_form = sum(
        row.sum() / (is_free.sum() * math.comb(is_free.sum() - 1, member.sum() - 1))
        for member, row in zip(toy.subsets(L), nll, strict=True)
        if member.any() and not (member & ~is_free).any()
    )
    np.testing.assert_allclose(average, other_form, rtol=ROUNDING)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_elbo_integral_of_every_schedule_equals_the_order_average(schedule):
    # int |alpha'| / (1 - alpha) E sum_masked nll dt with the expectation by enumeration, on 200 Gauss nodes.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t, weights = jnp.asarray((nodes + 1) / 2, jnp.float32), weights / 2
    alpha = np.asarray(schedule.alpha(t), np.float64)[:, None]
    elbo_weight = np.asarray(schedule.elbo_weight(t), np.float64)
    size = toy.subsets(L).sum(axis=-1)[None]
    prob = (1 - alpha) ** size * alpha ** (L - size)
    for net in NETS:
        integral = (weights * elbo_weight * (prob @ table(net).sum(axis=-1))).sum()
        np.testing.assert_allclose(integral, all_order_nlls(net, "no prompt").mean(), rtol=ROUNDING, err_msg=net)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_elbo_integral_with_a_prompt_counts_the_free_positions_alone(schedule):
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t, weights = jnp.asarray((nodes + 1) / 2, jnp.float32), weights / 2
    alpha = np.asarray(schedule.alpha(t), np.float64)[:, None]
    member, is_free = toy.subsets(L), ~np.array(PROMPTS["two given"])
    inside = ~(member & ~is_free).any(axis=-1)
    size = member.sum(axis=-1)[None]
    prob = np.where(inside, (1 - alpha) ** size * alpha ** np.maximum(is_free.sum() - size, 0), 0)
    for net in NETS:
        integrand = np.asarray(schedule.elbo_weight(t), np.float64) * (prob @ table(net).sum(axis=-1))
        average = all_order_nlls(net, "two given").mean()
        np.testing.assert_allclose((weights * integrand).sum(), average, rtol=ROUNDING, err_msg=net)


def joint_losses(joint, denoiser, params, num_values):
    """L_theta of every sequence from `order_nll` over all orders, and -log p of each: float64 [m^L] both."""
    x_0 = toy.sequences(num_values, L)
    batch, orders = np.repeat(x_0, len(ORDERS), axis=0), np.tile(ORDERS, (len(x_0), 1))
    nll = jax.jit(functools.partial(mdm_jax.order_nll, denoiser, mask_id=num_values))
    by_order = np.asarray(nll(params, jnp.asarray(batch), jnp.asarray(orders)), np.float64)
    return by_order.reshape(len(x_0), len(ORDERS)), -np.log(joint)


def test_order_nll_of_the_ideal_denoiser_is_the_exact_nll_in_every_order():
    joint = toy.random_joint(0, 2, L)
    by_order, nll = joint_losses(joint, toy.bayes_net(2, L), jnp.asarray(joint), 2)
    np.testing.assert_allclose(by_order, np.broadcast_to(nll[:, None], by_order.shape), rtol=2e-6)


def test_loss_of_any_other_denoiser_exceeds_its_own_nll_bound_and_the_entropy():
    # The ideal denoiser of a wrong joint is a consistent model: its L is its NLL, above the entropy by exactly KL.
    joint, wrong = toy.random_joint(1, 2, L), toy.random_joint(2, 2, L, concentration=3.0)
    by_order, _ = joint_losses(joint, toy.bayes_net(2, L), jnp.asarray(wrong), 2)
    entropy = -(joint * np.log(joint)).sum()
    divergence = (joint * np.log(joint / wrong)).sum()
    np.testing.assert_allclose((joint * by_order.mean(axis=-1)).sum(), entropy + divergence, rtol=2e-6)
    # An inconsistent net: order by order a distribution, so each order's mean NLL, and L, are above the entropy.
    net = toy.net_params(3, vocab_size=2)
    by_order, _ = joint_losses(joint, toy.context_net, net, 2)
    np.testing.assert_allclose(np.exp(-by_order).sum(axis=0), 1, rtol=1e-5)
    assert ((joint[:, None] * by_order).sum(axis=0) > entropy + 0.05).all()
    # Jensen: L(x) >= -log E_pi p_pi(x) for every sequence, strictly where the orders disagree.
    mixture = -np.log(np.exp(-by_order).mean(axis=-1))
    assert (by_order.mean(axis=-1) > mixture).all()
