"""Positions and RoPE against complex arithmetic."""

import jax.numpy as jnp
import numpy as np
import pytest

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
