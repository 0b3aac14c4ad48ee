"""Rows of which nothing is wanted are left out, on one device and where the batch is split over several."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

import mdm_jax
from mdm_jax import oracles
from mdm_jax.denoiser import ways_of
from mdm_jax.models import denoiser as module
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser, rows_of_tile
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import BATCH, make_mesh

LENGTH = 12
CONFIG = TransformerConfig(
    vocab_size=9,
    num_extra_tokens=1,
    max_length=LENGTH,
    num_layers=2,
    num_heads=2,
    width=16,
    mlp_width=32,
    positions="learned",
    init_std=0.3,
)
MASK = 9


@pytest.fixture
def single_rows(monkeypatch):
    """Tiles of one row of each way."""
    monkeypatch.setattr(module, "TILE", {"cpu": 1})


def test_rows_of_tile_divide_those_of_a_device_and_are_enough_to_keep_it_busy():
    assert module.TILE == {"cpu": 512}
    assert rows_of_tile(32, 81, 1) == 8  # 7 would be enough, 8 divides
    assert rows_of_tile(32, 81, 2) == 8
    assert rows_of_tile(32, 81, 4) == 8  # all that a device has
    assert rows_of_tile(17, 81, 1) == 17  # a prime number is not split
    assert rows_of_tile(6, 1024, 1) == 1
    assert rows_of_tile(1, 0, 1) == 1


@pytest.mark.parametrize("as_features", [False, True])
@pytest.mark.parametrize("change", [{}, {"tie_head": True}, {"causal": True}], ids=["plain", "tied", "causal"])
@pytest.mark.parametrize("ways", [1, 2])
def test_denoiser_at_in_tiles_equals_the_call_where_wanted_and_makes_no_other_rows(
    single_rows, ways, change, as_features
):
    config = dataclasses.replace(CONFIG, **change)
    params, denoiser = init_params(config, jax.random.key(0)), make_denoiser(config, as_features=as_features)
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, 10, (8, LENGTH)), jnp.int32)
    want = jax.jit(denoiser)(params, tokens)
    at = jax.jit(functools.partial(denoiser.at, ways=ways))
    for rows in ([], [5], [0, 1, 2, 3], [0, 4, 7], list(range(8))):
        is_wanted = rng.random(tokens.shape) < 0.5
        is_wanted[:, 3] = True
        is_wanted[[row for row in range(8) if row not in rows]] = False
        got = at(params, tokens, is_wanted)
        if as_features:
            np.testing.assert_array_equal(got.head, want.head)
        hidden, whole = (np.asarray(x.hidden if as_features else x) for x in (got, want))
        np.testing.assert_allclose(hidden[is_wanted], whole[is_wanted], atol=1e-5 * np.abs(whole).max())
        assert np.isfinite(hidden).all()
        most = max((np.reshape([row in rows for row in range(8)], (ways, -1))).sum(axis=1))
        made = hidden.any(axis=(1, 2)).reshape(ways, -1).sum(axis=1)
        assert (made == most).all(), "each way makes as many rows as the one with the most"


def test_denoiser_at_over_a_mesh_leaves_rows_out_and_keeps_each_where_it_is(single_rows):
    mesh, denoiser = make_mesh(data=8), make_denoiser(CONFIG)
    params = init_params(CONFIG, jax.random.key(0))
    rows = NamedSharding(mesh, BATCH)
    tokens = jax.device_put(jax.random.randint(jax.random.key(1), (32, LENGTH), 0, 10, "int32"), rows)
    is_wanted = jax.device_put(jnp.arange(32)[:, None] % 8 + jnp.zeros((1, LENGTH), int) < 3, rows)
    assert ways_of(tokens) == 8
    at = jax.jit(functools.partial(denoiser.at, ways=8), out_shardings=rows)
    got, want = at(params, tokens, is_wanted), jax.jit(denoiser)(params, np.asarray(tokens))
    chosen = np.asarray(is_wanted)
    np.testing.assert_allclose(np.asarray(got)[chosen], np.asarray(want)[chosen], atol=1e-5 * np.abs(want).max())
    assert not np.asarray(got)[7].any()
    compiled = at.lower(params, tokens, is_wanted).compile().as_text()
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", compiled)
    assert max([math.prod(int(n) for n in found.split(",") if n) for found in gathered], default=0) < LENGTH * 16


def test_ways_of_a_batch_are_the_devices_that_its_rows_are_split_over():
    tokens = jnp.zeros((16, LENGTH), jnp.int32)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    assert ways_of(tokens) == 1
    assert ways_of(jax.device_put(tokens, NamedSharding(mesh, BATCH))) == 4
    assert ways_of(tokens[:0]) == 1
    found = []
    jax.jit(lambda tokens: found.append(ways_of(tokens)))(tokens)
    assert found == [16], "nothing tells, and there are several devices"


@pytest.mark.parametrize(
    "selector", [mdm_jax.Threshold(0.2), mdm_jax.Binomial(6), mdm_jax.TopK(5), mdm_jax.PerStep(3)], ids=str
)
@pytest.mark.parametrize("sharded", [False, True])
def test_sample_that_leaves_out_rows_with_nothing_to_reveal_is_that_of_the_whole_batch(single_rows, selector, sharded):
    config = dataclasses.replace(CONFIG, init_std=0.4)  # of its own, so that no trace with other tiles is at hand
    params, denoiser = init_params(config, jax.random.key(0)), make_denoiser(config)
    share = np.linspace(0, 1, 16)[:, None]
    x_init = np.where(np.random.default_rng(0).random((16, LENGTH)) < share, MASK, 3).astype(np.int32)
    options = {"mask_id": MASK, "oracle": oracles.margin, "selector": selector}
    want = mdm_jax.sample(lambda params, tokens: denoiser(params, tokens), params, jax.random.key(2), x_init, **options)
    start = jax.device_put(x_init, NamedSharding(make_mesh(data=4, tensor=2), BATCH)) if sharded else x_init
    got = mdm_jax.sample(denoiser, params, jax.random.key(2), start, **options)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.reveal_step, want.reveal_step)
    np.testing.assert_allclose(got.log_prob, want.log_prob, atol=1e-4)
    assert got.nfe == want.nfe
