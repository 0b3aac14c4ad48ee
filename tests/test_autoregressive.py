"""Decoding with a cache: equal to whole forward passes and to a plain loop, exact in law, row by row; and its loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy

import mdm_jax
from mdm_jax.autoregressive import autoregressive_sample
from mdm_jax.models import kinds
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.kinds import init_params, make_decoder, make_denoiser
from mdm_jax.training.objectives import causal_loss
from mdm_jax.training.state import OptimizerConfig, init_state
from mdm_jax.training.step import make_train_step

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

B, V, L = 4, 5, 9
ROUNDING = L * 4 * 8 * 2**-24
"""Of a log-probability: L of them, below 8 nats each, summed; each off by at most four roundings of its logits."""
KEY = jax.random.key(3)
NO_TOKEN = 1 << 20
PROMPT = np.array(
    [
        [1, NO_TOKEN, -7, NO_TOKEN],
        [4, 0, 2, 2],
        [3, 3, NO_TOKEN, -1],
        [0, 1, 4, NO_TOKEN],
    ]
)
PROMPT_LENGTH = np.array([1, 4, 2, 3])
ARM = TransformerConfig(
    vocab_size=V, max_length=L + 2, num_layers=2, num_heads=4, width=16, mlp_width=24, causal=True, norm="layer",
    positions="learned", mlp="gelu", use_bias=True, tie_head=True, init_std=0.5, dropout=0.3,
)  # fmt: skip
LLAMA = TransformerConfig(
    vocab_size=V, max_length=L + 2, num_layers=1, num_heads=4, width=16, mlp_width=24, causal=True, num_kv_heads=2,
    rope_theta=500.0, init_std=0.5, remat=True, qk_norm=True, head_dim=6,
)  # fmt: skip
CONFIGS = {"learned-layer-gelu": ARM, "rope-rms-swiglu-grouped": LLAMA}


@functools.cache
def params_of(config):
    return jax.jit(init_params, static_argnums=0)(config, jax.random.key(5))


@functools.partial(jax.jit, static_argnames="denoiser")
def apply(denoiser, params, tokens):
    return denoiser(params, tokens)


class Recall:
    """A causal network whose cache is the tokens themselves; not its own equal, so that each one is traced anew."""

    def __init__(self):
        self.traces = 0

    def init_cache(self, batch, length):
        return jnp.zeros((batch, length), jnp.int32)

    def __call__(self, params, tokens, cache, start):
        self.traces += 1
        cache = jax.lax.dynamic_update_slice(cache, tokens, (jnp.zeros((), jnp.int32), start))
        queries = start + jnp.arange(tokens.shape[1], dtype=jnp.int32)
        slots = jnp.arange(cache.shape[1], dtype=jnp.int32)
        is_seen = (slots[None] <= queries[:, None]).astype(jnp.float32)
        placed = params["embed"][cache] * params["place"][None, : cache.shape[1]]
        context = jnp.einsum("tl,blw->btw", is_seen, placed)
        return jnp.tanh(context + params["embed"][tokens]) @ params["head"], cache


def recall_params(seed, num_tokens=V):
    rng = np.random.default_rng(seed)
    shapes = {"embed": (num_tokens, 6), "place": (L + 3, 6), "head": (6, num_tokens)}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


RECALL, PARAMS = Recall(), recall_params(0)


def recall_whole(params, tokens):
    return RECALL(params, tokens, RECALL.init_cache(*tokens.shape), jnp.int32(0))[0]


def recall_log_p(params, tokens):
    """log p(. | x^0..x^i) at every position i by the formula, without a cache: float64 [B, L, V]."""
    embed, place, head = (np.asarray(params[name], np.float64) for name in ("embed", "place", "head"))
    context = np.cumsum(embed[tokens] * place[: tokens.shape[1]], axis=1)
    return toy.log_softmax(np.tanh(context + embed[tokens]) @ head)


@functools.partial(jax.jit, static_argnames="greedy")
def draw(keys, position, log_p, temperature, *, greedy):
    """A token for each row, with the documented keys: fold row, fold position."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
    temperature = 0.0 if greedy else temperature
    return mdm_jax.confidence_from_logits(keys, log_p[:, None], temperature=temperature).token[:, 0]


