"""Losses of training against their formulas in plain Python, the law of their draws, and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy

from mdm_jax.draws import Focal, Masked, Skewed
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import make_mesh
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import OptimizerConfig, init_state
from mdm_jax.training.step import make_train_step

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

PARAMS = toy.net_params(0)
LENGTH = 5


def by_formula(params, tokens, is_masked, k, *, mask_id, num_times, alpha, gamma):
    """(T - k) Σ α (1 - p)^γ (-log p) over masked tokens, over the share of tokens that is masked on average."""
    logits = toy.context_net(params, jnp.asarray(np.where(is_masked, mask_id, tokens), jnp.int32))
    log_p = toy.log_softmax(logits, mask_id)
    share = np.mean([(time + 1) / num_times for time in range(num_times)])
    totals = []
    for row in range(len(tokens)):
        total = 0.0
        for i in np.flatnonzero(is_masked[row]):
            nats = -log_p[row, i, tokens[row, i]]
            total += alpha * (1 - np.exp(-nats)) ** gamma * nats
        totals.append((num_times - k[row]) * total / share)
    return totals


def drawn(num_times, num_values, seed=0):
    """Every k twice, with masks of all sizes, none and all among them."""
    rng = np.random.default_rng(seed)
    k = np.tile(np.arange(num_times), 2)
    tokens = rng.integers(0, num_values, (len(k), LENGTH))
    is_masked = rng.random(tokens.shape) < rng.random((len(k), 1))
    is_masked[0], is_masked[1] = False, True
    return tokens, is_masked, k


def as_drawn(tokens, is_masked, weight):
    """Rows as a draw gives them, all masks scored."""
    is_masked = jnp.asarray(is_masked)
    rows = jnp.arange(len(tokens), dtype=jnp.int32)
    return Masked(jnp.asarray(tokens, jnp.int32), is_masked, is_masked, jnp.asarray(weight, jnp.float32), rows)


def focal_weight(k, num_times):
    return (num_times - k) * 2 * num_times / (num_times + 1)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("options", "exact"),
    [
        ({}, {"num_times": 20, "alpha": 0.25, "gamma": 1.0}),
        ({"num_times": 4, "alpha": 0.7, "gamma": 2.0}, {"num_times": 4, "alpha": 0.7, "gamma": 2.0}),
        ({"num_times": 1, "alpha": 1.0, "gamma": 0.0}, {"num_times": 1, "alpha": 1.0, "gamma": 0.0}),
    ],
    ids=["defaults", "others", "plain"],
)
@pytest.mark.parametrize("mask_id", [toy.MASK, 4], ids=["mask above V", "mask below V"])
def test_reweighted_nll_is_the_formula_for_given_draws(options, exact, mask_id):
    tokens, is_masked, k = drawn(exact["num_times"], num_values=4)
    given = as_drawn(tokens, is_masked, focal_weight(k, exact["num_times"]))
    want = by_formula(PARAMS, tokens, is_masked, k, mask_id=mask_id, **exact)
    assert want[0] == 0
    loss = masked_loss(mask_id, Focal(**options))
    for net in (toy.context_net, toy.features_net):
        got = jax.jit(functools.partial(loss.nll, net, paired=True))(PARAMS, given)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=2e-5)
    some = np.array([3, 0]) if len(k) > 3 else np.array([1])
    part = loss.nll(toy.context_net, PARAMS, jax.tree.map(lambda x: x[some], given), paired=False)
    np.testing.assert_allclose(part, np.array(want)[some], rtol=2e-5)


def test_reweighted_draws_mask_each_free_token_by_the_time_and_never_a_prompt():
    num_times, num = 5, 20_000
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 5, (num, 4)), jnp.int32)
    is_prompt = jnp.zeros((num, 4), bool).at[:, 1].set(True)
    loss = masked_loss(toy.MASK, Focal(num_times))
    kept, is_masked, is_scored, weight, _ = loss.draw(jax.random.key(0), {"tokens": tokens, "is_prompt": is_prompt})
    np.testing.assert_array_equal(is_scored, is_masked)
    k = np.rint(num_times - np.asarray(weight) * (num_times + 1) / (2 * num_times)).astype(int)
    np.testing.assert_array_equal(kept, tokens)
    assert not is_masked[:, 1].any()
    # The law of k and of which of the three free tokens are masked, all together.
    outcomes = 8 * np.asarray(k) + np.asarray(is_masked)[:, [0, 2, 3]] @ np.array([4, 2, 1])
    rates = np.arange(1, num_times + 1) / num_times
    number = toy.subsets(3).sum(axis=1)
    toy.assert_frequencies(outcomes, rates[:, None] ** number * (1 - rates[:, None]) ** (3 - number) / num_times)
    other = loss.draw(jax.random.key(1), {"tokens": tokens, "is_prompt": is_prompt}).is_masked
    assert (other != is_masked).any()


def test_reweighted_draws_keep_the_prompt_of_each_row():
    is_prompt = jnp.asarray(toy.subsets(4))
    tokens = jnp.zeros(is_prompt.shape, jnp.int32)
    drawn = masked_loss(toy.MASK, Focal(1)).draw(jax.random.key(0), {"tokens": tokens, "is_prompt": is_prompt})
    np.testing.assert_array_equal(drawn.is_masked, ~is_prompt)  # one time only, at which all that is free is masked
    np.testing.assert_array_equal(drawn.weight, 1)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("is_right", [True, False])
def test_reweighted_gradient_is_finite_where_the_network_is_certain(gamma, is_right):
    tokens = jnp.asarray([[0, 1, 2]], jnp.int32)
    given = as_drawn(tokens, [[True, True, False]], focal_weight(np.zeros(1), 20))
    loss = masked_loss(toy.MASK, Focal(gamma=gamma))
    certain = 1e4 * jax.nn.one_hot(tokens if is_right else tokens + 1, 5)

    def value(logits):
        return loss.nll(lambda params, tokens: params, logits, given).sum()

    nats, gradient = jax.value_and_grad(value)(certain)
    assert np.isfinite(nats)
    assert np.isfinite(gradient).all()
    if is_right:
        np.testing.assert_allclose(gradient, 0, atol=1e-4)
        assert nats == 0
    else:  # there the weight is α T · 2T/(T + 1), and the slope of -log p is p - 1
        weight = 0.25 * 20 * 40 / 21
        np.testing.assert_allclose(nats, 2e4 * weight, rtol=1e-5)
        assert gradient[0, 0, 0] == pytest.approx(-weight, rel=1e-5)
        assert (gradient[0, 2] == 0).all()


@pytest.mark.slow
def test_reweighted_loss_under_the_key_reuse_checker_and_strict_promotion_is_the_same():
    tokens, *_ = drawn(20, num_values=4)
    batch = {"tokens": jnp.asarray(tokens, jnp.int32), "is_prompt": jnp.zeros(tokens.shape, bool)}
    loss = masked_loss(toy.MASK, Focal())

    def run():
        return loss.nll(toy.context_net, PARAMS, loss.draw(jax.random.key(2), batch), paired=True)

    expected = run()
    with jax.numpy_dtype_promotion("strict"), jax.debug_key_reuse(True):
        np.testing.assert_array_equal(run(), expected)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("sizes", "accumulate"), [((1, 1, 1), 3), ((2, 2, 2), 2)])
@pytest.mark.slow
def test_train_step_takes_the_reweighted_loss_in_parts_and_on_several_devices(sizes, accumulate):
    batch = {name: jnp.asarray(x) for name, x in tiny.to_batch({"tokens": tiny.data()["tokens"][:24]}).items()}
    loss, init = masked_loss(tiny.MASK, Focal()), functools.partial(init_params, tiny.CONFIG)
    optimizer, mesh = OptimizerConfig(num_steps=9), make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    state = init_state(mesh, init, 0, optimizer)
    params, (key_draw, _) = jax.device_get(state.params), jax.random.split(jax.random.fold_in(state.key, 0))
    nats = loss.nll(make_denoiser(tiny.CONFIG), params, loss.draw(key_draw, batch), paired=True)
    denoiser = make_denoiser(tiny.CONFIG)
    _, metrics = make_train_step(denoiser, init, loss, optimizer, mesh, accumulate=accumulate)(state, batch)
    assert float(metrics["loss_per_token"]) == pytest.approx(float(nats.sum()) / (24 * 5), rel=1e-4)
    assert 0 < float(metrics["gradient_norm"]) < np.inf


def test_skewed_nll_is_the_mean_over_masked_tokens_times_the_number_of_free_ones():
    tokens, is_masked, _ = drawn(20, num_values=4)
    num_free = is_masked.sum(axis=1) + np.arange(len(tokens)) % 2
    logits = toy.context_net(PARAMS, jnp.asarray(np.where(is_masked, toy.MASK, tokens), jnp.int32))
    nats = -np.take_along_axis(toy.log_softmax(logits, toy.MASK), tokens[..., None], axis=-1)[..., 0]
    expected = num_free * np.where(is_masked, nats, 0).sum(axis=1) / np.maximum(is_masked.sum(axis=1), 1)
    given = as_drawn(tokens, is_masked, num_free / np.maximum(is_masked.sum(axis=1), 1))
    nll = masked_loss(toy.MASK, Skewed()).nll(toy.context_net, PARAMS, given, paired=True)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("skew", [1.0, 3.0])
def test_skewed_draw_masks_as_many_free_tokens_as_its_law_says_any_of_them_and_never_the_prompt(skew):
    length, prompt = 8, np.array([0, 5])
    batch = {"tokens": jnp.ones((4096, length), jnp.int32), "is_prompt": jnp.zeros((4096, length), bool)}
    batch["is_prompt"] = batch["is_prompt"].at[:, prompt].set(True).at[7].set(True)
    drawn = masked_loss(0, Skewed(skew)).draw(jax.random.key(3), batch)
    is_masked = drawn.is_masked
    assert not is_masked[:, prompt].any()
    assert not is_masked[7].any()
    np.testing.assert_allclose(drawn.weight[0] * is_masked[0].sum(), 6, rtol=1e-6)
    sizes = np.delete(np.asarray(is_masked.sum(axis=1)), 7)
    law = [(1 - (n - 1) / 6) ** (1 / skew) - (1 - n / 6) ** (1 / skew) for n in range(1, 7)]  # n = ceil(6 (1 - u^skew))
    np.testing.assert_allclose(np.bincount(sizes, minlength=7)[1:] / len(sizes), law, atol=2e-3)  # u is stratified
    each = np.asarray(is_masked).mean(axis=0)[np.setdiff1d(np.arange(length), prompt)]
    np.testing.assert_allclose(each, sizes.mean() / 6, atol=5 * np.sqrt(0.25 / 4096))
