"""Sampling block by block with kept keys and values, against `sample`, which keeps nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding

import mdm_jax
from mdm_jax import oracles
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.decoder import make_decoder
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import BATCH, make_mesh, shardings

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

SHALLOW = TransformerConfig(
    vocab_size=7,
    num_extra_tokens=1,
    max_length=13,
    num_layers=1,
    num_heads=2,
    width=16,
    mlp_width=32,
    positions="learned",  # with RoPE alone, neighbouring masks would tie
    init_std=0.5,
)
DEEP = dataclasses.replace(SHALLOW, num_layers=2)
MASK = 7
ROUNDING = 13 * 4 * 8 * 2**-24
"""Of a log-probability: 13 of them, below 8 nats each, summed; each off by at most four roundings of its logits."""
KEY = jax.random.key(5)
X_INIT = np.random.default_rng(0).integers(0, 7, (5, 13)).astype(np.int32)
X_INIT[0] = MASK
X_INIT[1, 4:9] = MASK
X_INIT[3, [0, 6, 7, 12]] = MASK
X_INIT[4, 2:] = MASK


@functools.cache
def params_of(config):
    return init_params(config, jax.random.key(0))


def both(config, x_init=X_INIT, key=KEY, block_length=4, **options):
    """Tokens and what else does not count calls: kept, and of `sample`."""
    usual = {"mask_id": MASK, "block_length": block_length, **options}
    kept = mdm_jax.cached_sample(make_decoder(config), params_of(config), key, x_init, **usual)
    plain = mdm_jax.sample(make_denoiser(config), params_of(config), key, x_init, **usual)
    return kept, plain


def assert_same(kept, plain):
    np.testing.assert_array_equal(kept.tokens, plain.tokens)
    np.testing.assert_allclose(kept.log_prob, plain.log_prob, atol=ROUNDING)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("selector", "temperature"),
    [(mdm_jax.PerStep(1), 0.0), (mdm_jax.Threshold(0.2), 1.0)],  # one of each kind: it plans, or it chooses
)
@pytest.mark.slow
def test_of_one_layer_in_blocks_is_exact(selector, temperature):
    # Keys and values of the only layer depend on the token in their place alone, and outside the block none changes.
    assert_same(*both(SHALLOW, selector=selector, temperature=temperature))


@pytest.mark.slow
def test_of_one_layer_is_exact_with_an_oracle_that_draws():
    oracle = oracles.with_noise(oracles.margin, 1.0)
    assert_same(*both(SHALLOW, oracle=oracle, selector=mdm_jax.Binomial(6), temperature=1.0))


@pytest.mark.slow
def test_one_trace_serves_every_temperature_step_count_and_key():
    class Counting:
        is_causal = False
        traces = 0

        def init_cache(self, batch, length):
            return jnp.zeros((batch, length))

        def __call__(self, params, tokens, cache, start):
            Counting.traces += 1
            return jax.nn.one_hot(tokens, 7) * 3.0, cache

    decoder, seen = Counting(), []
    for seed, (steps, temperature) in enumerate([(3, 0.5), (5, 1.0), (2, 2.0)]):
        options = {"mask_id": MASK, "block_length": 4, "selector": mdm_jax.TopK(steps), "temperature": temperature}
        mdm_jax.cached_sample(decoder, {}, jax.random.key(seed), X_INIT, **options)
        seen.append(Counting.traces)
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.slow
def test_over_a_mesh_gives_the_tokens_of_one_device():
    config = dataclasses.replace(DEEP, num_heads=4, vocab_size=8, num_extra_tokens=0, pad_id=None)
    params = params_of(config)
    x_init = np.where(np.arange(13)[None] < np.array([[0], [5], [9], [12]]), 3, MASK).astype(np.int32)
    run = functools.partial(
        mdm_jax.cached_sample,
        make_decoder(config),
        mask_id=MASK,
        block_length=4,
        selector=mdm_jax.TopK(3),
        temperature=1.0,
    )
    alone = run(params, KEY, x_init)
    mesh = make_mesh(2, 2, 2)
    split = jax.tree.map(jax.device_put, params, shardings(mesh, params))
    over_mesh = run(split, KEY, jax.device_put(x_init, NamedSharding(mesh, BATCH)))
    np.testing.assert_array_equal(over_mesh.tokens, alone.tokens)
    np.testing.assert_array_equal(over_mesh.reveal_step, alone.reveal_step)


@pytest.mark.thinned(9)
@pytest.mark.parametrize("oracle", [oracles.margin, oracles.random])
def test_of_one_block_is_exact_whatever_the_network(oracle):
    kept, plain = both(DEEP, oracle=oracle, selector=mdm_jax.TopK(4), block_length=50)
    assert_same(kept, plain)
    np.testing.assert_array_equal(kept.reveal_step, plain.reveal_step)
    assert kept.nfe == plain.nfe


@pytest.mark.slow
def test_of_several_layers_keeps_what_it_should_and_so_is_not_exact():
    x_init = np.full((6, 13), MASK, np.int32)
    kept, plain = both(DEEP, x_init, selector=mdm_jax.PerStep(1), temperature=0.0)
    assert (np.asarray(kept.tokens)[:, :4] != MASK).all()
    assert not np.allclose(kept.log_prob, plain.log_prob, atol=ROUNDING), "or nothing is kept"


@pytest.mark.slow
def test_rows_do_not_depend_on_each_other():
    keys = jax.random.split(KEY, 5)
    run = functools.partial(
        mdm_jax.cached_sample,
        make_decoder(DEEP),
        params_of(DEEP),
        mask_id=MASK,
        block_length=4,
        selector=mdm_jax.TopK(3),
    )
    together = run(keys, X_INIT)
    for row in range(5):
        alone = run(keys[row : row + 1], X_INIT[row : row + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row], err_msg=str(row))
        np.testing.assert_allclose(alone.log_prob[0], together.log_prob[row], atol=ROUNDING)
    given = X_INIT != MASK
    np.testing.assert_array_equal(np.asarray(together.tokens)[given], X_INIT[given])
    assert (np.asarray(together.reveal_step)[given] == -1).all()
    assert (np.asarray(together.reveal_step)[~given] >= 0).all()


def test_calls_read_the_whole_sequence_once_a_block_and_the_block_alone_otherwise():
    read = []

    class Counting:
        is_causal = False

        def init_cache(self, batch, length):
            return jnp.zeros((batch, length))

        def __call__(self, params, tokens, cache, start):
            jax.debug.callback(lambda start, width=tokens.shape[1]: read.append((int(start), width)), start)
            return jnp.zeros((*tokens.shape, 7)), cache

    x_init = np.full((2, 13), MASK, np.int32)
    x_init[:, 5] = 0
    options = {"mask_id": MASK, "block_length": 4, "selector": mdm_jax.PerStep(2)}
    result = mdm_jax.cached_sample(Counting(), {}, KEY, x_init, **options)
    jax.effects_barrier()
    assert read == [(0, 13), (0, 4), (0, 13), (4, 4), (0, 13), (8, 4), (0, 13)]
    assert int(result.nfe) == len(read)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_length": 0}, "block_length must be a whole number of at least 1, or None; got 0"),
        ({"decoder": make_decoder(dataclasses.replace(SHALLOW, causal=True))}, "decoder must be bidirectional"),
        ({"decoder": make_denoiser(SHALLOW)}, "init_cache"),
        ({"selector": mdm_jax.PerStep}, "selector must be an object"),
        ({"temperature": -1}, "temperature"),
        ({"mask_id": -1}, "mask_id"),
    ],
)
def test_unusable_input_is_refused_and_told_why(changes, message):
    usual = {"decoder": make_decoder(SHALLOW), "mask_id": MASK, "block_length": 4}
    with pytest.raises(mdm_jax.InputError, match=message) as caught:
        mdm_jax.cached_sample(params=params_of(SHALLOW), key=KEY, x_init=X_INIT, **(usual | changes))
    assert "\n" not in str(caught.value)