def reference(log_p_of, keys, prompt, prompt_length, length, temperature):
    """The plain loop: a whole pass for each position."""
    tokens, log_prob = np.zeros((len(prompt), length), np.int32), np.zeros(len(prompt))
    for row, n in enumerate(prompt_length):
        tokens[row, :n] = prompt[row, :n]
    for position in range(min(prompt_length), length):
        log_p = log_p_of(tokens)[:, position - 1]
        token = draw(keys, position, jnp.asarray(log_p, jnp.float32), temperature, greedy=temperature == 0)
        for row in np.flatnonzero(position >= np.asarray(prompt_length)):
            tokens[row, position] = token[row]
            log_prob[row] += log_p[row, token[row]]
    nfe = int(prompt.shape[1] > 1) + length - min(prompt_length)
    return tokens, log_prob, nfe


def row_keys(batch=B):
    return jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(batch))


def assert_same(got, expected):
    tokens, log_prob, nfe = expected
    np.testing.assert_array_equal(got.tokens, tokens)
    np.testing.assert_allclose(got.log_prob, log_prob, atol=ROUNDING)
    assert got.nfe == nfe
    assert [x.dtype for x in got] == [jnp.int32, jnp.float32, jnp.int32]


@pytest.mark.thinned(2)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_transformer_greedy_with_cache_equals_a_whole_pass_for_each_token(config):
    params = params_of(config)

    def log_p_of(tokens):
        return toy.log_softmax(apply(make_denoiser(config), params, jnp.asarray(tokens)))

    got = autoregressive_sample(make_decoder(config), params, KEY, PROMPT, PROMPT_LENGTH, length=L)
    assert_same(got, reference(log_p_of, row_keys(), PROMPT, PROMPT_LENGTH, L, 0))
    assert len(set(np.asarray(got.tokens)[0, 1:].tolist())) > 1, "one token throughout says little about its order"


@pytest.mark.slow
def test_transformer_that_reads_its_prompt_in_groups_decodes_with_a_cache_as_with_whole_passes():
    config = tiny.grouped(ARM, num_groups=2, group_length=2)
    params, lengths = params_of(config), np.array([5, 6, 6, 5])
    prompt = np.random.default_rng(2).integers(0, V, (4, 6))

    def log_p_of(tokens):
        return toy.log_softmax(apply(make_denoiser(config), params, jnp.asarray(tokens)))

    got = autoregressive_sample(make_decoder(config), params, KEY, prompt, lengths, length=L)
    assert_same(got, reference(log_p_of, row_keys(), prompt, lengths, L, 0))
    assert jax.tree.leaves(make_decoder(config).init_cache(4, L))[0].shape == (4, 4, L - 2, 4)
    other = autoregressive_sample(make_decoder(config), params, KEY, prompt[:, [1, 0, 2, 3, 4, 5]], lengths, length=L)
    assert not np.array_equal(got.log_prob, other.log_prob)
    for row in ([5, 4, 6, 5], [0, 6, 6, 5]):
        with pytest.raises(mdm_jax.InputError, match="prompt_length must be from 5 to the prompt's 6"):
            autoregressive_sample(make_decoder(config), params, KEY, prompt, row, length=L)
    with pytest.raises(mdm_jax.InputError, match="prompt must hold at least this decoder's 5 tokens"):
        autoregressive_sample(make_decoder(config), params, KEY, prompt[:, :4], [4] * 4, length=L)
    sample = jax.jit(lambda n: autoregressive_sample(make_decoder(config), params, KEY, prompt, n, length=L))
    np.testing.assert_array_equal(sample(jnp.array([0, 7, 6, 5])).tokens, got.tokens)
    with pytest.raises(mdm_jax.InputError, match="length 4 is shorter than the 5 tokens"):
        make_decoder(config).init_cache(1, 4)
    with pytest.raises(mdm_jax.InputError, match=r"length 3 are shorter than the 2 groups of 2 .* in the first piece"):
        make_decoder(config)(params, jnp.zeros((1, 3), jnp.int32), make_decoder(config).init_cache(1, L), jnp.int32(0))
    with pytest.raises(mdm_jax.InputError, match="reads groups of tokens says nothing of these"):
        mdm_jax.causal_nll(make_denoiser(config), params, jnp.asarray(prompt, jnp.int32), bos_id=0)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("config", "dtype"), [(ARM, "float32"), (LLAMA, "float32"), (LLAMA, "bfloat16")])
