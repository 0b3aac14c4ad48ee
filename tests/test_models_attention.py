"""Attention, RoPE and the low-precision product against float64 NumPy written from the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdm_jax.models import attention as module
from mdm_jax.models.attention import attention, positions_from, rope, rotation
from mdm_jax.products import contract

BATCH, LENGTH, HEADS, DEPTH = 3, 7, 4, 8
IS_REAL = np.arange(LENGTH)[None] >= np.array([[0], [2], [LENGTH - 1]])


def draws(kv_heads, length=LENGTH, dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, length, n, DEPTH) for n in (HEADS, kv_heads, kv_heads)]
    scales = (2 / np.sqrt(DEPTH), 2, 2)  # the queries come divided by √d
    return [jnp.asarray(scale * rng.standard_normal(shape), dtype) for scale, shape in zip(scales, shapes, strict=True)]


def reference(q, k, v, causal, is_real):
    """One query at a time, over the list of keys that it sees; NaN where it sees none."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.full(q.shape, np.nan)
    group = q.shape[2] // k.shape[2]
    for b, i, h in np.ndindex(q.shape[:3]):
        seen = [j for j in range(k.shape[1]) if (not causal or j <= i) and (is_real is None or is_real[b, j])]
        if seen:
            scores = np.array([q[b, i, h] @ k[b, j, h // group] for j in seen])
            weights = np.exp(scores - scores.max())
            out[b, i, h] = (weights / weights.sum()) @ v[b, seen, h // group]
    return out


CASES = [(kv, causal, padded) for kv in (4, 2, 1) for causal in (False, True) for padded in (False, True)]


@pytest.mark.parametrize("scores", [module.SCORES, 8 * LENGTH**2, 1])  # all at once, a few heads, and one at a time
@pytest.mark.parametrize(("kv_heads", "causal", "padded"), CASES)
def test_attention_float32_equals_the_formula(monkeypatch, kv_heads, causal, padded, scores):
    monkeypatch.setattr(module, "SCORES", scores)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    is_real = IS_REAL if padded else None
    q, k, v = draws(kv_heads)
    want = reference(q, k, v, causal, is_real)
    got = attention(q, k, v, causal=causal, is_real=None if is_real is None else jnp.asarray(is_real))
    sees_a_key = ~np.isnan(want)
    assert sees_a_key.mean() > 0.5
    np.testing.assert_allclose(np.asarray(got)[sees_a_key], want[sees_a_key], atol=3e-6)
    assert np.isfinite(got).all()


@pytest.mark.parametrize(("kv_heads", "causal", "padded"), CASES)
def test_attention_bfloat16_is_within_its_rounding(kv_heads, causal, padded):
    # The operands are bfloat16 already: rounded inside are the weights and the result, each by at most 2^-9 of a value.
    is_real = IS_REAL if padded else None
    q, k, v = draws(kv_heads, dtype=jnp.bfloat16)
    want = reference(q, k, v, causal, is_real)
    got = attention(q, k, v, causal=causal, is_real=None if is_real is None else jnp.asarray(is_real))
    assert got.dtype == jnp.bfloat16
    sees_a_key = ~np.isnan(want)
    error = np.abs(np.asarray(got, np.float64) - want)[sees_a_key]
    assert error.max() < 2**-8 * np.abs(np.asarray(v, np.float64)).max() * 1.5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_scores_of_hundreds_do_not_overflow(dtype):
    q, k, v = (x.astype(dtype) for x in (60 * draws(4)[0], *draws(4)[1:]))
    got = attention(q, k, v, causal=False, is_real=None)
    bound = 1e-3 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(np.asarray(got, np.float64), reference(q, k, v, False, None), atol=bound)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_gradients_do_not_depend_on_how_many_scores_are_made_at_a_time(monkeypatch, causal, padded):
    is_real = jnp.asarray(IS_REAL) if padded else None

    def total(q, k, v):
        return (attention(q, k, v, causal=causal, is_real=is_real) ** 2).sum()

    gradient = jax.grad(total, argnums=(0, 1, 2))
    want = gradient(*draws(2))
    monkeypatch.setattr(module, "SCORES", 1)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for scores in (8 * LENGTH**2, 1):
        monkeypatch.setattr(module, "SCORES", scores)
        for one, other in zip(want, gradient(*draws(2)), strict=True):
            np.testing.assert_allclose(other, one, atol=2e-6 * np.abs(one).max())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_no_key_visible_is_finite_with_finite_gradients(causal, dtype):
    q, k, v = draws(2, dtype=dtype)
    nothing = jnp.zeros((BATCH, LENGTH), dtype=bool)

    def total(q, k, v):
        return attention(q, k, v, causal=causal, is_real=nothing).astype(jnp.float32).sum()

    assert np.isfinite(np.asarray(attention(q, k, v, causal=causal, is_real=nothing), np.float64)).all()
    for gradient in jax.jit(jax.grad(total, argnums=(0, 1, 2)))(q, k, v):
        assert np.isfinite(np.asarray(gradient, np.float64)).all()


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_gradient_equals_finite_differences(kv_heads, causal):
    arrays = [x[:2, :4] for x in draws(kv_heads)]
    is_real = np.array([[True] * 4, [True, True, True, False]])
    direction = np.random.default_rng(1).standard_normal(arrays[0].shape)

    def total(*arrays):
        return (attention(*arrays, causal=causal, is_real=jnp.asarray(is_real)) * direction).sum()

    def total_64(*arrays):
        return np.sum(reference(*arrays, causal, is_real) * direction)

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*arrays)
    exact = [np.asarray(x, np.float64) for x in arrays]
    for which, gradient in enumerate(gradients):
        for index in [(0, 0, 0, 0), (0, 3, 1, 5), (1, 2, kv_heads - 1, 7), (1, 3, 0, 2)]:
            step = np.zeros(exact[which].shape)
            step[index] = 1e-5
            plus, minus = ([x + sign * step if i == which else x for i, x in enumerate(exact)] for sign in (1, -1))
            slope = (total_64(*plus) - total_64(*minus)) / 2e-5
            assert gradient[index] == pytest.approx(slope, abs=2e-5)


def test_attention_hidden_keys_change_nothing():
    q, k, v = draws(2)
    is_real = jnp.asarray(IS_REAL)
    hidden = ~IS_REAL[:, :, None, None]
    other_k, other_v = jnp.where(hidden, 50.0, k), jnp.where(hidden, -50.0, v)
    got = attention(q, k, v, causal=False, is_real=is_real)
    np.testing.assert_array_equal(got, attention(q, other_k, other_v, causal=False, is_real=is_real))


@pytest.mark.parametrize("length", [6, 7])
@pytest.mark.parametrize(("causal", "padded"), [(False, False), (True, False), (False, True), (True, True)])
def test_attention_cudnn_arguments_mean_the_same_attention(monkeypatch, length, causal, padded):
    # No GPU here: the arguments that cuDNN would get go to the same jax function's XLA form, within cuDNN's limits.
    plain = jax.nn.dot_product_attention

    def within_limits(q, k, v, *, mask=None, scale, is_causal=False, implementation):
        assert implementation == "cudnn"
        even = q.shape[1] % 2 == k.shape[1] % 2 == 0
        assert mask is None or (mask.shape == (BATCH, 1, q.shape[1], k.shape[1]) and even)
        return plain(q, k, v, mask=mask, scale=scale, is_causal=is_causal, implementation="xla")

    monkeypatch.setattr(module, "_cudnn_takes", lambda q: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", within_limits)
    is_real = np.arange(length)[None] >= np.array([[0], [2], [length - 1]]) if padded else None
    q, k, v = draws(2, length)
    want = reference(q, k, v, causal, is_real)
    got = attention(q, k, v, causal=causal, is_real=None if is_real is None else jnp.asarray(is_real))
    assert got.shape == q.shape
    np.testing.assert_allclose(np.asarray(got)[~np.isnan(want)], want[~np.isnan(want)], atol=3e-6)
    for places in () if causal else ([0], [1, length - 1], [0, 1, length - 1]):
        fewer = attention(q[:, jnp.array(places)], k, v, causal=False, is_real=is_real)
        np.testing.assert_allclose(fewer, got[:, jnp.array(places)], atol=3e-6)


class _Device:
    def __init__(self, capability):
        self.compute_capability = capability


@pytest.mark.parametrize(
    ("backend", "capability", "depth", "dtype", "taken"),
    [
        ("gpu", "9.0", 64, jnp.bfloat16, True),
        ("gpu", "12.0", 128, jnp.float16, True),
        ("gpu", "7.5", 64, jnp.bfloat16, False),
        ("gpu", "gfx90a", 64, jnp.bfloat16, False),
        ("gpu", "9.0", 64, jnp.float32, False),
        ("gpu", "9.0", 36, jnp.bfloat16, False),
        ("gpu", "9.0", 256, jnp.bfloat16, False),
        ("tpu", "9.0", 64, jnp.bfloat16, False),
        ("cpu", "9.0", 64, jnp.bfloat16, False),
    ],
)
def test_attention_backend_is_cudnn_only_within_its_limits(monkeypatch, backend, capability, depth, dtype, taken):
    q = jnp.zeros((1, 2, 1, depth), dtype)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "devices", lambda: [_Device(capability)])
    assert module._cudnn_takes(q) is taken


@pytest.mark.parametrize("module_of_positions", [jnp, np])
def test_rope_equals_multiplication_by_complex_units(module_of_positions):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 3, 8))
    positions = rng.integers(0, 2048, (2, 5))
    pairs = x[..., :4] + 1j * x[..., 4:]
    turned = pairs * np.exp(1j * positions[:, :, None, None] * 500.0 ** (-np.arange(4) / 4))
    got = rope(jnp.asarray(x, jnp.float32), *rotation(module_of_positions.asarray(positions), 8, 500.0))
    np.testing.assert_allclose(got, np.concatenate([turned.real, turned.imag], axis=-1), atol=5e-4)  # 2048 · 2^-24 rad
    near = rope(jnp.asarray(x, jnp.float32), *rotation(module_of_positions.asarray(positions % 8), 8, 500.0))
    turned = pairs * np.exp(1j * (positions % 8)[:, :, None, None] * 500.0 ** (-np.arange(4) / 4))
    np.testing.assert_allclose(near, np.concatenate([turned.real, turned.imag], axis=-1), atol=3e-6)


def test_rope_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, 1, 2, 16)), jnp.float32) for _ in range(2))

    def product(i, j):
        turned = [rope(x, *rotation(jnp.full((1, 1), p), 16, 10_000.0)) for x, p in ((q, i), (k, j))]
        return np.einsum("blhd,blhd->h", *turned)

    np.testing.assert_allclose(product(3, 1), product(103, 101), atol=2e-5)
    assert np.abs(product(3, 1) - product(3, 2)).max() > 0.1


