"""The transformer against forward passes written in float64 NumPy, and what its configuration promises."""

import dataclasses
import itertools
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import grouped

from mdm_jax import InputError
from mdm_jax.models.kinds import init_params, make_denoiser, num_params, param_shapes
from mdm_jax.models.transformer import Transformer, TransformerConfig
from mdm_jax.typing import FeatureDenoiser

LENGTH, PAD = 8, 12
TINY = TransformerConfig(
    vocab_size=11, num_extra_tokens=2, max_length=LENGTH, num_layers=2, num_heads=4, width=16, mlp_width=24
)
LLAMA = dataclasses.replace(TINY, causal=True, num_kv_heads=2, rope_theta=500.0)
GPT2 = dataclasses.replace(
    TINY, causal=True, norm="layer", positions="learned", mlp="gelu", use_bias=True, tie_head=True
)
GROUPED = grouped(TINY, max_length=14, num_groups=3, group_length=3, pad_id=PAD)


def lively_params(config, seed=0):
    """Parameters large enough that every part of the network changes the logits, the biases and scales included."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(rng.normal(centre, 0.3, leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def draw_tokens(seed=0, batch=3, length=LENGTH):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 12, (batch, length)), jnp.int32)


@partial(jax.jit, static_argnames="denoiser")
def apply(denoiser, params, tokens, **kwargs):
    return denoiser(params, tokens, **kwargs)


def logits_of(config, params, tokens, **kwargs):
    return np.asarray(apply(make_denoiser(config), params, tokens, **kwargs))


def relative(got, want):
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(np.asarray(want, np.float64))


# Two forward passes from the formulas, one sequence at a time, in float64.


def softmax_rows(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def numpy_gpt2(params, tokens, num_heads):
    def layer_norm(p, x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    def linear(p, x):
        return x @ p["kernel"] + p["bias"]

    def gelu_new(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    length = len(tokens)
    embedding = params["token_embedding"]["embedding"]
    x = embedding[tokens] + params["position_embedding"]["embedding"][:length]
    future = np.triu(np.ones((length, length), bool), 1)
    for i in itertools.count():
        if f"layers_{i}" not in params:
            break
        layer = params[f"layers_{i}"]
        h = layer_norm(layer["attention_norm"], x)
        q, k, v = (np.split(linear(layer["attention"][n], h), num_heads, axis=1) for n in ("query", "key", "value"))
        heads = [
            softmax_rows(np.where(future, -np.inf, a @ b.T / np.sqrt(a.shape[1]))) @ c
            for a, b, c in zip(q, k, v, strict=True)
        ]
        x = x + linear(layer["attention"]["output"], np.concatenate(heads, axis=1))
        h = layer_norm(layer["mlp_norm"], x)
        x = x + linear(layer["mlp"]["down"], gelu_new(linear(layer["mlp"]["up"], h)))
    return layer_norm(params["final_norm"], x) @ embedding[:11].T


def numpy_llama(params, tokens, num_heads, kv_heads, theta):
    def rms_norm(p, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]

    def rotate(head):
        half = head.shape[1] // 2
        pairs = head[:, :half] + 1j * head[:, half:]
        turned = pairs * np.exp(1j * np.arange(len(head))[:, None] * theta ** (-np.arange(half) / half))
        return np.concatenate([turned.real, turned.imag], axis=1)

    x = params["token_embedding"]["embedding"][tokens]
    future = np.triu(np.ones((len(tokens), len(tokens)), bool), 1)
    for i in range(2):
        layer = params[f"layers_{i}"]
        attention, mlp = ({n: p["kernel"] for n, p in layer[part].items()} for part in ("attention", "mlp"))
        h = rms_norm(layer["attention_norm"], x)
        q = [rotate(head) for head in np.split(h @ attention["query"], num_heads, axis=1)]
        k = [rotate(head) for head in np.split(h @ attention["key"], kv_heads, axis=1)]
        v = np.split(h @ attention["value"], kv_heads, axis=1)
        heads = []
        for number, query in enumerate(q):
            shared = number * kv_heads // num_heads
            scores = np.where(future, -np.inf, query @ k[shared].T / np.sqrt(query.shape[1]))
            heads.append(softmax_rows(scores) @ v[shared])
        x = x + np.concatenate(heads, axis=1) @ attention["output"]
        h = rms_norm(layer["mlp_norm"], x)
        gate = h @ mlp["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ mlp["up"])) @ mlp["down"]
    return rms_norm(params["final_norm"], x) @ params["head"]["kernel"]


def test_transformer_gpt2_block_stack_equals_numpy():
    params, tokens = lively_params(GPT2), draw_tokens()
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    want = np.stack([numpy_gpt2(exact, row, 4) for row in np.asarray(tokens)])
    np.testing.assert_allclose(logits_of(GPT2, params, tokens), want, atol=2e-5 * np.abs(want).max())


def test_transformer_llama_block_stack_equals_numpy():
    params, tokens = lively_params(LLAMA), draw_tokens()
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    want = np.stack([numpy_llama(exact, row, 4, 2, 500.0) for row in np.asarray(tokens)])
    np.testing.assert_allclose(logits_of(LLAMA, params, tokens), want, atol=2e-5 * np.abs(want).max())


@pytest.mark.thinned(2)
@pytest.mark.parametrize("change", [{}, {"positions": "learned", "tie_head": True, "pad_id": PAD}])
def test_transformer_shifted_logits_are_those_of_the_position_before(change):
    plain = dataclasses.replace(TINY, num_layers=1, **change)
    shifted = dataclasses.replace(plain, shift_logits=True)
    params, tokens = lively_params(plain), draw_tokens()
    want = logits_of(plain, params, tokens)
    got = np.asarray(apply(make_denoiser(shifted), params, tokens))
    np.testing.assert_allclose(got[:, 1:], want[:, :-1], atol=1e-5 * np.abs(want).max())
    np.testing.assert_allclose(got[:, 0], want[:, 0], atol=1e-5 * np.abs(want).max())
    assert relative(got, want) > 0.1
    assert jax.tree.structure(jax.eval_shape(lambda: init_params(shifted, jax.random.key(0)))) == jax.tree.structure(
        params
    )


def jacobian_over_positions(config):
    """|d logits at i / d embedded token at j| summed over the rest: [L, L]."""
    params, tokens = lively_params(config), jnp.arange(LENGTH, dtype=jnp.int32)[None]  # each position its own row
    denoiser = make_denoiser(config)

    def logits(embedding):
        return denoiser({**params, "token_embedding": {"embedding": embedding}}, tokens)[0].sum(axis=-1)

    jacobian = jax.jit(jax.jacrev(logits))(params["token_embedding"]["embedding"])
    return np.abs(jacobian[:, :LENGTH]).sum(axis=-1)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_transformer_causal_future_gradients_are_exactly_zero(positions):
    jacobian = jacobian_over_positions(dataclasses.replace(TINY, num_layers=1, causal=True, positions=positions))
    assert (jacobian[np.triu_indices(LENGTH, 1)] == 0).all()
    assert (jacobian[np.tril_indices(LENGTH)] > 0).all()


def test_transformer_bidirectional_every_position_sees_every_other():
    assert (jacobian_over_positions(dataclasses.replace(TINY, num_layers=1)) > 0).all()


@pytest.mark.thinned(2)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_transformer_padding_on_either_side_changes_no_real_position(causal, positions):
    config = dataclasses.replace(TINY, causal=causal, positions=positions, pad_id=PAD)
    params, tokens = lively_params(config), draw_tokens(length=5)
    want = logits_of(config, params, tokens)
    for left in range(4):
        padded = jnp.pad(tokens, ((0, 0), (left, 3 - left)), constant_values=PAD)
        got = logits_of(config, params, padded)[:, left : left + 5]
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    without = dataclasses.replace(config, pad_id=None)
    unaware = logits_of(without, params, jnp.pad(tokens, ((0, 0), (3, 0)), constant_values=PAD))[:, 3:]
    assert relative(unaware, want) > 0.05


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("causal", "dtype"), [(False, "bfloat16"), (True, "float32")])
def test_transformer_row_of_padding_is_finite_and_leaves_others_alone(causal, dtype):
    config = dataclasses.replace(TINY, causal=causal, pad_id=PAD, dtype=dtype)
    params, tokens = lively_params(config), draw_tokens().at[1].set(PAD)
    logits, gradients = jax.jit(jax.value_and_grad(lambda p: make_denoiser(config)(p, tokens).sum()))(params)
    assert np.isfinite(logits)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    alone = logits_of(config, params, tokens[::2])
    np.testing.assert_allclose(logits_of(config, params, tokens)[::2], alone, atol=1e-5 * np.abs(alone).max())


# Three options set three others, so that eight rows hold every pair of settings of any two options.
COMBINATIONS = [
    {
        "norm": ("rms", "layer")[norm],
        "positions": ("rope", "learned")[positions],
        "mlp": ("swiglu", "gelu")[mlp],
        "use_bias": bool(norm ^ positions),
        "tie_head": bool(norm ^ mlp),
        "num_kv_heads": (None, 2)[positions ^ mlp],
    }
    for norm, positions, mlp in itertools.product((0, 1), repeat=3)
]


@pytest.mark.slow
@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: "-".join(str(x) for x in options.values()))
def test_transformer_remat_and_bfloat16_agree_with_plain(options):
    config = dataclasses.replace(TINY, num_layers=1, **options)
    params, tokens = lively_params(config), draw_tokens()
    targets = jax.nn.one_hot(draw_tokens(1), config.vocab_size)

    @jax.jit
    def run(params):
        def loss_and_logits(denoiser, params):
            logits = denoiser(params, tokens)
            return -(jax.nn.log_softmax(logits) * targets).sum(axis=-1).mean(), logits

        outputs = []
        for change in ({}, {"remat": True}, {"dtype": "bfloat16"}):
            denoiser = make_denoiser(dataclasses.replace(config, **change))
            outputs.append(jax.grad(lambda p, d=denoiser: loss_and_logits(d, p), has_aux=True)(params))
        return outputs

    (gradients, logits), remat, (low_gradients, low_logits) = run(params)
    flat, low_flat = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (gradients, low_gradients))
    assert np.isfinite(flat).all()
    assert np.linalg.norm(flat) > 0
    for got, want in zip(jax.tree.leaves(remat), jax.tree.leaves((gradients, logits)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert low_logits.dtype == jnp.float32
    # bfloat16 keeps 8 bits: 2^-9 a rounding, a few of them in sequence.
    assert 0 < relative(low_logits, logits) < 0.03
    assert relative(low_flat, flat) < 0.06


@pytest.mark.slow
def test_transformer_param_dtype_is_that_of_every_parameter():
    config = dataclasses.replace(GPT2, param_dtype="bfloat16", dtype="bfloat16")
    params, tokens = lively_params(config), draw_tokens()
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    want = logits_of(dataclasses.replace(config, param_dtype="float32"), wide, tokens)
    np.testing.assert_array_equal(logits_of(config, params, tokens), want)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("config", [LLAMA, GPT2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_times_head_are_the_logits(config, dtype):
    config = dataclasses.replace(config, dtype=dtype)
    params, tokens = lively_params(config), draw_tokens()
    hidden, head = jax.jit(make_denoiser(config).features)(params, tokens)
    assert hidden.shape == (3, LENGTH, 16)
    assert head.shape == (16, 11)
    assert hidden.dtype == dtype
    assert head.dtype == jnp.float32, "so that its gradient, a sum over chunks, is one of float32"
    want = np.asarray(hidden, np.float64) @ np.asarray(head.astype(dtype), np.float64)
    np.testing.assert_allclose(logits_of(config, params, tokens), want, atol=1e-5 * np.abs(want).max())


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    ("config", "bound"),
    [
        (TINY, 1e-5),
        (dataclasses.replace(TINY, pad_id=PAD, num_kv_heads=2, head_dim=6, qk_norm=True), 1e-5),
        (dataclasses.replace(GPT2, causal=False, shift_logits=True), 1e-5),
        (dataclasses.replace(TINY, num_layers=1, remat=True), 1e-5),
        (GROUPED, 1e-5),
        (dataclasses.replace(TINY, dtype="bfloat16", param_dtype="bfloat16"), 2**-7),
    ],
    ids=["plain", "padding", "shifted", "remat", "groups", "bfloat16"],
)
def test_features_equal_those_of_all_where_they_are_read_and_leave_out_the_rest(config, bound):
    params, denoiser = lively_params(config), make_denoiser(config)
    assert isinstance(denoiser, FeatureDenoiser)
    length = config.max_length
    tokens = draw_tokens(length=length).at[0, -3:].set(PAD).at[1, :3].set(PAD)  # a whole group, too
    features = jax.jit(denoiser.features)
    whole = np.asarray(features(params, tokens).hidden, np.float32)
    for most in range(length + 1):
        is_read = np.argsort(np.random.default_rng(most).random(tokens.shape), axis=1) < most
        is_read[2] = False
        is_read[1, 0] |= most > 0
        got = np.asarray(features(params, tokens, is_read).hidden, np.float32)
        np.testing.assert_allclose(got[is_read], whole[is_read], atol=bound * np.abs(whole).max())
        assert np.isfinite(got).all()
        if most <= length // 4:
            assert not np.allclose(got, whole, atol=1e-2 * np.abs(whole).max()), "what nobody reads is not computed"


def test_features_of_a_causal_denoiser_are_all_computed():
    params, denoiser, tokens = lively_params(LLAMA), make_denoiser(LLAMA), draw_tokens()
    every = denoiser.features(params, tokens)
    np.testing.assert_array_equal(denoiser.features(params, tokens, tokens < 0).hidden, every.hidden)


@pytest.mark.slow
def test_dropout_keys_differ_repeat_and_switch_off():
    config = dataclasses.replace(GPT2, num_layers=1, dropout=0.3)
    params, tokens = lively_params(config), draw_tokens()
    first, again, second = (logits_of(config, params, tokens, dropout_key=jax.random.key(n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert relative(second, first) > 0.1
    off = logits_of(config, params, tokens)
    np.testing.assert_array_equal(off, logits_of(dataclasses.replace(config, dropout=0.0), params, tokens))
    assert relative(first, off) > 0.1


@pytest.mark.slow
def test_dropout_residual_branches_vanish_at_a_rate_near_one():
    # With all but one in a million dropped, every sub-layer's output is 0, and so is the embedding: final_norm(0).
    config = dataclasses.replace(GPT2, dropout=1 - 1e-6)
    params, tokens = lively_params(config), draw_tokens()
    got = logits_of(config, params, tokens, dropout_key=jax.random.key(0))
    want = np.asarray(params["final_norm"]["bias"]) @ np.asarray(params["token_embedding"]["embedding"])[:11].T
    np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), atol=1e-5)


def test_init_params_are_named_and_shaped_for_sharding_by_name():
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): x.shape
        for path, x in jax.tree_util.tree_leaves_with_path(lively_params(LLAMA))
    }
    layer = {
        "attention/query/kernel": (16, 16),
        "attention/key/kernel": (16, 8),
        "attention/value/kernel": (16, 8),
        "attention/output/kernel": (16, 16),
        "attention_norm/scale": (16,),
        "mlp/gate/kernel": (16, 24),
        "mlp/up/kernel": (16, 24),
        "mlp/down/kernel": (24, 16),
        "mlp_norm/scale": (16,),
    }
    want = {f"layers_{i}/{name}": shape for i in range(2) for name, shape in layer.items()}
    want |= {"token_embedding/embedding": (13, 16), "final_norm/scale": (16,), "head/kernel": (16, 11)}
    assert shapes == want
    names = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(lively_params(GPT2))
    }
    assert {"position_embedding/embedding", "final_norm/bias", "layers_0/mlp/up/bias"} <= names
    assert not any(name.startswith("head") or "/gate/" in name for name in names)


@pytest.mark.slow
def test_init_params_spreads_are_gpt2s():
    config = TransformerConfig(vocab_size=500, max_length=9, num_layers=3, num_heads=2, width=128, mlp_width=256)
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    layer = params["layers_1"]
    into_residual = 0.02 / math.sqrt(6)
    for kernel, std in (
        (params["token_embedding"]["embedding"], 0.02),
        (params["head"]["kernel"], 0.02),
        (layer["attention"]["query"]["kernel"], 0.02),
        (layer["mlp"]["up"]["kernel"], 0.02),
        (layer["attention"]["output"]["kernel"], into_residual),
        (layer["mlp"]["down"]["kernel"], into_residual),
    ):
        assert np.std(kernel) == pytest.approx(std, rel=5 / math.sqrt(2 * kernel.size))  # 5 standard errors
    np.testing.assert_array_equal(layer["mlp_norm"]["scale"], np.ones(128))
    other = jax.jit(init_params, static_argnums=0)(config, jax.random.key(1))
    assert relative(other["head"]["kernel"], params["head"]["kernel"]) > 1


@pytest.mark.thinned(3)
@pytest.mark.parametrize("config", [LLAMA, GPT2, GROUPED])
def test_num_params_counts_what_init_makes(config):
    params = lively_params(config)
    want = sum(x.size for x in jax.tree.leaves(params))
    assert num_params(config) == num_params(params) == want
    outside = 13 * 16 + {LLAMA: 16 * 11, GPT2: 8 * 16, GROUPED: 16 * 11 + 5 * 16 + 3 * 13 * 16}[config]
    assert num_params(config, embedding=False) == num_params(params, embedding=False) == want - outside


def test_denoiser_equal_configs_share_one_trace():
    traces = []

    def forward(denoiser, params, tokens):
        traces.append(denoiser)
        return denoiser(params, tokens)

    jitted = jax.jit(forward, static_argnums=0)
    params, tokens = lively_params(TINY), draw_tokens()
    first, second = make_denoiser(TINY), make_denoiser(TransformerConfig.from_json(TINY.to_json()))
    assert first is not second
    assert first == second
    assert hash(first) == hash(second)
    np.testing.assert_array_equal(jitted(first, params, tokens), jitted(second, params, tokens))
    assert len(traces) == 1
    assert make_denoiser(LLAMA) != first


def test_transformer_module_and_denoiser_agree():
    params, tokens = lively_params(TINY), draw_tokens()
    got = jax.jit(Transformer(TINY).apply)({"params": params}, tokens)
    np.testing.assert_array_equal(got, logits_of(TINY, params, tokens))


def test_transformer_shorter_sequences_are_accepted():
    config = dataclasses.replace(GPT2, causal=True)
    params, tokens = lively_params(config), draw_tokens()
    whole = logits_of(config, params, tokens)
    np.testing.assert_allclose(logits_of(config, params, tokens[:, :3]), whole[:, :3], atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("config", [TINY, LLAMA, GPT2, dataclasses.replace(TINY, shift_logits=True)])
def test_config_json_round_trip_is_equal(config):
    assert TransformerConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_config_from_json_defaults_may_be_left_out():
    required = ("vocab_size", "max_length", "num_layers", "num_heads", "width", "mlp_width")
    fields = TINY.to_json()
    assert TransformerConfig.from_json({name: fields[name] for name in required} | {"num_extra_tokens": 2}) == TINY


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    "change",
    [{}, {"num_layers": 3}, {"num_layers": 12, "tie_head": True}, {"use_bias": True, "norm": "layer", "mlp": "gelu"}],
)
def test_param_shapes_are_those_of_fresh_parameters(change):
    config = dataclasses.replace(TINY, **change)
    expected = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert param_shapes(config) == expected
    assert num_params(config) == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(expected))


def test_config_from_json_names_unknown_and_missing_keys():
    fields = TINY.to_json()
    with pytest.raises(InputError, match=r"unknown keys.*: depth, heads; known are vocab_size,"):
        TransformerConfig.from_json(fields | {"heads": 3, "depth": 2})
    del fields["width"], fields["num_layers"]
    with pytest.raises(InputError, match=r"missing keys.*: num_layers, width;"):
        TransformerConfig.from_json(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number, at least 1 and at most .*; got 0"),
        ({"num_layers": 2.0}, r"num_layers must be a whole number, at least 1 and at most .*; got 2\.0"),
        ({"num_layers": True}, "num_layers must be a whole number, at least 1 and at most .*; got True"),
        ({"max_length": None}, "max_length must be a whole number, at least 1 and at most .*; got None"),
        ({"num_extra_tokens": -1}, "num_extra_tokens must be a whole number, at least 0 and at most .*; got -1"),
        ({"num_heads": 3}, "num_heads must be a divisor of width = 16; got 3"),
        ({"num_heads": 16}, "num_heads must be such that width / num_heads = 1 is even"),
        ({"head_dim": 5}, "head_dim must be even: RoPE turns pairs; got 5"),
        ({"num_kv_heads": 3}, "num_kv_heads must be a divisor of num_heads = 4; got 3"),
        ({"num_kv_heads": 0}, "num_kv_heads must be a whole number, at least 1 and at most .*; got 0"),
        ({"num_layers": 10**6}, "num_layers must be a whole number, at least 1 and at most 1000; got 1000000"),
        ({"width": 10**5000}, "width must be a whole number, .*; got a value of type int"),
        ({"vocab_size": 2**31}, "vocab_size must be .* at most 2147483647; got 2147483648"),
        ({"num_extra_tokens": 2**31 - 11}, "num_extra_tokens must be at most .*: token ids are int32"),
        ({"width": (16,)}, r"width must be a whole number, .*; got \(16,\)"),
        ({"pad_id": True}, "pad_id must be a whole number"),
        ({"pad_id": 13}, "pad_id must be None or an embedding row, 0 to 12; got 13"),
        ({"norm": "batch"}, "norm must be one of rms, layer; got 'batch'"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16; got 'int8'"),
        ({"dtype": jnp.float32}, "dtype must be one of float32"),
        ({"mlp": ["gelu"]}, "mlp must be one of swiglu, gelu"),
        ({"causal": 1}, "causal must be True or False; got 1"),
        ({"shift_logits": 1}, "shift_logits must be True or False; got 1"),
        ({"shift_logits": True, "causal": True}, "shift_logits must be False where causal, .* got True"),
        ({"dropout": 1.0}, r"dropout must be a number, at least 0 and below 1; got 1\.0"),
        ({"dropout": "0.1"}, "dropout must be a number, at least 0 and below 1; got '0.1'"),
        ({"rope_theta": 0.0}, r"rope_theta must be a number, above 0 and .*; got 0\.0"),
        ({"init_std": math.nan}, "init_std must be a number, above 0 and .*; got nan"),
    ],
)
def test_config_invalid_field_says_what_is_wanted(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TINY, **change)


def test_config_odd_head_width_is_fine_without_rope():
    assert dataclasses.replace(TINY, num_heads=16, positions="learned").head_width == 1


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (jnp.zeros((1, LENGTH + 1), jnp.int32), "length 9 exceed max_length = 8"),
        (jnp.zeros((LENGTH,), jnp.int32), r"tokens .*\(8,\)"),
        (jnp.zeros((1, LENGTH)), "float32"),
    ],
)
def test_transformer_unusable_tokens_are_input_errors(tokens, message):
    params = lively_params(TINY)
    with pytest.raises(InputError, match=message):
        make_denoiser(TINY)(params, tokens)
