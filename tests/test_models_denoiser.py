"""Rows of which nothing is wanted are left out, on one device and where the batch is split over several."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding

import mdm_jax
from mdm_jax import oracles
from mdm_jax.models import denoiser as module
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser, rows_of_tile
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import BATCH, make_mesh
from mdm_jax.tiles import in_tiles, ways_of

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


@pytest.fixture(params=[1, 3])
def rows(request, monkeypatch):
    """Tiles of so many rows of each way."""
    monkeypatch.setattr(module, "TILE", {"cpu": request.param * LENGTH})
    monkeypatch.setattr(module, "rows_of_tile", lambda batch, length: request.param)
    return request.param


def test_rows_of_tile_are_enough_to_keep_a_device_busy_and_waste_few():
    assert rows_of_tile(32, 81) == 8  # 7 would be enough: of 5 tiles the last has 3 rows too many
    assert rows_of_tile(8, 81) == 8
    assert rows_of_tile(7, 81) == rows_of_tile(3, 81) + 4 == 7
    assert rows_of_tile(127, 81) == 8
    assert rows_of_tile(17, 81) == 9
    assert rows_of_tile(6, 1024) == 1
    assert rows_of_tile(0, 81) == 0


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_in_tiles_reads_what_is_wanted_once_and_little_else(size):
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=(2, 6, 3)), jnp.float32)
    for share in (0, 0.3, 0.6, 1):
        is_wanted = rng.random((2, 6)) < share

        def read(places):
            return {"doubled": 2 * jnp.take_along_axis(values, places[..., None], axis=1), "place": places + 1}

        like = {"doubled": values, "place": jnp.zeros((2, 6), jnp.int32)}
        got = in_tiles(read, jnp.asarray(is_wanted), size, like)
        np.testing.assert_array_equal(got["doubled"][is_wanted], 2 * values[is_wanted])
        np.testing.assert_array_equal(np.asarray(got["place"])[is_wanted], np.nonzero(is_wanted)[1] + 1)
        num_read = min(-(-is_wanted.sum(axis=1).max() // size) * size, 6)
        np.testing.assert_array_equal((np.asarray(got["place"]) > 0).sum(axis=1), num_read)


@pytest.mark.parametrize("as_features", [False, True])
@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({}, 1e-5),
        ({"tie_head": True, "shift_logits": True}, 1e-5),
        ({"causal": True}, 1e-5),
        ({"pad_id": 0}, 1e-5),
        ({"num_groups": 2, "group_length": 2, "pad_id": 0}, 1e-5),
        ({"dtype": "bfloat16", "param_dtype": "bfloat16"}, 2**-6),
    ],
    ids=["plain", "tied and shifted", "causal", "padding", "groups", "bfloat16"],
)
def test_denoiser_at_in_tiles_equals_the_call_where_wanted_and_makes_few_other_rows(rows, change, bound, as_features):
    ways = {1: 1, 3: 2}[rows]
    config = dataclasses.replace(CONFIG, **change)
    params, denoiser = init_params(config, jax.random.key(0)), make_denoiser(config, as_features=as_features)
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, 10, (8, LENGTH)), jnp.int32)
    want = jax.jit(denoiser)(params, tokens)
    at = jax.jit(functools.partial(denoiser.at, ways=ways))
    for asked in ([], [5], [0, 1, 2, 3], [0, 4, 7], list(range(8))):
        is_wanted = rng.random(tokens.shape) < 0.5
        is_wanted[:, 5] = True
        is_wanted[[row for row in range(8) if row not in asked]] = False
        got = at(params, tokens, is_wanted)
        if as_features:
            np.testing.assert_array_equal(got.head, want.head)
        made, whole = (np.asarray(x.hidden if as_features else x, np.float32) for x in (got, want))
        np.testing.assert_allclose(made[is_wanted], whole[is_wanted], atol=bound * np.abs(whole).max())
        assert np.isfinite(made).all()
        most = np.isin(np.arange(8), asked).reshape(ways, -1).sum(axis=1).max()
        num_made = made.any(axis=(1, 2)).reshape(ways, -1).sum(axis=1)
        assert (num_made == min(-(-most // rows) * rows, 8 // ways)).all(), "as the way with the most needs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": jnp.zeros(LENGTH, jnp.int32)}, "shape"),
        ({"is_wanted": jnp.ones((4, LENGTH - 1), bool)}, "is_wanted must be bool"),
        ({"ways": 3}, "ways must divide the batch of 4, got 3"),
        ({"ways": 0}, "ways must divide"),
    ],
)
def test_denoiser_at_what_does_not_fit_is_refused(change, message):
    given = {"tokens": jnp.zeros((4, LENGTH), jnp.int32), "is_wanted": jnp.ones((4, LENGTH), bool)} | change
    with pytest.raises(mdm_jax.InputError, match=message):
        make_denoiser(CONFIG).at(init_params(CONFIG, jax.random.key(0)), **given)


def test_denoiser_at_over_a_mesh_leaves_rows_out_and_keeps_each_where_it_is(rows):
    mesh, denoiser = make_mesh(data=8), make_denoiser(CONFIG)
    params = init_params(CONFIG, jax.random.key(0))
    rows_split = NamedSharding(mesh, BATCH)
    tokens = jax.device_put(jax.random.randint(jax.random.key(1), (32, LENGTH), 0, 10, "int32"), rows_split)
    is_wanted = jax.device_put(jnp.arange(32)[:, None] % 8 + jnp.zeros((1, LENGTH), int) < 3, rows_split)
    assert ways_of(tokens) == 8
    at = jax.jit(functools.partial(denoiser.at, ways=8), out_shardings=rows_split)
    got, want = at(params, tokens, is_wanted), jax.jit(denoiser)(params, np.asarray(tokens))
    chosen = np.asarray(is_wanted)
    np.testing.assert_allclose(np.asarray(got)[chosen], np.asarray(want)[chosen], atol=1e-5 * np.abs(want).max())
    assert not np.asarray(got)[7].any()
    compiled = at.lower(params, tokens, is_wanted).compile().as_text()
    assert toy.largest_exchange(compiled) < LENGTH * 16, "not one row of activations"
    hidden = {int(num) for num in re.findall(r"f32\[(\d+),32\]", compiled)}
    assert rows * LENGTH in hidden, "each device makes a tile of its own"
    assert max(hidden) == 4 * LENGTH, "or all of its rows"


def test_ways_of_a_batch_are_the_devices_that_its_rows_are_split_over():
    tokens = jnp.zeros((16, LENGTH), jnp.int32)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    assert ways_of(tokens) == 1
    assert ways_of(jax.device_put(tokens, NamedSharding(mesh, BATCH))) == 4
    assert ways_of(tokens[:0]) == 1
    found = []
    jax.jit(lambda tokens: found.append(ways_of(tokens)))(tokens)
    assert found == [16], "nothing tells, and there are several devices"


class RowsRead:
    """Predicts, everywhere, how many rows are read."""

    def __call__(self, params, tokens):
        raise AssertionError("asked for all positions")

    def at(self, params, tokens, is_wanted, *, ways):
        return jnp.broadcast_to(9 * jax.nn.one_hot(is_wanted.any(axis=-1).sum(), 4), (*tokens.shape, 4))


@pytest.mark.parametrize("sampler", ["sample", "remasking"])
def test_samplers_read_no_row_that_reveals_nothing(sampler):
    x_init = np.array([[4, 4, 4], [4, 4, 0]], np.int32)
    options = {"mask_id": 4, "oracle": oracles.left_to_right, "temperature": 0.0}
    arguments = (RowsRead(), None, jax.random.key(0), x_init)
    if sampler == "sample":
        got = mdm_jax.sample(*arguments, selector=mdm_jax.TopK(4), **options)
    else:
        got = mdm_jax.remasking_sample(*arguments, num_steps=4, noise=0.0, remask=False, **options)
    # Of 3 masks, 2, 1 and 0 are left after steps 1, 2 and 3; of 2, 1, 1 and 0: in step 2 the second row has nothing.
    np.testing.assert_array_equal(got.tokens, [[2, 1, 2], [2, 2, 0]])
    np.testing.assert_array_equal(got.reveal_step, [[0, 1, 2], [0, 2, -1]])


SELECTORS = [mdm_jax.Threshold(0.2), mdm_jax.Binomial(6), mdm_jax.TopK(5), mdm_jax.PerStep(3)]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("selector", [*SELECTORS, None], ids=str)
def test_sample_that_leaves_out_rows_with_nothing_to_reveal_is_that_of_the_whole_batch(rows, selector, sharded):
    config = dataclasses.replace(CONFIG, init_std=0.4 + rows / 100)  # no trace with other tiles is at hand
    params, denoiser = init_params(config, jax.random.key(0)), make_denoiser(config)
    share = np.linspace(0, 1, 16)[:, None]
    x_init = np.where(np.random.default_rng(0).random((16, LENGTH)) < share, MASK, 3).astype(np.int32)
    options = {"mask_id": MASK, "oracle": oracles.margin, "temperature": 1.0}
    run = functools.partial(mdm_jax.sample, selector=selector, block_length=5, **options)
    if selector is None:  # the decoder that takes tokens back
        run = functools.partial(mdm_jax.remasking_sample, num_steps=4, noise=0.1, **options)
    want = run(lambda params, tokens: denoiser(params, tokens), params, jax.random.key(2), x_init)
    start = jax.device_put(x_init, NamedSharding(make_mesh(data=4, tensor=2), BATCH)) if sharded else x_init
    got = run(denoiser, params, jax.random.key(2), start)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.reveal_step, want.reveal_step)
    np.testing.assert_allclose(got.log_prob, want.log_prob, atol=1e-4)
    assert got.nfe == want.nfe


def test_sample_of_no_rows_is_refused():
    params = init_params(CONFIG, jax.random.key(0))
    with pytest.raises(mdm_jax.InputError, match="at least one row"):
        mdm_jax.sample(make_denoiser(CONFIG), params, jax.random.key(0), np.zeros((0, LENGTH), np.int32), mask_id=MASK)
