"""Losses out of Features: the same numbers and gradients as out of logits, with far fewer logits made."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mdm_jax
from mdm_jax import draws
from mdm_jax import logits as logits_module

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

LENGTH = 10
PARAMS = toy.net_params(1)
LOSSES = {
    "elbo": functools.partial(mdm_jax.elbo_loss, schedule=mdm_jax.Linear()),
    "subset": mdm_jax.subset_loss,
    "order": functools.partial(mdm_jax.order_loss, num_orders=2),
    "order_nll": lambda denoiser, params, key, x_0, **options: mdm_jax.order_nll(
        denoiser, params, x_0, mdm_jax.uniform_order(key, *x_0.shape), **options
    ),
}


def examples(batch, seed=0):
    rng = np.random.default_rng(seed)
    x_0 = rng.integers(0, 5, (batch, LENGTH))
    return jnp.asarray(x_0), jnp.asarray(rng.random((batch, LENGTH)) < 0.3)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("chunk", [15, 1 << 23], ids=["3 positions", "all at once"])
@pytest.mark.parametrize("batch", [5, 8])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_from_features_equals_that_from_logits_with_its_gradient(monkeypatch, name, batch, chunk):
    monkeypatch.setattr(logits_module, "CHUNK", chunk)
    x_0, is_prompt = examples(batch)

    def total(params, denoiser):
        nll = LOSSES[name](denoiser, params, jax.random.key(2), x_0, mask_id=toy.MASK, is_prompt=is_prompt)
        return nll.sum(), nll

    def run(denoiser):
        return jax.jit(jax.value_and_grad(functools.partial(total, denoiser=denoiser), has_aux=True))(PARAMS)

    (_, nll), gradient = run(toy.features_net)
    (_, expected), expected_gradient = run(toy.context_net)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)
    for name, leaf in gradient.items():
        np.testing.assert_allclose(leaf, expected_gradient[name], rtol=2e-4, atol=2e-4, err_msg=name)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("with_prompt", [False, True])
@pytest.mark.parametrize("batch", [2, 6, 64, 250])
def test_subsets_of_a_pair_never_hold_more_masks_than_the_budget(batch, with_prompt):
    x_0, is_prompt = examples(batch)
    draw = jax.jit(draws.Subset())
    most = 0
    for seed in range(100):
        subsets = draw(jax.random.key(seed), x_0, is_prompt=is_prompt if with_prompt else jnp.zeros_like(is_prompt))
        pairs = np.asarray(subsets.is_masked).reshape(batch // 2, -1).sum(axis=-1)
        most = max(most, pairs.max())
        np.testing.assert_array_equal(np.sort(subsets.example), np.arange(batch))
        np.testing.assert_array_equal(subsets.x_0, np.asarray(x_0)[subsets.example])
    assert most <= LENGTH + LENGTH / batch + 2
    if not with_prompt:
        assert most >= LENGTH, "the bound is nearly reached, so it is no looser than it has to be"


@pytest.mark.slow
def test_subsets_of_a_long_sequence_keep_to_the_bound_too():
    length, batch = 4096, 32
    draw = jax.jit(lambda key: draws.Subset()(key, jnp.zeros((batch, length), jnp.int32)))
    for seed in range(20):
        pairs = np.asarray(draw(jax.random.key(seed)).is_masked).reshape(batch // 2, -1).sum(axis=-1)
        assert pairs.max() <= length + length / batch + 2


def largest_array(function, *arguments):
    """The size of the largest array that a traced function makes, in its inner functions too."""
    seen = [0]

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            seen.extend(v.aval.size for v in equation.outvars if hasattr(v.aval, "size"))
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    walk(getattr(inner, "jaxpr", inner))

    walk(jax.make_jaxpr(function)(*arguments).jaxpr)
    return max(seen)


@pytest.mark.parametrize("name", ["subset", "elbo", "order"])
def test_loss_from_features_makes_no_array_of_all_logits_forward_or_backward(monkeypatch, name):
    batch, vocab_size = 8, 4096
    monkeypatch.setattr(logits_module, "CHUNK", 2 * vocab_size)
    params = toy.net_params(0, vocab_size=vocab_size)
    x_0 = examples(batch)[0]

    def value(denoiser, params):
        return LOSSES[name](denoiser, params, jax.random.key(0), x_0, mask_id=vocab_size).sum()

    features, logits = (
        largest_array(jax.grad(functools.partial(value, denoiser)), params)
        for denoiser in (toy.features_net, toy.context_net)
    )
    assert logits >= batch * LENGTH * vocab_size, "the measure sees the logits where they are made"
    assert features <= batch * LENGTH * vocab_size / 4


def test_scored_nll_of_a_token_that_the_mask_id_forbids_leaves_gradients_finite():
    # Unscored positions may hold the mask id itself, whose log-probability is -inf.
    def total(params):
        output = toy.features_net(params, jnp.full((2, 4), 2))
        is_scored = jnp.asarray([[True, False, False, False], [False, True, True, False]])
        targets = jnp.where(is_scored, 1, 3)
        return logits_module.scored_nll(output, targets, is_scored, mask_id=3, rows=2, budget=5).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(PARAMS)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_more_scored_positions_than_the_budget_are_not_a_number_instead_of_dropped():
    output = mdm_jax.Features(jax.random.normal(jax.random.key(0), (2, 4, 3)), jnp.ones((3, 5)))
    is_scored = jnp.array([[True, True, True, False], [True, False, True, False]])
    nats = logits_module.scored_nll(output, jnp.zeros((2, 4), jnp.int32), is_scored, mask_id=None, budget=2)
    np.testing.assert_array_equal(np.isnan(nats), [[True, True, True, False], [False] * 4])
