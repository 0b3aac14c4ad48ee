"""Attention and matrix products against float64 NumPy written from the formulas, in every platform's form."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import mdm_jax
from mdm_jax.kernels import attention as attention_module
from mdm_jax.kernels import cpu, gpu, matmul, tpu
from mdm_jax.kernels.attention import attention
from mdm_jax.kernels.matmul import einsum
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params

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


@pytest.mark.thinned(5)
@pytest.mark.parametrize("scores", [cpu.SCORES, 8 * LENGTH**2, 1])  # all at once, a few heads, and one at a time
@pytest.mark.parametrize(("kv_heads", "causal", "padded"), CASES)
def test_attention_float32_equals_the_formula(monkeypatch, kv_heads, causal, padded, scores):
    monkeypatch.setattr(cpu, "SCORES", scores)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    is_real = IS_REAL if padded else None
    q, k, v = draws(kv_heads)
    want = reference(q, k, v, causal, is_real)
    got = attention(q, k, v, causal=causal, is_real=None if is_real is None else jnp.asarray(is_real))
    sees_a_key = ~np.isnan(want)
    assert sees_a_key.mean() > 0.5
    np.testing.assert_allclose(np.asarray(got)[sees_a_key], want[sees_a_key], atol=3e-6)
    assert np.isfinite(got).all()


@pytest.mark.thinned(4)
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


@pytest.mark.thinned(4)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_gradients_do_not_depend_on_how_many_scores_are_made_at_a_time(monkeypatch, causal, padded):
    is_real = jnp.asarray(IS_REAL) if padded else None

    def total(q, k, v):
        return (attention(q, k, v, causal=causal, is_real=is_real) ** 2).sum()

    def gradient(*x):
        return jax.jit(jax.grad(lambda *x: total(*x), argnums=(0, 1, 2)))(*x)  # a new one, which is traced again

    want = gradient(*draws(2))
    monkeypatch.setattr(cpu, "SCORES", 1)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for scores in (8 * LENGTH**2, 1):
        monkeypatch.setattr(cpu, "SCORES", scores)
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


PADDINGS = {"right": [[6], [4], [1]], "nothing": [[0], [6], [3]], "left": None, "none": None}
"""How many tokens are real, of each row."""


def padded(side, length):
    if side == "none":
        return None
    if side == "left":
        return np.arange(length)[None] >= np.array([[0], [2], [length - 1]])
    return np.arange(length)[None] < np.array(PADDINGS[side])


@pytest.mark.thinned(4)
@pytest.mark.parametrize("side", PADDINGS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [6, 7])
def test_attention_told_to_cudnn_is_the_same_attention(length, causal, side):
    # No GPU here: the same arguments go to the XLA form of the same function.
    is_real = padded(side, length)
    q, k, v = draws(2, length)
    want = reference(q, k, v, causal, is_real)
    mask = None if is_real is None else jnp.asarray(is_real)
    got = gpu.attention(q, k, v, causal=causal, is_real=mask, implementation="xla")
    assert got.shape == q.shape
    assert np.isfinite(got).all()
    np.testing.assert_allclose(np.asarray(got)[~np.isnan(want)], want[~np.isnan(want)], atol=3e-6)


def test_attention_told_to_cudnn_is_within_its_limits(monkeypatch):
    plain, lengths_told = jax.nn.dot_product_attention, []

    def within_limits(q, k, v, *, mask=None, key_value_seq_lengths=None, **options):
        even = q.shape[1] % 2 == k.shape[1] % 2 == 0
        assert mask is None or (mask.shape == (BATCH, 1, q.shape[1], k.shape[1]) and even)
        lengths_told.append(key_value_seq_lengths is not None)
        return plain(q, k, v, mask=mask, key_value_seq_lengths=key_value_seq_lengths, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", within_limits)
    q, k, v = draws(2)
    gpu.attention(q, k, v, causal=False, is_real=jnp.asarray(padded("right", LENGTH)), implementation="xla")
    assert sorted(lengths_told) == [False, True], "one form for right padding, one for any other"


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("side", "causal", "kv_heads"), [("none", True, 4), ("right", False, 2), ("left", False, 4)])
def test_splash_attention_and_its_gradients_are_those_of_the_plain_form(side, causal, kv_heads):
    # No TPU here: Pallas interprets the kernel. 150 positions are padded to 256.
    length = 150
    is_real = None if side == "none" else jnp.asarray(padded(side, length))
    q, k, v = draws(kv_heads, length)
    seen = jnp.ones(q.shape[:2], bool) if is_real is None else is_real.any(axis=1, keepdims=True) & is_real

    def total(form, q, k, v):
        out = form(q, k, v)
        return jnp.where(seen[..., None, None], out, 0).sum(), out

    forms = [
        lambda *x: tpu.attention(*x, causal=causal, is_real=is_real, interpret=True),
        lambda *x: attention(*x, causal=causal, is_real=is_real),
    ]
    (grads, out), (want_grads, want) = [
        jax.grad(lambda *x: total(form, *x), argnums=(0, 1, 2), has_aux=True)(q, k, v)  # noqa: B023
        for form in forms
    ]
    np.testing.assert_allclose(out, want, atol=2e-5)
    for one, other in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize(
    ("dtype", "length", "taken"), [("bfloat16", 256, True), ("float32", 256, False), ("bfloat16", 255, False)]
)
def test_splash_attention_takes_long_sequences_in_half_precision(monkeypatch, dtype, length, taken):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    q = jnp.zeros((1, length, 1, 8), dtype)
    assert tpu.takes(q) is taken
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert not tpu.takes(q), "XLA cannot split the kernel without a mesh"
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        assert tpu.takes(q) is taken


@pytest.mark.thinned(2)
@pytest.mark.eight_devices
@pytest.mark.parametrize("batch", [2, 3])
def test_splash_attention_over_a_mesh_takes_batches_that_do_not_divide(batch):
    mesh = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    q, k, v = (jax.random.normal(jax.random.key(i), (batch, 128, 4, 8)) for i in range(3))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        got = jax.jit(functools.partial(tpu.attention, causal=True, is_real=None, interpret=True))(
            *jax.device_put((q, k, v), jax.NamedSharding(mesh, jax.P()))
        )
    np.testing.assert_allclose(got, attention(q, k, v, causal=True, is_real=None), atol=2e-5)


def test_program_for_a_tpu_holds_splash_attention_and_no_scores(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    q = jnp.zeros((2, 256, 4, 64), jnp.bfloat16)
    lowered = jax.jit(lambda q: attention(q, q, q, causal=False, is_real=None)).trace(q)
    for_tpu = lowered.lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" in for_tpu
    assert "256x256x" not in for_tpu
    assert "256x256x" in lowered.lower(lowering_platforms=("cpu",)).as_text(), "so that the above can fail"


@pytest.mark.thinned(2)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_results_without_the_forms_for_cpus_change_by_rounding_only(monkeypatch, dtype):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(cpu, "SCORES", 1)
    config = dataclasses.replace(tiny.CONFIG, dtype=dtype)
    params = init_params(config, jax.random.key(0))
    tokens = jnp.asarray(tiny.data()["tokens"][:3])

    def gradients():
        def nats(params):  # a new one for each call, which is traced again
            return mdm_jax.subset_loss(make_denoiser(config), params, jax.random.key(1), tokens, mask_id=0).sum()

        return jax.jit(jax.value_and_grad(nats))(params)

    forms = gradients()
    monkeypatch.setattr(matmul, "PRODUCTS", {})
    monkeypatch.setattr(attention_module, "PIECES", {})
    plain = gradients()
    # Products of up to 32 numbers are rounded otherwise, in 12 layers of products forward and backward.
    unit = 2.0**-24 if dtype == "float32" else 2.0**-9
    for one, other in zip(jax.tree.leaves(forms), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=12 * 32 * unit * np.abs(other).max() + 1e-7)


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
    assert gpu.takes(q) is taken


SPECS = [
    ("bli,io->blo", (3, 5, 8), (8, 6)),
    ("bhqd,bhkd->bhqk", (2, 3, 5, 8), (2, 3, 7, 8)),
    ("bhqk,bhkd->bhqd", (2, 3, 5, 7), (2, 3, 7, 8)),
    ("mi,mo->io", (9, 4), (9, 7)),
    ("mi,mo->io", (9, 7), (9, 4)),
    ("bhqk,bhqd->bhkd", (2, 3, 5, 7), (2, 3, 5, 4)),
    ("mi,om->io", (9, 7), (4, 9)),
]


@pytest.mark.thinned(4)
@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize(("spec", "left", "right"), SPECS)
def test_einsum_bfloat16_rounds_operands_and_nothing_else(monkeypatch, spec, left, right, num_devices):
    monkeypatch.setattr(jax, "device_count", lambda: num_devices)
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (left, right))
    rounded = [np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, y)]
    got = einsum(spec, x, y, "bfloat16")
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.einsum(spec, *rounded), atol=1e-5)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize(("spec", "left", "right"), SPECS)
def test_einsum_bfloat16_gradients_are_products_of_rounded_operands(monkeypatch, spec, left, right, num_devices):
    monkeypatch.setattr(jax, "device_count", lambda: num_devices)
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (left, right))
    out, pull = jax.vjp(lambda x, y: einsum(spec, x, y, "bfloat16"), x, y)
    cotangent = jnp.asarray(rng.standard_normal(out.shape), jnp.float32)
    grad_x, grad_y = pull(cotangent)
    low_x, low_y, low_cotangent = (np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, y, cotangent))
    operands, result = spec.split("->")
    first, second = operands.split(",")
    np.testing.assert_allclose(grad_x, np.einsum(f"{result},{second}->{first}", low_cotangent, low_y), atol=1e-5)
    np.testing.assert_allclose(grad_y, np.einsum(f"{first},{result}->{second}", low_x, low_cotangent), atol=1e-5)
    assert grad_x.dtype == grad_y.dtype == jnp.float32


@pytest.mark.thinned(2)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.slow
def test_einsum_transposed_result_compiles(dtype):
    # XLA's CPU backend has no kernel for a low-precision product that a transposition was folded into.
    x, y = jnp.ones((64, 96)), jnp.ones((96, 128))
    got = jax.jit(lambda x, y: einsum("mk,kn->mn", x, y, dtype).T + 1)(x, y)
    np.testing.assert_array_equal(got, np.full((128, 64), 97.0))
