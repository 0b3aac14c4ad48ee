"""Positions and RoPE against complex arithmetic."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.models.config import RopeScaling, TransformerConfig
from mdm_jax.models.rope import positions_from, rope, rope_tables


@pytest.mark.parametrize("module_of_positions", [jnp, np])
def test_rope_equals_multiplication_by_complex_units(module_of_positions):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 3, 8))
    positions = rng.integers(0, 2048, (2, 5))
    pairs = x[..., :4] + 1j * x[..., 4:]
    turned = pairs * np.exp(1j * positions[:, :, None, None] * 500.0 ** (-np.arange(4) / 4))
    got = rope(jnp.asarray(x, jnp.float32), *rope_tables(module_of_positions.asarray(positions), 8, 500.0))
    np.testing.assert_allclose(got, np.concatenate([turned.real, turned.imag], axis=-1), atol=5e-4)  # 2048 · 2^-24 rad
    near = rope(jnp.asarray(x, jnp.float32), *rope_tables(module_of_positions.asarray(positions % 8), 8, 500.0))
    turned = pairs * np.exp(1j * (positions % 8)[:, :, None, None] * 500.0 ** (-np.arange(4) / 4))
    np.testing.assert_allclose(near, np.concatenate([turned.real, turned.imag], axis=-1), atol=3e-6)


def test_rope_scaling_slows_long_waves_and_keeps_short_ones():
    scaling = RopeScaling(factor=8.0, low=1.0, high=4.0, length=64)
    turned = rope_tables(np.ones((1, 1)), 64, 10_000.0, scaling)
    angles = np.arctan2(turned[1], turned[0])[0, 0]
    plain = 10_000.0 ** (-np.arange(32) / 32)
    for angle, frequency in zip(angles, plain, strict=True):
        waves = 64 * frequency / (2 * np.pi)  # in the sequences that the model learned from
        if waves > 4:
            want = frequency
        elif waves < 1:
            want = frequency / 8
        else:
            smooth = (waves - 1) / 3
            want = (1 - smooth) * frequency / 8 + smooth * frequency
        np.testing.assert_allclose(angle, want, rtol=1e-4)
    assert {64 * f / (2 * np.pi) > 4 for f in plain} == {True, False}
    halved = rope_tables(np.ones((1, 1)), 64, 10_000.0, RopeScaling(factor=2.0))
    np.testing.assert_allclose(np.arctan2(halved[1], halved[0])[0, 0], plain / 2, rtol=1e-4)


def test_config_with_rope_scaling_is_json_and_back_and_says_what_cannot_be():
    scaling = RopeScaling(factor=8.0, length=8192)
    config = TransformerConfig(
        vocab_size=8, max_length=16, num_layers=1, num_heads=2, width=16, mlp_width=8, rope_scaling=scaling
    )
    told = json.loads(json.dumps(config.to_json()))
    assert TransformerConfig.from_json(told) == config
    for wrong in ({"factor": 0.5}, {}, {"factor": 2.0, "low": 4.0, "high": 4.0}, {"factor": 2.0, "beta": 1}, [1], "x"):
        with pytest.raises(InputError):
            TransformerConfig.from_json(told | {"rope_scaling": wrong})
    with pytest.raises(InputError, match="rope_scaling must be None, or a RopeScaling where positions"):
        dataclasses.replace(config, positions="learned")


def test_rope_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, 1, 2, 16)), jnp.float32) for _ in range(2))

    def product(i, j):
        turned = [rope(x, *rope_tables(jnp.full((1, 1), p), 16, 10_000.0)) for x, p in ((q, i), (k, j))]
        return np.einsum("blhd,blhd->h", *turned)

    np.testing.assert_allclose(product(3, 1), product(103, 101), atol=2e-5)
    assert np.abs(product(3, 1) - product(3, 2)).max() > 0.1


def test_rope_keeps_norms_and_leaves_position_zero_alone():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 3, 8)), jnp.float32)
    tables = rope_tables(np.arange(6)[None], 8, 10_000.0)
    got = rope(x, *tables)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(got[:, 0], x[:, 0])
    assert rope(x.astype(jnp.bfloat16), *tables).dtype == jnp.bfloat16


def test_positions_padding_left_shifts_and_right_does_not():
    is_real = jnp.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)
    got = positions_from(is_real)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, [[0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 2, 3]])