def test_decoder_piece_by_piece_over_a_used_cache_equals_the_whole(config, dtype):
    params, config = params_of(config), dataclasses.replace(config, dtype=dtype)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, V, (3, L)), jnp.int32)
    decoder = make_decoder(config)
    cache = jax.tree.map(lambda x: 50 * jnp.ones_like(x), decoder.init_cache(3, L + 2))
    assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype(dtype)}
    assert {leaf.shape for leaf in jax.tree.leaves(cache)} == {(3, config.kv_heads, L + 2, config.head_width)}
    read, pieces = jax.jit(decoder), []
    for start, end in [(0, 4), (4, 5), (5, L)]:
        features, cache = read(params, tokens[:, start:end], cache, jnp.int32(start))
        pieces.append(features.hidden)
    got = np.concatenate(pieces, axis=1).astype(np.float64)
    want = np.asarray(make_denoiser(config).features(params, tokens).hidden, np.float64)
    error = 2e-6 if dtype == "float32" else 2**-8  # bfloat16 rounds an operand by up to 2^-9 of it
    assert np.linalg.norm(got - want) < error * np.linalg.norm(want)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("temperature", [0, 0.6, 1.0])
def test_sample_equals_the_plain_loop_with_the_documented_keys(temperature):
    log_p_of = functools.partial(recall_log_p, PARAMS)
    expected = reference(log_p_of, row_keys(), PROMPT, PROMPT_LENGTH, L, temperature)
    for key in (KEY, row_keys()):
        got = autoregressive_sample(RECALL, PARAMS, key, PROMPT, PROMPT_LENGTH, length=L, temperature=temperature)
        assert_same(got, expected)