def test_rope_keeps_norms_and_leaves_position_zero_alone():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 3, 8)), jnp.float32)
    turned = rotation(np.arange(6)[None], 8, 10_000.0)
    got = rope(x, *turned)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(got[:, 0], x[:, 0])
    assert rope(x.astype(jnp.bfloat16), *turned).dtype == jnp.bfloat16


def test_positions_padding_left_shifts_and_right_does_not():
    is_real = jnp.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)
    got = positions_from(is_real)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, [[0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 2, 3]])


SPECS = [
    ("bli,io->blo", (3, 5, 8), (8, 6)),
    ("bhqd,bhkd->bhqk", (2, 3, 5, 8), (2, 3, 7, 8)),
    ("bhqk,bhkd->bhqd", (2, 3, 5, 7), (2, 3, 7, 8)),
    ("mi,mo->io", (9, 4), (9, 7)),
    ("mi,mo->io", (9, 7), (9, 4)),
    ("bhqk,bhqd->bhkd", (2, 3, 5, 7), (2, 3, 5, 4)),
    ("mi,om->io", (9, 7), (4, 9)),
]


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize(("spec", "left", "right"), SPECS)
def test_contract_bfloat16_rounds_operands_and_nothing_else(monkeypatch, spec, left, right, num_devices):
    monkeypatch.setattr(jax, "device_count", lambda: num_devices)
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (left, right))
    rounded = [np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, y)]
    got = contract(spec, x, y, "bfloat16")
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.einsum(spec, *rounded), atol=1e-5)


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize(("spec", "left", "right"), SPECS)
def test_contract_bfloat16_gradients_are_products_of_rounded_operands(monkeypatch, spec, left, right, num_devices):
    monkeypatch.setattr(jax, "device_count", lambda: num_devices)
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (left, right))
    out, pull = jax.vjp(lambda x, y: contract(spec, x, y, "bfloat16"), x, y)
    cotangent = jnp.asarray(rng.standard_normal(out.shape), jnp.float32)
    grad_x, grad_y = pull(cotangent)
    low_x, low_y, low_cotangent = (np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, y, cotangent))
    operands, result = spec.split("->")
    first, second = operands.split(",")
    np.testing.assert_allclose(grad_x, np.einsum(f"{result},{second}->{first}", low_cotangent, low_y), atol=1e-5)
    np.testing.assert_allclose(grad_y, np.einsum(f"{first},{result}->{second}", low_x, low_cotangent), atol=1e-5)
    assert grad_x.dtype == grad_y.dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_contract_transposed_result_compiles(dtype):
    # XLA's CPU backend has no kernel for a low-precision product that a transposition was folded into.
    x, y = jnp.ones((64, 96)), jnp.ones((96, 128))
    got = jax.jit(lambda x, y: contract("mk,kn->mn", x, y, dtype).T + 1)(x, y)
    np.testing.assert_array_equal(got, np.full((128, 64), 97.0))
