"""BERT as a kind of network: what it shares with the others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.models import kinds
from mdm_jax.models.bert import BertConfig

TINY = BertConfig(
    vocab_size=11,
    max_length=12,
    num_layers=1,
    num_heads=2,
    width=16,
    mlp_width=24,
    norm="layer",
    positions="learned",
    mlp="gelu_exact",
    use_bias=True,
    tie_head=True,
)


def lively():
    """Parameters none of which is 0 or 1, so that all count."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.6, x.shape), x.dtype), kinds.param_shapes(TINY))


def logits_of(config, params, tokens):
    return jax.jit(kinds.make_denoiser(config))(params, tokens)


@pytest.mark.slow
def test_bert_computes_the_same_where_few_positions_are_read():
    denoiser, params = kinds.make_denoiser(TINY), lively()
    tokens = jax.random.randint(jax.random.key(2), (3, 12), 0, 11)
    is_read = jnp.zeros((3, 12), bool).at[jnp.arange(3), jnp.array([1, 5, 11])].set(True)
    hidden, head = jax.jit(denoiser.features)(params, tokens, is_read)
    logits = logits_of(TINY, params, tokens)
    np.testing.assert_allclose((hidden @ head)[is_read], logits[is_read], atol=1e-4)
    assert np.isfinite(hidden).all()


@pytest.mark.slow
def test_bert_hides_padding():
    config, params = dataclasses.replace(TINY, pad_id=0), lively()
    tokens = jax.random.randint(jax.random.key(2), (2, 9), 1, 11)
    alone = logits_of(config, params, tokens)
    padded = jnp.pad(tokens, ((0, 0), (0, 3)))
    np.testing.assert_allclose(logits_of(config, params, padded)[:, :9], alone, atol=1e-4)
    seen = logits_of(TINY, params, padded)[:, :9]
    assert np.abs(seen - alone).max() > 0.01


@pytest.mark.slow
def test_bert_is_trained_and_sampled_as_any_denoiser():
    denoiser, params = kinds.make_denoiser(TINY), lively()
    tokens = jax.random.randint(jax.random.key(2), (4, 12), 0, 10)

    def loss(params):
        return mdm_jax.elbo_loss(
            denoiser, params, jax.random.key(3), tokens, schedule=mdm_jax.Linear(), mask_id=10
        ).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    assert np.abs(gradient["head"]["bias"][:10]).min() > 0
    assert gradient["head"]["bias"][10] == 0, "the mask is never predicted"
    found = mdm_jax.sample(denoiser, params, jax.random.key(4), jnp.full((2, 12), 10), mask_id=10)
    assert (found.tokens < 10).all()


def test_bert_config_is_one_of_the_kinds_and_says_what_cannot_be():
    assert kinds.from_json(kinds.to_json(TINY)) == TINY
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), kinds.param_shapes(TINY))
    assert shapes == jax.tree.map(
        lambda x: (x.shape, x.dtype), jax.jit(lambda key: kinds.init_params(TINY, key))(jax.random.key(0))
    )
    for change in ({"norm": "rms"}, {"positions": "rope"}, {"use_bias": False}, {"causal": True}):
        with pytest.raises(InputError, match=f"BertConfig.{next(iter(change))} must be"):
            dataclasses.replace(TINY, **change)
    with pytest.raises(InputError, match="the kind bert reads whole sequences"):
        kinds.make_decoder(TINY)