@pytest.mark.slow
def test_sample_of_a_row_is_the_same_alone_without_what_stands_behind_its_prompt():
    call = functools.partial(autoregressive_sample, RECALL, PARAMS, length=L, temperature=1.0)
    together, keys = call(KEY, PROMPT, PROMPT_LENGTH), row_keys()
    for row, n in [(0, 1), (3, 3)]:
        alone = call(keys[row : row + 1], PROMPT[row : row + 1, :n], PROMPT_LENGTH[row : row + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_allclose(alone.log_prob[0], together.log_prob[row], atol=ROUNDING)
        assert alone.nfe == int(n > 1) + L - n


def test_sample_of_a_permuted_batch_with_the_rows_keys_is_permuted():
    call = functools.partial(autoregressive_sample, RECALL, PARAMS, length=L, temperature=1.0)
    permutation, keys = np.array([2, 0, 3, 1]), row_keys()
    got, permuted = call(keys, PROMPT, PROMPT_LENGTH), call(keys[permutation], PROMPT[permutation], [2, 1, 3, 4])
    np.testing.assert_array_equal(permuted.tokens, got.tokens[permutation])
    np.testing.assert_allclose(permuted.log_prob, got.log_prob[permutation], atol=ROUNDING)


def test_sample_follows_the_exact_law_of_the_model():
    number, prompt_length = 4000, 2
    params = recall_params(5, num_tokens=3)
    prompt = np.tile([[1, 2]], (number, 1))
    got = autoregressive_sample(RECALL, params, KEY, prompt, np.full(number, 2), length=5, temperature=1.0)
    ends = toy.sequences(3, 3)
    whole = np.concatenate([np.tile(prompt[:1], (len(ends), 1)), ends], axis=1)
    log_p = np.take_along_axis(recall_log_p(params, whole)[:, :-1], whole[:, 1:, None], axis=-1)[..., 0]
    probs = np.exp(log_p[:, prompt_length - 1 :].sum(axis=1))
    assert probs.max() < 0.5, "else the law is hardly a law"
    drawn = np.asarray(got.tokens)[:, prompt_length:] @ [9, 3, 1]
    toy.assert_frequencies(drawn, probs)
    np.testing.assert_allclose(got.log_prob, np.log(probs)[drawn], atol=ROUNDING)


def test_log_prob_is_the_causal_score_of_the_result_at_temperature_one():
    got = autoregressive_sample(RECALL, PARAMS, KEY, PROMPT, PROMPT_LENGTH, length=L, temperature=0.6)
    batch = {"tokens": got.tokens, "is_prompt": jnp.arange(L)[None] < jnp.asarray(PROMPT_LENGTH)[:, None]}
    nll = nll_of(recall_whole, PARAMS, batch)
    np.testing.assert_allclose(got.log_prob, -nll, atol=ROUNDING)
    assert (nll > 0.1).all()


def test_sample_of_whole_prompts_gives_them_back_and_reads_them_once():
    prompt = np.resize(np.arange(V), (B, L))
    got = autoregressive_sample(RECALL, PARAMS, KEY, prompt, np.full(B, L), length=L)
    np.testing.assert_array_equal(got.tokens, prompt)
    np.testing.assert_array_equal(got.log_prob, np.zeros(B))
    assert got.nfe == 1


def test_sample_with_other_keys_prompts_temperatures_and_parameters_is_traced_once():
    decoder, results, traces = Recall(), set(), set()
    for i in range(6):
        result = autoregressive_sample(
            decoder,
            PARAMS if i % 2 else recall_params(7),
            jax.random.key(i),
            np.roll(np.resize([1, 2, 3], (B, 4)), i),
            np.roll(PROMPT_LENGTH, i),
            length=L,
            temperature=[0.5, 1, 2.0][i % 3],
        )
        results.add(np.asarray(result.tokens).tobytes())
        traces.add(decoder.traces)
    assert traces == {2}, "once for the prompts, once for a step"
    assert len(results) == 6


@pytest.mark.slow
@pytest.mark.eight_devices
def test_sample_sharded_over_eight_devices_equals_one_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = (row_keys(16), jnp.asarray(np.resize(PROMPT, (16, 4))), jnp.asarray(np.resize(PROMPT_LENGTH, 16)))
    one = autoregressive_sample(RECALL, PARAMS, *arguments, length=L, temperature=1.0)
    eight = autoregressive_sample(
        RECALL, jax.device_put(PARAMS, everywhere), *jax.device_put(arguments, rows), length=L, temperature=1.0
    )
    np.testing.assert_array_equal(eight.tokens, one.tokens)
    np.testing.assert_allclose(eight.log_prob, one.log_prob, atol=ROUNDING)


def test_sample_under_jit_takes_prompt_lengths_outside_for_the_nearest_inside():
    call = functools.partial(autoregressive_sample, RECALL, PARAMS, KEY, np.clip(PROMPT, 0, V - 1), length=L)
    got = jax.jit(call)(jnp.array([-3, 4, 9, 0]))
    jax.tree.map(np.testing.assert_array_equal, got, call(np.array([1, 4, 4, 1])))


@pytest.mark.thinned(2)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sample_under_the_key_reuse_checker_and_strict_promotion_is_clean(temperature):
    with jax.debug_key_reuse(True), jax.numpy_dtype_promotion("strict"):
        autoregressive_sample(
            Recall(), PARAMS, jax.random.key(0), PROMPT, PROMPT_LENGTH, length=L, temperature=temperature
        )


class Broken(Recall):
    """A Recall whose answer is replaced."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def __call__(self, params, tokens, cache, start):
        return self.change(*super().__call__(params, tokens, cache, start))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": PROMPT[0]}, r"prompt must be tokens of shape \[batch, length\], got shape \(4,\)"),
        ({"prompt": PROMPT.astype(np.float32)}, "prompt must hold integer token ids, got dtype float32"),
        ({"prompt": PROMPT[:, :0]}, "prompt must hold at least one row of at least one position"),
        ({"prompt_length": 3}, r"prompt_length must be integers of shape \(4,\), got int32 \(\)"),
        ({"prompt_length": PROMPT_LENGTH[:3]}, r"prompt_length must be integers of shape \(4,\), got int32 \(3,\)"),
        ({"prompt_length": PROMPT_LENGTH / 1}, "prompt_length must be integers .* got float32"),
        ({"prompt_length": [1, 2, 5, 3]}, "prompt_length must be from 1 to the prompt's 4, got 5"),
        ({"prompt_length": [1, 0, 4, 3]}, "prompt_length must be from 1 to the prompt's 4, got 0"),
        ({"length": 3}, "length must be a whole number, at least the prompt's 4; got 3"),
        ({"length": 9.0}, r"length must be a whole number, at least the prompt's 4; got 9\.0"),
        ({"decoder": make_decoder(ARM), "length": L + 3}, "a sequence of length 12 exceeds max_length = 11"),
        ({"decoder": make_denoiser(ARM)}, "decoder must be callable and have init_cache"),
        ({"temperature": -1}, "temperature must be at least 0 and at most .*, got -1"),
        ({"key": 0}, "key must be a typed key"),
        ({"key": row_keys(3)}, r"one per row \(4\)"),
        ({"decoder": Broken(lambda logits, cache: (logits[:, 0], cache))}, r"the decoder must give float logits of"),
        ({"decoder": Broken(lambda logits, cache: (logits[..., :1], cache))}, "at least 2 tokens"),
        ({"decoder": Broken(lambda logits, cache: (logits, cache[:, 1:]))}, "the decoder must return a cache of"),
        ({"decoder": Broken(lambda logits, cache: (logits, (cache,)))}, "the decoder must return a cache of"),
    ],
)
def test_sample_with_unusable_input_is_refused_and_told_why(changes, message):
    usual = {"decoder": RECALL, "key": KEY, "prompt": PROMPT, "prompt_length": PROMPT_LENGTH, "length": L}
    with pytest.raises(mdm_jax.InputError, match=message) as caught:
        autoregressive_sample(params=PARAMS, **(usual | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"causal": False, "shift_logits": True}, "shift_logits = False"),
        ({"pad_id": 0}, "pad_id = None, not 0"),
        ({"causal": False, "positions": "learned", "num_groups": 2, "group_length": 2}, "only a causal model"),
    ],
)
def test_decoder_of_a_model_that_cannot_decode_is_refused(change, message):
    with pytest.raises(mdm_jax.InputError, match=message):
        make_decoder(kinds.adapted(LLAMA, change | ({"kind": "grouped_transformer"} if "num_groups" in change else {})))


# The loss that such a model is trained with.


@functools.partial(jax.jit, static_argnames="denoiser")
def nll_of(denoiser, params, batch):
    loss = causal_loss()
    return loss.nll(denoiser, params, loss.draw(jax.random.key(0), batch), paired=False)


@pytest.mark.parametrize("by_features", [False, True])
def test_causal_loss_is_the_sum_of_log_softmax_at_the_position_before(by_features):
    tokens = np.random.default_rng(1).integers(0, V, (B, L))
    is_prompt = np.random.default_rng(2).random((B, L)) < 0.5
    is_prompt[0], is_prompt[1] = True, False
    batch = {"tokens": jnp.asarray(tokens), "is_prompt": jnp.asarray(is_prompt)}
    if by_features:
        params, denoiser = params_of(ARM), make_denoiser(ARM)
        log_p = toy.log_softmax(apply(make_denoiser(ARM), params, batch["tokens"]))
    else:
        params, denoiser, log_p = PARAMS, recall_whole, recall_log_p(PARAMS, tokens)
    want = np.zeros(B)
    for row, position in np.argwhere(~is_prompt):
        if position > 0:
            want[row] -= log_p[row, position - 1, tokens[row, position]]
    got = nll_of(denoiser, params, batch)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=ROUNDING)
    assert got[0] == 0


def test_causal_loss_of_a_token_has_no_gradient_to_itself_or_what_follows():
    params = recall_params(0, num_tokens=L)
    tokens = jnp.arange(L, dtype=jnp.int32)[None]  # each position has a token of its own

    def nll(embed, position):
        batch = {"tokens": tokens, "is_prompt": jnp.arange(L)[None] != position}
        return nll_of(recall_whole, params | {"embed": embed}, batch)[0]

    gradient = jax.jit(jax.vmap(jax.grad(nll), (None, 0)))(params["embed"], jnp.arange(L))
    size = np.abs(gradient).sum(axis=-1)  # [position scored, position of the token]
    assert (size[np.triu_indices(L)] == 0).all()
    assert (size[np.tril_indices(L, -1)] > 0).all()


@pytest.mark.slow
def test_causal_loss_trains_a_model_that_then_continues_its_prompts():
    config, mesh = dataclasses.replace(tiny.CONFIG, causal=True), tiny.one_device()
    optimizer = OptimizerConfig(num_steps=60, warmup_steps=5, learning_rate=2e-2)
    init = functools.partial(init_params, config)
    step = make_train_step(make_denoiser(config), init, causal_loss(), optimizer, mesh, accumulate=2)
    state = init_state(mesh, init, 0, optimizer)
    batch = {name: jnp.asarray(x) for name, x in tiny.to_batch({"tokens": tiny.data()["tokens"][:28]}).items()}
    first = None
    for _ in range(60):
        state, metrics = step(state, batch)
        first = first or float(metrics["loss_per_token"])
    assert first == pytest.approx(np.log(8), rel=0.2), "nats per free token, of 8 kinds"
    digits = np.arange(1, 8)
    got = autoregressive_sample(make_decoder(config), state.params, KEY, digits[:, None], np.ones(7, int), length=6)
    np.testing.assert_array_equal(got.tokens, np.tile(digits[:, None], (1, 6)))
    assert (np.asarray(got.log_prob) > np.log(0.8)).all()
