"""Networks with routed experts: two ways to compute them, and what they share with other kinds of network."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.kernels.experts import by_expert, by_row
from mdm_jax.models import kinds
from mdm_jax.models.routed import RoutedTransformerConfig
from mdm_jax.sharding import gathered, make_mesh, shardings, without_rule

TINY = RoutedTransformerConfig(
    vocab_size=11,
    num_extra_tokens=1,
    max_length=12,
    num_layers=2,
    num_heads=2,
    width=16,
    mlp_width=8,
    num_experts=4,
    num_experts_per_token=2,
)
TOKENS = jax.random.randint(jax.random.key(2), (4, 12), 0, 11, "int32")


def lively():
    """Parameters none of which is 0 or 1, so that all count."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), kinds.param_shapes(TINY))


def drawn(dtype):
    """Rows, their experts, shares, and kernels of five experts, one of which no row goes through."""
    rng = np.random.default_rng(0)
    x, shares = rng.normal(size=(9, 6)), rng.random((9, 2))
    chosen = np.stack([rng.permutation([0, 1, 2, 4])[:2] for _ in range(9)]).astype(np.int32)
    kernels = [rng.normal(size=shape) for shape in ((5, 6, 7), (5, 6, 7), (5, 7, 6))]
    x, *kernels = (jnp.asarray(one, dtype) for one in (x, *kernels))
    return x, jnp.asarray(chosen), jnp.asarray(shares, jnp.float32), *kernels


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("bfloat16", 2**-6)])
def test_experts_sorted_and_all_at_once_equal_the_definition_and_so_do_their_gradients(dtype, bound):
    x, chosen, *rest = drawn(dtype)

    def plain(x, shares, gate, up, down):
        def of_row(x, chosen, shares):
            hidden = jax.nn.silu(jnp.einsum("d,edf->ef", x, gate[chosen])) * jnp.einsum("d,edf->ef", x, up[chosen])
            return jnp.einsum("e,ef,efd->d", shares, hidden, down[chosen])

        return jax.vmap(of_row)(x, chosen, shares)

    def all_of(form, *args):
        out, pull = jax.vjp(form, *args)
        return out, pull(jnp.cos(jnp.arange(out.size).reshape(out.shape)).astype(out.dtype))

    exact = [one.astype(jnp.float32) for one in (x, *rest)]
    with jax.default_matmul_precision("highest"):
        want = jax.jit(lambda *args: all_of(plain, *args))(*exact)
    for form in (by_expert, by_row):
        bound_form = functools.partial(form, dtype=dtype)
        got = jax.jit(lambda x, *rest, f=bound_form: all_of(lambda x, *rest: f(x, chosen, *rest), x, *rest))(x, *rest)
        assert got[0].dtype == jnp.float32
        for one, other, like in zip(jax.tree.leaves(got), jax.tree.leaves(want), (None, x, *rest), strict=True):
            assert like is None or one.dtype == like.dtype
            np.testing.assert_allclose(one.astype(jnp.float32), other, atol=bound * np.abs(other).max())
    assert (want[1][2][3] == 0).all(), "no row goes through it"


@pytest.mark.slow
def test_features_of_few_positions_are_those_of_all():
    denoiser, params = kinds.make_denoiser(TINY), lively()
    is_read = jnp.zeros((4, 12), bool).at[jnp.arange(4), jnp.array([1, 5, 11, 0])].set(True)
    hidden, head = jax.jit(denoiser.features)(params, TOKENS, is_read)
    logits = jax.jit(denoiser)(params, TOKENS)
    np.testing.assert_allclose((hidden @ head)[is_read], logits[is_read], atol=1e-5 * np.abs(logits).max())


@pytest.mark.eight_devices
def test_over_a_mesh_that_splits_experts_gives_the_same():
    denoiser, params, mesh = kinds.make_denoiser(TINY), lively(), make_mesh(2, 2, 2)
    placed = jax.device_put(params, shardings(mesh, params))
    kernel = placed["layers_0"]["mlp"]["gate"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 8, 8)
    want = jax.jit(denoiser)(params, TOKENS)
    got = jax.jit(lambda params: denoiser(gathered(mesh, params), TOKENS))(placed)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    assert without_rule(params)[0] < 0.05, "norms alone"


@pytest.mark.slow
def test_decoding_with_a_cache_gives_the_tokens_of_whole_sequences():
    params, x_init = lively(), jnp.full((3, 12), 11, jnp.int32).at[:, :3].set(TOKENS[:3, :3])
    options = {"mask_id": 11, "block_length": 12}
    plain = mdm_jax.sample(kinds.make_denoiser(TINY), params, jax.random.key(0), x_init, **options)
    kept = mdm_jax.cached_sample(kinds.make_decoder(TINY), params, jax.random.key(0), x_init, **options)
    np.testing.assert_array_equal(kept.tokens, plain.tokens)
    assert (plain.tokens < 11).all()
    assert (plain.tokens[:, :3] == x_init[:, :3]).all()


def test_config_comes_back_from_json_and_says_how_many_operations():
    assert kinds.from_json(kinds.to_json(TINY)) == TINY
    fresh = jax.eval_shape(lambda: kinds.init_params(TINY, jax.random.key(0)))
    assert kinds.param_shapes(TINY) == fresh
    fields = TINY.to_json()
    dense = {name: value for name, value in fields.items() if "experts" not in name and name != "is_normalised"}
    dense = kinds.from_json({"kind": "transformer", **dense, "mlp_width": 2 * TINY.mlp_width})
    router = 2 * 12 * 2 * 16 * 4
    assert TINY.forward_flops(12, 12) == dense.forward_flops(12, 12) + router


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_experts": 0}, "num_experts must be a whole number, at least 1"),
        ({"num_experts_per_token": 5}, "num_experts_per_token must be at most num_experts = 4; got 5"),
        ({"is_normalised": 1}, "is_normalised must be True or False; got 1"),
        ({"mlp": "gelu"}, 'mlp must be "swiglu" in a network with experts'),
        ({"use_bias": True}, "use_bias must be False in a network with experts"),
    ],
)
def test_config_that_experts_do_not_fit_is_refused(change, words):
    with pytest.raises(InputError, match=f"RoutedTransformerConfig.{words}"):
        dataclasses.replace(TINY, **change)
