"""Confidence: what is read of p_theta, and how tokens are drawn from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding, PartitionSpec

import mdm_jax
from mdm_jax import confidence, oracles, randomness
from mdm_jax.logits import float_logits
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import BATCH, make_mesh, shardings

OPTIMIZED = {"xla_backend_optimization_level": 3}
"""For programs that draw a hundred million values."""
ROUNDING = 2 * 16 * 2**-24
"""Of a log-probability, and so relatively of a probability: of logits below 16 in size one rounding of the difference,
one of the logarithm of the sum. Of an entropy H: (1 + 1 / H) of that, below 6 where H is above 0.2."""


@functools.partial(jax.jit, static_argnames=("mask_id", "greedy"))
def _read(key, logits, temperature, mask_id, greedy):
    return mdm_jax.confidence_from_logits(key, logits, temperature=0.0 if greedy else temperature, mask_id=mask_id)


def read(logits, *, seed=0, temperature=0.0, mask_id=None):
    return _read(jax.random.key(seed), jnp.asarray(logits), float(temperature), mask_id, temperature == 0)


@pytest.mark.parametrize("mask_id", [None, 3, 50])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_confidence_of_random_logits_matches_float64(mask_id, dtype):
    logits = jnp.asarray(4 * np.random.default_rng(0).normal(size=(3, 6, 50)), dtype)
    log_p = toy.log_softmax(np.asarray(logits, np.float32), mask_id)
    p = np.exp(log_p)
    by_size = np.sort(p, axis=-1)
    got = read(logits, mask_id=mask_id)
    assert {field.dtype for field in got if field is not got.token} == {jnp.dtype("float32")}
    assert got.token.dtype == jnp.int32
    np.testing.assert_allclose(got.top_prob, by_size[..., -1], rtol=ROUNDING)
    np.testing.assert_allclose(got.second_prob, by_size[..., -2], rtol=ROUNDING)
    np.testing.assert_allclose(got.entropy, -(p * np.where(p > 0, log_p, 0)).sum(axis=-1), rtol=6 * ROUNDING)
    # bfloat16 logits tie; the lowest id of the likeliest wins, as argmax has it.
    np.testing.assert_array_equal(got.token, p.argmax(axis=-1))
    np.testing.assert_allclose(got.token_prob, by_size[..., -1], rtol=ROUNDING)
    np.testing.assert_allclose(got.token_log_prob, log_p.max(axis=-1), atol=ROUNDING)


def test_confidence_of_tied_logits_takes_the_lowest_id_and_the_tie_as_second():
    got = read([[[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 5.0, 5.0]]])
    np.testing.assert_array_equal(got.token, [[1, 0, 2]])
    np.testing.assert_array_equal(got.top_prob, got.second_prob)


def test_confidence_of_logits_tied_at_the_two_zeros_takes_the_lowest_id():
    # -0.0 == 0.0, so both ids have the same probability.
    np.testing.assert_array_equal(read([[[-0.0, 0.0, -1.0], [0.0, -0.0, -1.0]]]).token, [[0, 0]])


def test_confidence_with_the_mask_below_the_vocabulary_is_that_of_the_other_tokens():
    logits = np.random.default_rng(1).normal(size=(2, 4, 6)).astype(np.float32)
    logits[..., 2] = 50.0
    with_mask, without = read(logits, mask_id=2), read(np.delete(logits, 2, axis=-1))
    for name in ("top_prob", "second_prob", "entropy", "token_prob"):
        np.testing.assert_allclose(getattr(with_mask, name), getattr(without, name), rtol=6 * ROUNDING, err_msg=name)
    np.testing.assert_array_equal(with_mask.token, np.asarray(without.token) + (np.asarray(without.token) >= 2))
    drawn = read(np.broadcast_to(logits[:1, :1], (1, 3000, 6)), temperature=3.0, mask_id=2).token
    assert 2 not in np.asarray(drawn)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_drawn_at_a_temperature_follow_the_softmax_of_the_tempered_logits(temperature):
    logits = np.array([1.2, 0.3, -0.5, 0.9, -np.inf, -1.5, 2.0], np.float32)
    got = read(np.broadcast_to(logits, (4, 5000, 7)), temperature=temperature, mask_id=6)
    probs = np.exp(toy.log_softmax(np.where(np.arange(7) == 6, -np.inf, logits) / temperature))
    toy.assert_frequencies(got.token, probs)
    log_p = toy.log_softmax(logits, 6)  # at temperature 1 whatever the temperature of the draw
    np.testing.assert_allclose(got.token_log_prob, log_p[np.asarray(got.token)], atol=ROUNDING)
    np.testing.assert_allclose(got.token_prob, np.exp(log_p)[np.asarray(got.token)], rtol=ROUNDING)


def test_temperature_changes_the_token_and_nothing_that_is_read_of_the_network():
    logits = np.random.default_rng(2).normal(size=(2, 8, 9)).astype(np.float32)
    greedy, *drawn = (read(logits, temperature=t) for t in (0.0, 0.7, 5.0))
    for got in drawn:
        assert (np.asarray(got.token) != np.asarray(greedy.token)).any()
        for name in ("top_prob", "second_prob", "entropy"):
            np.testing.assert_allclose(getattr(got, name), getattr(greedy, name), rtol=6 * ROUNDING, err_msg=name)


def test_temperature_near_zero_draws_the_likeliest_token():
    logits = np.random.default_rng(3).normal(size=(2, 50, 9)).astype(np.float32)
    np.testing.assert_array_equal(read(logits, temperature=1e-6).token, logits.argmax(axis=-1))


def test_temperature_zero_that_is_traced_takes_the_lowest_of_tied_ids():
    logits = jnp.asarray([[[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]])
    traced = jax.jit(lambda t: mdm_jax.confidence_from_logits(jax.random.key(0), logits, temperature=t))
    np.testing.assert_array_equal(traced(0.0).token, [[1, 0]])


@pytest.mark.thinned(3)
@pytest.mark.parametrize("temperature", [0.0, 1e-46, 1.0])
def test_tokens_drawn_are_never_of_a_group_in_which_no_token_can_be(temperature):
    logits = np.random.default_rng(12).normal(size=(1, 50, 661)).astype(np.float32)
    assert confidence.group_shape(661) == (16, 42)
    logits[..., 42:126] = -np.inf
    draw = jax.jit(lambda t: mdm_jax.confidence_from_logits(jax.random.key(0), logits, temperature=t, mask_id=660))
    got = draw(temperature)
    assert np.isfinite(got.token_log_prob).all()
    assert not (np.asarray(got.token) == 660).any()
    if temperature < 1:
        np.testing.assert_array_equal(got.token, logits[..., :660].argmax(axis=-1))


def test_confidence_outside_jit_is_compiled_once_for_all_temperatures_and_keys(monkeypatch):
    traces = []
    monkeypatch.setattr(confidence, "float_logits", lambda *args: traces.append(1) or float_logits(*args))
    hidden, head = hidden_and_head(batch=2, length=5, vocab_size=77)
    for seed, temperature in enumerate((0.3, 1.0, 2.5)):
        mdm_jax.confidence_from_hidden(jax.random.key(seed), hidden, head, temperature=temperature)
    assert len(traces) == 1


def tail_draws(draw, num, vocab_size, gap):
    """How many of `num` draws are not id 0, which leads all others by `gap` nats."""
    logits = jnp.zeros(vocab_size).at[0].set(gap)
    keys = jax.random.split(jax.random.key(0), num // 10)
    batches = jax.jit(lambda keys: jax.lax.map(lambda key: draw(key, jnp.broadcast_to(logits, (10, vocab_size))), keys))
    return int((batches.lower(keys).compile(OPTIMIZED)(keys) != 0).sum())


def library_draw(key, logits):
    return mdm_jax.confidence_from_logits(key, logits[None]).token[0]


def assert_tail_is_drawn(num, vocab_size, gap, naive_num):
    from scipy import stats

    rate = (vocab_size - 1) / (vocab_size - 1 + np.exp(gap))
    low, high = stats.poisson.ppf([1e-2, 1 - 1e-5], num * rate)
    assert low >= 1, "too few draws to say anything"
    assert low <= tail_draws(library_draw, num, vocab_size, gap) <= high
    # The default Gumbel noise ends at 15.94 nats, so that the tail hardly ever wins.
    assert tail_draws(jax.random.categorical, naive_num, vocab_size, gap) < low


@pytest.mark.slow
def test_tail_of_a_large_vocabulary_beyond_float32_noise_is_drawn_at_its_rate():
    assert_tail_is_drawn(1000, 200_000, 17.5, 1000)


@pytest.mark.slow
def test_tail_of_a_large_vocabulary_18_nats_behind_is_drawn_at_its_rate():
    assert_tail_is_drawn(6000, 200_000, 18.4, 6000)


@pytest.mark.slow
def test_tokens_drawn_from_bfloat16_logits_follow_their_float32_softmax():
    # Ids 1..200 are 8 nats behind id 0, which in bfloat16 noise would come far too often or never (see PEERS 2).
    logits = np.concatenate([[8.0], np.zeros(200)])
    row = jnp.broadcast_to(jnp.asarray(logits, jnp.bfloat16), (2, 4000, 201))
    tokens = np.asarray(read(row, temperature=1.0).token)
    toy.assert_frequencies(tokens > 0, [np.exp(8) / (np.exp(8) + 200), 200 / (np.exp(8) + 200)])
    naive = jax.random.categorical(jax.random.key(0), row)
    with pytest.raises(AssertionError):
        toy.assert_frequencies(np.asarray(naive) > 0, [np.exp(8) / (np.exp(8) + 200), 200 / (np.exp(8) + 200)])


@pytest.mark.parametrize("name", ["top_prob", "margin", "neg_entropy", "token_prob"])
def test_scores_of_confident_bfloat16_logits_do_not_tie_where_a_bfloat16_softmax_would(name):
    rng = np.random.default_rng(4)
    logits = jnp.asarray(rng.normal(size=(1, 128, 32)), jnp.bfloat16)
    logits = logits.at[..., 0].set(jnp.asarray(rng.uniform(8, 11, size=(1, 128)), jnp.bfloat16))
    half = jax.nn.softmax(logits, axis=-1).max(axis=-1)
    assert (half == half.max()).sum() > 20
    scores = getattr(oracles, name)(jax.random.key(0), read(logits))
    assert scores.dtype == jnp.float32
    assert (scores == scores.max()).sum() == 1


def test_entropy_with_impossible_tokens_is_finite_and_exact():
    logits = np.full((1, 3, 4), -np.inf, np.float32)
    logits[0, 0, 1] = 0.0
    logits[0, 1, :2] = 0.0
    logits[0, 2] = [0.0, -200.0, -np.inf, 0.0]
    got = read(logits)
    np.testing.assert_allclose(got.entropy, [[0, np.log(2), np.log(2)]], atol=ROUNDING)
    np.testing.assert_array_equal(got.second_prob, [[0, 0.5, 0.5]])


def test_token_log_prob_of_a_token_too_rare_for_float32_probability_is_finite():
    # Token 1 has p = exp(-150): drawn at temperature 200 it still has its log-probability.
    row = np.broadcast_to(np.array([0.0, -150.0], np.float32), (1, 200, 2))
    got = read(row, temperature=200.0)
    token = np.asarray(got.token[0])
    assert set(token) == {0, 1}
    np.testing.assert_array_equal(np.asarray(got.token_prob[0])[token == 1], 0)
    np.testing.assert_allclose(np.asarray(got.token_log_prob[0]), np.where(token == 1, -150, 0), rtol=ROUNDING)


def test_tokens_drawn_at_a_position_do_not_depend_on_length_batch_or_neighbours():
    keys = jax.random.split(jax.random.key(6), 5)
    draw = jax.jit(mdm_jax.confidence_from_logits)
    logits = jnp.asarray(np.random.default_rng(5).normal(size=(5, 16, 8)), jnp.float32)
    whole = np.asarray(draw(keys, logits).token)
    np.testing.assert_array_equal(draw(keys[2:4], logits[2:4, :7]).token, whole[2:4, :7])
    np.testing.assert_array_equal(draw(keys[::-1], logits[::-1]).token, whole[::-1])
    changed = logits.at[:, 3].add(jnp.arange(8.0)[None])
    others = np.arange(16) != 3
    np.testing.assert_array_equal(np.asarray(draw(keys, changed).token)[:, others], whole[:, others])


@pytest.mark.slow
def test_tokens_drawn_over_several_groups_are_uniform_and_independent_of_each_other():
    tokens = np.asarray(read(np.zeros((2, 1000, 8100), np.float32), temperature=1.0).token)
    toy.assert_frequencies(tokens // 900, np.full(9, 1 / 9))
    # 31 whole groups of 254 and one of 226, whose tokens must not come more often for being fewer.
    assert confidence.group_shape(8100) == (32, 254)
    toy.assert_frequencies(tokens >= 31 * 254, [1 - 226 / 8100, 226 / 8100])
    toy.assert_frequencies(tokens % 254 < 40, [1 - 32 * 40 / 8100, 32 * 40 / 8100])


@pytest.mark.thinned(2)
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_tokens_drawn_over_groups_follow_the_softmax_of_the_tempered_logits(temperature):
    logits = np.random.default_rng(9).normal(size=700).astype(np.float32)
    logits[[5, 300, 301, 699]] += 3
    logits[256:290] = -np.inf
    p = np.exp(toy.log_softmax(logits / temperature, None))
    tokens = np.concatenate(
        [
            np.ravel(read(np.broadcast_to(logits, (4, 1500, 700)), seed=seed, temperature=temperature).token)
            for seed in (0, 1)
        ]
    )
    assert not np.isin(tokens, np.arange(256, 290)).any()
    likely = np.argsort(-p)[:8]
    kinds = np.select([tokens == token for token in likely], np.arange(8), 8 + tokens // 256)
    shares = [
        *p[likely],
        *(p[k : k + 256].sum() - p[[i for i in likely if i // 256 == k // 256]].sum() for k in (0, 256, 512)),
    ]
    toy.assert_frequencies(kinds, shares)


@pytest.mark.slow
def test_noise_reaches_beyond_the_15_94_nats_of_the_default_one_at_its_rate():
    from scipy import stats

    num, bar = 100_000_000, 15.95
    keys = jax.random.split(jax.random.key(3), num // 100_000)
    count = jax.jit(lambda keys: jax.lax.map(lambda key: (randomness.gumbel(key, 100_000) > bar).sum(), keys).sum())
    low, high = stats.poisson.ppf([1e-3, 1 - 1e-3], num * np.exp(-bar))
    assert 1 <= low <= int(count.lower(keys).compile(OPTIMIZED)(keys)) <= high


@pytest.mark.slow
@pytest.mark.parametrize(("group", "prob"), [(2, 1e-7), (2, 1e-8), (512, 1e-8)])
def test_tail_of_tiny_probability_is_drawn_at_its_rate(monkeypatch, group, prob):
    # 249 tokens of this probability each beside one: 5 are expected. Every other token cannot be, so that each is alone
    # in its group, and no group makes up for noise that ends, at 15.94 nats; or all are in one group.
    from scipy import stats

    monkeypatch.setattr(confidence, "GROUP", group)
    assert confidence.group_shape(500) == ((256, 2) if group == 2 else (1, 500))
    num = round(0.02 / prob)
    assert np.log(prob) < -15.94
    row = jnp.full(500, -jnp.inf).at[::2].set(jnp.log(prob)).at[0].set(0)
    row = jnp.broadcast_to(row, (1, 1000, 500))

    def in_batch(key):
        return (confidence.read_confidence(key[None], row, jnp.ones(()), None, None).token != 0).sum()

    keys = jax.random.split(jax.random.key(2), num // 1000)
    count = jax.jit(lambda keys: jax.lax.map(in_batch, keys).sum()).lower(keys)
    low, high = stats.poisson.ppf([1e-2, 1 - 1e-2], num * 249 * prob)
    assert 1 <= low <= int(count.compile(OPTIMIZED)(keys)) <= high


def hidden_and_head(batch=3, length=17, width=8, vocab_size=600, dtype="float32"):
    rng = np.random.default_rng(10)
    hidden, head = rng.normal(size=(batch, length, width)), rng.normal(size=(width, vocab_size))
    return jnp.asarray(hidden, dtype), jnp.asarray(head, dtype)


@pytest.fixture
def in_chunks_of(monkeypatch):
    """Call it, and nothing is read whole any more, and chunks are of so many logits at most."""

    def patch(num_logits):
        monkeypatch.setattr(confidence, "WHOLE", 0)
        monkeypatch.setattr(confidence, "CHUNK", num_logits)
        monkeypatch.setattr(confidence, "LEAST", 1)
        confidence._read.clear_cache()

    yield patch
    confidence._read.clear_cache()


@pytest.fixture(params=["whole", "chunks"])
def chunks(request, in_chunks_of):
    if request.param == "chunks":
        in_chunks_of(3 * 600 * 2)


@pytest.mark.thinned(7)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("mask_id", [None, 599, 600])
@pytest.mark.parametrize(
    ("wanted", "dtype"), [("all", "float32"), ("none", "float32"), ("some", "float32"), ("some", "bfloat16")]
)
def test_confidence_from_hidden_is_that_from_logits_where_it_is_wanted(chunks, wanted, dtype, mask_id, temperature):
    hidden, head = hidden_and_head(dtype=dtype)
    is_wanted = None
    if wanted != "all":
        share = np.array([[0.0], [0.4], [1.0]]) if wanted == "some" else 0
        is_wanted = jnp.asarray(np.random.default_rng(11).random((3, 17)) < share)
    options = {"temperature": temperature, "mask_id": mask_id}
    got = jax.jit(lambda key: mdm_jax.confidence_from_hidden(key, hidden, head, is_wanted=is_wanted, **options))(
        jax.random.key(3)
    )
    logits = np.einsum("bld,dv->blv", np.asarray(hidden, np.float64), np.asarray(head, np.float64))
    expected = read(logits.astype(np.float32), seed=3, **options)
    for name, field in got._asdict().items():
        other = np.asarray(getattr(expected, name))
        other = other if is_wanted is None else np.where(is_wanted, other, 0)
        # of a logit, at most 8 products of up to 16 are rounded: 8 * 16 * 2^-24 = 7.6e-6, and ROUNDING on top
        np.testing.assert_allclose(field, other, rtol=1e-5, atol=ROUNDING, err_msg=name)
        assert field.dtype == other.dtype


@pytest.mark.slow
@pytest.mark.eight_devices
@pytest.mark.parametrize("vocab_size", [1536, 2000, 2004, 2048, 126464])
def test_confidence_from_a_head_sharded_over_the_vocabulary_is_the_same_and_gathers_no_logits(in_chunks_of, vocab_size):
    in_chunks_of(4 * vocab_size * 16)
    hidden, head = hidden_and_head(batch=4, length=64, vocab_size=vocab_size)
    mesh = make_mesh(data=2, tensor=4)
    split = [NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), (None, "tensor"))]
    read_all = jax.jit(functools.partial(mdm_jax.confidence_from_hidden, temperature=0.7, mask_id=1500))
    placed = jax.device_put(hidden, split[0]), jax.device_put(head, split[1])
    compiled = read_all.lower(jax.random.key(1), *placed).compile()
    of_group = confidence.group_shape(vocab_size)[1]
    assert toy.largest_exchange(compiled.as_text()) <= 2 * 16 * of_group, (
        "at most a group of tokens for each position of a chunk"
    )
    for name, field in read_all(jax.random.key(1), *placed)._asdict().items():
        expected = getattr(read_all(jax.random.key(1), hidden, head), name)
        np.testing.assert_allclose(field, expected, rtol=6 * ROUNDING, atol=ROUNDING, err_msg=name)


@pytest.mark.thinned(2)
@pytest.mark.eight_devices
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.slow
def test_sampling_in_chunks_over_a_mesh_gives_the_tokens_of_one_device(in_chunks_of, temperature):
    config = TransformerConfig(
        vocab_size=1024,
        num_extra_tokens=1,
        max_length=21,
        num_layers=1,
        num_heads=4,
        width=32,
        mlp_width=64,
        init_std=0.3,
        positions="learned",  # with RoPE alone, neighbouring masks would tie
    )
    in_chunks_of(4 * 1024 * 2)
    params = init_params(config, jax.random.key(0))
    x_init = np.where(np.arange(21)[None] < np.array([[0], [5], [9], [20]]), 3, 1024).astype(np.int32)
    run = functools.partial(
        mdm_jax.sample,
        make_denoiser(config),
        mask_id=1024,
        selector=mdm_jax.TopK(5),
        temperature=temperature,
        block_length=12,
    )
    alone = run(params, jax.random.key(1), x_init)
    mesh = make_mesh(2, 2, 2)
    split = jax.tree.map(jax.device_put, params, shardings(mesh, params))
    over_mesh = run(split, jax.random.key(1), jax.device_put(x_init, NamedSharding(mesh, BATCH)))
    np.testing.assert_array_equal(over_mesh.tokens, alone.tokens)
    np.testing.assert_array_equal(over_mesh.reveal_step, alone.reveal_step)
    # of a token's 7 nats, at most 128 sums (width, MLP, width) of up to 16 in another order: 128 * 16 * 2^-24 / 7
    np.testing.assert_allclose(over_mesh.log_prob, alone.log_prob, rtol=2e-5)


def test_confidence_from_hidden_that_does_not_fit_is_refused():
    hidden, head = hidden_and_head()
    with pytest.raises(mdm_jax.InputError, match="hidden and head"):
        mdm_jax.confidence_from_hidden(jax.random.key(0), hidden, head.T)
    with pytest.raises(mdm_jax.InputError, match="is_wanted"):
        mdm_jax.confidence_from_hidden(jax.random.key(0), hidden, head, is_wanted=jnp.ones((3, 16), bool))


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("-inf")])
def test_confidence_at_an_impossible_temperature_is_refused(temperature):
    with pytest.raises(mdm_jax.InputError, match="temperature"):
        mdm_jax.confidence_from_logits(jax.random.key(0), jnp.zeros((1, 2, 3)), temperature=temperature)


def test_confidence_of_unusable_logits_or_keys_is_refused():
    for shape in [(2, 3), (1, 2, 1), (1, 1, 2, 3)]:
        with pytest.raises(mdm_jax.InputError, match="logits"):
            mdm_jax.confidence_from_logits(jax.random.key(0), jnp.zeros(shape))
    for key in [jax.random.PRNGKey(0), 0, jax.random.split(jax.random.key(0), 3)]:
        with pytest.raises(mdm_jax.InputError, match="key"):
            mdm_jax.confidence_from_logits(key, jnp.zeros((2, 2, 3)))


@pytest.mark.thinned(2)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_confidence_under_strict_promotion_and_the_key_reuse_checker_is_the_same(temperature):
    logits = jnp.asarray(np.random.default_rng(8).normal(size=(2, 3, 5)), jnp.bfloat16)
    draw = jax.jit(lambda key: mdm_jax.confidence_from_logits(key, logits, temperature=temperature, mask_id=1))
    expected = draw(jax.random.key(0))
    with jax.numpy_dtype_promotion("strict"), jax.debug_key_reuse(True):
        got = draw(jax.random.key(0))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=6 * ROUNDING)
