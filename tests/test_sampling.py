"""The sampler: equal to a plain Python loop, exact in law, independent row by row, compiled once."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

import mdm_jax
from mdm_jax import loop as unmasking
from mdm_jax import oracles, sampling
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import TransformerConfig, init_params
from mdm_jax.sampling import Whole

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

B, L, V, MASK = 5, 7, 5, toy.MASK
PARAMS = toy.net_params(0)
KEY = jax.random.key(11)
ORACLES = {
    "random": oracles.random,
    "margin": oracles.margin,
    "token_prob": oracles.token_prob,
    "noisy margin": mdm_jax.with_noise(oracles.margin, 0.3),
}
SELECTORS = [
    mdm_jax.PerStep(2),
    mdm_jax.TopK(3),
    mdm_jax.TopK(9, mdm_jax.Cosine()),
    mdm_jax.Binomial(4),
    mdm_jax.Threshold(0.55),
    mdm_jax.EntropyBudget(0.9),
]
M = MASK
X_INIT = np.array(
    [
        [M, M, M, M, M, M, M],
        [0, 1, 2, 3, 4, 0, 1],
        [M, 3, M, M, 1, M, 2],
        [2, 2, 2, 2, M, 2, 2],
        [4, M, M, 0, 0, M, M],
    ],
    np.int32,
)
sample = functools.partial(mdm_jax.sample, toy.context_net, PARAMS, mask_id=MASK)


# The plain loop, from DESIGN.md's semantics.


@functools.partial(jax.jit, static_argnames="greedy")
def network_and_draws(keys, iteration, tokens, temperature, *, greedy):
    """The draws of one iteration with the documented keys: fold row, fold iteration, split in plan, token, score."""
    step_keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, iteration), 3))(keys)
    confidence = mdm_jax.confidence_from_logits(
        step_keys[:, 1], toy.context_net(PARAMS, tokens), temperature=0.0 if greedy else temperature
    )

    def row_scores(oracle):
        def score(key, row):
            return oracle(key, jax.tree.map(lambda field: field[None], row))[0]

        return jax.vmap(score)(step_keys[:, 2], confidence)

    return step_keys[:, 0], confidence, {name: row_scores(oracle) for name, oracle in ORACLES.items()}


binomial_plan = jax.jit(lambda selector, keys, j, n_0, left: selector.plan(keys, j, n_0, left))


def planned_number(selector, row_plan, j, n_0, left):
    if isinstance(selector, mdm_jax.PerStep):
        return min(selector.k, left)
    if isinstance(selector, mdm_jax.TopK):
        s = 1 - j / selector.num_steps
        masked = math.cos(math.pi * (1 - s) / 2) if selector.schedule == mdm_jax.Cosine() else s
        return left - math.floor(n_0 * masked + 1e-4 + 1e-6 * n_0)
    return row_plan


def chosen_positions(selector, order, scores, entropy, num_reveal):
    if num_reveal is not None:
        return order[:num_reveal]
    if isinstance(selector, mdm_jax.Threshold):
        return [i for rank, i in enumerate(order) if rank == 0 or scores[i] >= selector.tau]
    longest = 1
    for n in range(1, len(order) + 1):
        prefix = entropy[order[:n]].astype(np.float64)
        if prefix.sum() - prefix.max() <= selector.gamma:
            longest = n
    return order[:longest]


def reference(keys, x_init, oracle, selector, block_length, temperature):
    batch, length = x_init.shape
    tokens, reveal_step = x_init.copy(), np.full(x_init.shape, -1)
    log_prob, nfe, iteration = np.zeros(batch), 0, 0
    block, j, n_0 = [None] * batch, [0] * batch, [0] * batch
    width = block_length or length
    while (tokens == MASK).any():
        is_open = np.zeros(x_init.shape, bool)
        for row in range(batch):
            masks = np.flatnonzero(tokens[row] == MASK)
            if len(masks):
                is_open[row, masks] = masks // width == masks[0] // width
                if masks[0] // width == block[row]:
                    j[row] += 1
                else:
                    block[row], j[row], n_0[row] = masks[0] // width, 1, int(is_open[row].sum())
        left = is_open.sum(axis=-1)
        plan_keys, confidence, scores = network_and_draws(keys, iteration, tokens, temperature, greedy=temperature == 0)
        confidence, scores = jax.tree.map(np.asarray, (confidence, scores[oracle]))
        iteration += 1
        planned = [None] * batch
        if not isinstance(selector, (mdm_jax.Threshold, mdm_jax.EntropyBudget)):
            counts = [0] * batch
            if isinstance(selector, mdm_jax.Binomial):
                counts = binomial_plan(selector, plan_keys, *(np.asarray(x, np.int32) for x in (j, n_0, left)))
            planned = [planned_number(selector, int(counts[r]), j[r], n_0[r], int(left[r])) for r in range(batch)]
            planned = [count if left[row] else 0 for row, count in enumerate(planned)]
            if not any(planned):
                continue
        for row in range(batch):
            order = sorted(np.flatnonzero(is_open[row]), key=lambda i: (-scores[row, i], i))
            if not order:
                continue
            for i in chosen_positions(selector, order, scores[row], confidence.entropy[row], planned[row]):
                tokens[row, i], reveal_step[row, i] = confidence.token[row, i], nfe
                log_prob[row] += confidence.token_log_prob[row, i]
        nfe += 1
    return tokens, reveal_step, log_prob, nfe


def row_keys(batch=B):
    return jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(batch))


def assert_same(got, expected):
    tokens, reveal_step, log_prob, nfe = expected
    np.testing.assert_array_equal(got.tokens, tokens)
    np.testing.assert_array_equal(got.reveal_step, reveal_step)
    assert got.nfe == nfe
    np.testing.assert_allclose(got.log_prob, log_prob, atol=1e-5)
    assert (got.tokens.dtype, got.reveal_step.dtype, got.log_prob.dtype, got.nfe.dtype) == (
        jnp.int32,
        jnp.int32,
        jnp.float32,
        jnp.int32,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of several planning selectors, by a traced index, so that one compilation serves them all."""

    which: int
    selectors: tuple

    def plan(self, key, j, n_0, left):
        return jnp.stack([selector.plan(key, j, n_0, left) for selector in self.selectors])[self.which]

    def choose(self, scores, confidence, is_open, num_reveal):
        return self.selectors[0].choose(scores, confidence, is_open, num_reveal)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EitherOf:
    """One of several selectors that choose after the network, by a traced index."""

    which: int
    selectors: tuple

    def plan(self, key, j, n_0, left):
        return None

    def choose(self, scores, confidence, is_open, num_reveal):
        chosen = [selector.choose(scores, confidence, is_open, None) for selector in self.selectors]
        return jnp.stack(chosen)[self.which]


# Oracles are pure functions with tests of their own; to the loop they differ in whether they draw. So the plain loop is
# compared for one of each kind with every selector, and for every selector by itself.


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("name", "block_length"), [("random", 3), ("margin", None)])
def test_sample_greedy_with_every_selector_equals_the_plain_loop(name, block_length):
    for group, class_ in ((SELECTORS[:3], OneOf), (SELECTORS[4:], EitherOf)):
        for which, selector in enumerate(group):
            got = sample(
                KEY,
                X_INIT,
                oracle=ORACLES[name],
                selector=class_(which, tuple(group)),
                temperature=0.0,
                block_length=block_length,
            )
            assert_same(got, reference(row_keys(), X_INIT, name, selector, block_length, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "block_length"), [("random", None), ("noisy margin", 3)])
def test_sample_at_temperature_one_with_every_planning_selector_equals_the_plain_loop(name, block_length):
    for which, selector in enumerate(SELECTORS[:3]):
        options = {"oracle": ORACLES[name], "block_length": block_length, "temperature": 1.0}
        got = sample(KEY, X_INIT, selector=OneOf(which, tuple(SELECTORS[:3])), **options)
        assert_same(got, reference(row_keys(), X_INIT, name, selector, block_length, 1.0))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("selector", SELECTORS, ids=str)
def test_sample_with_each_selector_itself_in_blocks_at_temperature_two_equals_the_plain_loop(selector):
    got = sample(KEY, X_INIT, oracle=ORACLES["token_prob"], selector=selector, temperature=2.0, block_length=3)
    assert_same(got, reference(row_keys(), X_INIT, "token_prob", selector, 3, 2.0))


@pytest.mark.slow
def test_sample_greedy_with_binomial_equals_the_plain_loop():
    got = sample(KEY, X_INIT, oracle=ORACLES["margin"], selector=SELECTORS[3], temperature=0.0)
    assert_same(got, reference(row_keys(), X_INIT, "margin", SELECTORS[3], None, 0.0))


def test_sample_with_the_mask_inside_the_vocabulary_equals_the_same_net_with_the_mask_renamed():
    # Ids 0, 1, [2 = mask], 3, 4, 5 become 0, 1, [5 = mask], 2, 3, 4; the mask's logit is the highest of all.
    renamed = np.array([0, 1, 5, 2, 3, 4])
    inside = toy.net_params(3, vocab_size=6)
    above = inside | {
        "embed": inside["embed"].at[renamed].set(inside["embed"][:6]),
        "head": jnp.delete(inside["head"], 2, axis=1),
    }
    inside["head"] = inside["head"].at[:, 2].multiply(30)
    x_init = np.argsort(renamed)[X_INIT].astype(np.int32)
    options = {"oracle": oracles.neg_entropy, "selector": mdm_jax.PerStep(2), "temperature": 0.0}
    got = mdm_jax.sample(toy.context_net, inside, KEY, x_init, mask_id=2, **options)
    expected = mdm_jax.sample(toy.context_net, above, KEY, X_INIT, mask_id=5, **options)
    assert 2 not in np.asarray(got.tokens)
    np.testing.assert_array_equal(renamed[np.asarray(got.tokens)], expected.tokens)
    np.testing.assert_array_equal(got.reveal_step, expected.reveal_step)
    np.testing.assert_allclose(got.log_prob, expected.log_prob, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    masks=st.lists(st.lists(st.booleans(), min_size=L, max_size=L), min_size=B, max_size=B),
    seed=st.integers(0, 2**31 - 1),
    which=st.integers(0, 2),
)
def test_sample_of_any_masks_leaves_prompts_untouched_and_no_mask(masks, seed, which):
    is_masked = np.array(masks)
    given_tokens = np.random.default_rng(seed).integers(0, V, (B, L))
    x_init = np.where(is_masked, MASK, given_tokens).astype(np.int32)
    got = sample(
        jax.random.key(seed), x_init, selector=OneOf(which, tuple(SELECTORS[:3])), block_length=3, temperature=1.0
    )
    tokens, reveal_step = np.asarray(got.tokens), np.asarray(got.reveal_step)
    np.testing.assert_array_equal(tokens[~is_masked], x_init[~is_masked])
    assert ((tokens >= 0) & (tokens < V)).all()
    np.testing.assert_array_equal(reveal_step == -1, ~is_masked)
    assert got.nfe == reveal_step.max() + 1
    assert set(range(int(got.nfe))) == set(reveal_step[is_masked].tolist()), "a network call revealed nothing"
    np.testing.assert_array_equal(np.asarray(got.log_prob) == 0, ~is_masked.any(axis=-1))


def test_sample_of_a_batch_without_masks_calls_no_network():
    x_init = np.ones((B, L), np.int32)
    for selector in (OneOf(0, tuple(SELECTORS[:3])), EitherOf(0, tuple(SELECTORS[4:]))):
        got = sample(KEY, x_init, selector=selector, temperature=0.0)
        np.testing.assert_array_equal(got.tokens, x_init)
        np.testing.assert_array_equal(got.reveal_step, -1)
        np.testing.assert_array_equal(got.log_prob, 0)
        assert got.nfe == 0


STOCHASTIC = {"oracle": ORACLES["noisy margin"], "selector": mdm_jax.TopK(3), "temperature": 1.0, "block_length": 3}


@pytest.mark.slow
def test_sample_of_a_permuted_batch_with_the_rows_keys_is_permuted():
    keys, permutation = jax.random.split(KEY, B), np.array([3, 0, 4, 1, 2])
    got, permuted = sample(keys, X_INIT, **STOCHASTIC), sample(keys[permutation], X_INIT[permutation], **STOCHASTIC)
    np.testing.assert_array_equal(permuted.tokens, got.tokens[permutation])
    np.testing.assert_allclose(permuted.log_prob, got.log_prob[permutation], atol=1e-6)
    greedy = {"oracle": oracles.margin, "selector": mdm_jax.PerStep(2), "temperature": 0.0}
    got, permuted = sample(KEY, X_INIT, **greedy), sample(KEY, X_INIT[permutation], **greedy)
    np.testing.assert_array_equal(permuted.tokens, got.tokens[permutation])


def test_sample_with_one_key_equals_one_key_per_row_folded_from_it():
    one, many = sample(KEY, X_INIT, **STOCHASTIC), sample(row_keys(), X_INIT, **STOCHASTIC)
    jax.tree.map(np.testing.assert_array_equal, one, many)


def test_sample_of_a_row_is_the_same_alone_in_another_batch_and_padded():
    together = sample(KEY, X_INIT, **STOCHASTIC)
    keys = row_keys()
    alone = sample(keys[4:5], X_INIT[4:5], **STOCHASTIC)
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[4])
    np.testing.assert_allclose(alone.log_prob[0], together.log_prob[4], atol=1e-5)
    others = X_INIT.copy()
    others[:4] = np.roll(X_INIT[:4], 1, axis=0)
    np.testing.assert_array_equal(sample(KEY, others, **STOCHASTIC).tokens[4], together.tokens[4])
    padded = sample(KEY, np.pad(X_INIT, ((0, 0), (0, 4)), constant_values=toy.PAD), **STOCHASTIC)
    np.testing.assert_array_equal(padded.tokens[:, :L], together.tokens)
    np.testing.assert_array_equal(padded.tokens[:, L:], toy.PAD)
    np.testing.assert_array_equal(padded.reveal_step[:, :L], together.reveal_step)
    np.testing.assert_allclose(padded.log_prob, together.log_prob, atol=1e-5)


@pytest.mark.eight_devices
def test_sample_sharded_over_eight_devices_equals_one_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x_init = np.resize(X_INIT, (16, L))
    x_init[5:] = np.where(np.random.default_rng(0).random((11, L)) < 0.6, MASK, x_init[5:] % V)
    keys = row_keys(16)
    one = sample(keys, jnp.asarray(x_init), **STOCHASTIC)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    params = jax.device_put(PARAMS, everywhere)
    sharded_x = jax.device_put(jnp.asarray(x_init), rows)
    sharded_keys = jax.device_put(keys, rows)
    eight = mdm_jax.sample(toy.context_net, params, sharded_keys, sharded_x, mask_id=MASK, **STOCHASTIC)
    assert len(eight.tokens.sharding.device_set) == 8
    np.testing.assert_array_equal(eight.tokens, one.tokens)
    np.testing.assert_array_equal(eight.reveal_step, one.reveal_step)
    np.testing.assert_allclose(eight.log_prob, one.log_prob, atol=1e-5)
    assert eight.nfe == one.nfe


class TracedNet:
    """`context_net` that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, params, tokens):
        self.traces += 1
        return toy.context_net(params, tokens)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "selectors",
    [
        [mdm_jax.PerStep(1), mdm_jax.PerStep(3)],
        [mdm_jax.TopK(2), mdm_jax.TopK(5, mdm_jax.Linear()), mdm_jax.TopK(50)],
        [mdm_jax.Binomial(2), mdm_jax.Binomial(7)],
        [mdm_jax.Threshold(0.2), mdm_jax.Threshold(0.9)],
        [mdm_jax.EntropyBudget(0.0), mdm_jax.EntropyBudget(1.5)],
    ],
    ids=lambda selectors: type(selectors[0]).__name__,
)
def test_sample_with_other_numbers_keys_and_parameters_is_traced_once(selectors):
    net, results = TracedNet(), []
    for i, (selector, temperature) in enumerate(itertools.product(selectors, [1.0, 0.5, 2])):
        results.append(
            mdm_jax.sample(
                net,
                PARAMS if i % 2 else toy.net_params(7),
                jax.random.key(i),
                X_INIT if i % 3 else np.roll(X_INIT, 1, axis=0),
                mask_id=MASK,
                oracle=mdm_jax.with_noise(oracles.margin, 0.2),
                selector=selector,
                temperature=temperature,
            ).tokens
        )
    assert net.traces == 1
    assert len({np.asarray(tokens).tobytes() for tokens in results}) > 1


def test_selectors_of_equal_fields_are_different_programs_to_jit(monkeypatch):
    # Running both would show a mix-up in one pair of fifty only, so what jit is told is compared.
    seen = []
    monkeypatch.setattr(sampling, "_decode", lambda loop, *args, **static: [seen.append((loop, static))])
    for selector in (mdm_jax.TopK(4), mdm_jax.Binomial(4), mdm_jax.TopK(5)):
        sample(KEY, X_INIT, selector=selector)
    assert seen[0] != seen[1]
    assert seen[0] == seen[2]


def test_sample_again_with_another_static_choice_is_traced_anew_and_then_no_more():
    net = TracedNet()
    call = functools.partial(mdm_jax.sample, net, PARAMS, mask_id=MASK, oracle=oracles.top_prob)
    for key in range(2):
        call(jax.random.key(key), X_INIT, temperature=0)
        call(jax.random.key(key), X_INIT, temperature=0.0)
    assert net.traces == 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Weighted:
    """An oracle with a number of its own, as a learned one has."""

    weight: jax.Array

    def __call__(self, key, confidence):
        return self.weight * confidence.top_prob


def test_oracle_with_numbers_is_traced_and_another_number_compiles_nothing():
    net = TracedNet()
    options = {"mask_id": MASK, "selector": mdm_jax.PerStep(1), "temperature": 0.0}
    for oracle, sign in ((Weighted, 1.0), (lambda weight: mdm_jax.with_noise(Weighted(weight), 0.0), 1.0)):
        traces = net.traces
        best = mdm_jax.sample(net, PARAMS, KEY, X_INIT, oracle=oracle(jnp.float32(sign)), **options)
        worst = mdm_jax.sample(net, PARAMS, KEY, X_INIT, oracle=oracle(jnp.float32(-sign)), **options)
        assert net.traces == traces + 1
        want = sample(KEY, X_INIT, oracle=oracles.top_prob, selector=mdm_jax.PerStep(1), temperature=0.0)
        np.testing.assert_array_equal(best.reveal_step, want.reveal_step)
        assert (np.asarray(worst.reveal_step) != want.reveal_step).any()


def test_oracle_that_wants_hidden_states_gets_those_of_its_row():
    def loudest(key, confidence, hidden):
        return jnp.abs(hidden).sum(axis=-1)

    loudest.wants_hidden = True
    hidden = np.abs(np.asarray(toy.features_net(PARAMS, jnp.asarray(X_INIT)).hidden)).sum(axis=-1)
    got = mdm_jax.sample(toy.features_net, PARAMS, KEY, X_INIT, mask_id=MASK, oracle=loudest)
    first = np.argmax(np.where(X_INIT == MASK, hidden, -np.inf), axis=-1)
    for row in np.flatnonzero((X_INIT == MASK).any(axis=-1)):
        assert got.reveal_step[row, first[row]] == 0
    with pytest.raises(mdm_jax.InputError, match="asks for hidden states"):
        mdm_jax.sample(toy.context_net, PARAMS, KEY, X_INIT, mask_id=MASK, oracle=loudest)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("block_length", [None, 3])
def test_steps_by_hand_are_those_of_the_sampler(block_length):
    loop = unmasking.Loop(Whole(toy.context_net), MASK, block_length or L)
    keys, selector, state = row_keys(), mdm_jax.PerStep(1), unmasking.init(loop, jnp.asarray(X_INIT))
    step = jax.jit(functools.partial(unmasking.step, loop, PARAMS, selector, oracles.margin))
    calls = [state.nfe]
    while unmasking.is_unfinished(loop, selector, state).any():
        state = step(keys, state)
        calls.append(int(state.nfe))
    want = sample(KEY, X_INIT, selector=selector, temperature=0.0, block_length=block_length)
    np.testing.assert_array_equal(state.tokens, want.tokens)
    np.testing.assert_array_equal(state.reveal_step, want.reveal_step)
    np.testing.assert_allclose(state.log_prob.sum(axis=-1), want.log_prob, atol=1e-5)
    assert calls == list(range(int(want.nfe) + 1))


def test_top_k_with_more_steps_than_masks_calls_the_network_once_a_reveal():
    # 3 and 2 masks in 10 steps: a row reveals whenever floor(n_0 (1 - j/10)) falls.
    x_init = np.array([[M, M, M, 0, 0, 0], [0, M, 0, M, 0, 0], [0] * 6, [0] * 6], np.int32)
    got = sample(KEY, x_init, selector=mdm_jax.TopK(10), temperature=0.0)
    left = [[math.floor(n * (10 - j) / 10 + 1e-3) for j in range(11)] for n in (3, 2)]
    drops = [{j for j in range(1, 11) if row[j] < row[j - 1]} for row in left]
    calls = sorted(drops[0] | drops[1])
    assert got.nfe == len(calls)
    assert sorted(np.asarray(got.reveal_step[0, :3]).tolist()) == [calls.index(j) for j in sorted(drops[0])]
    assert sorted(np.asarray(got.reveal_step[1, [1, 3]]).tolist()) == [calls.index(j) for j in sorted(drops[1])]


def test_top_k_of_rows_with_other_mask_counts_paces_each_row_by_its_own():
    # One K for the batch would empty the short row first or starve the long one.
    x_init = np.array([[M] * 6, [M, M, 0, 0, 0, 0], [M, M, M, M, 0, 0], [0, 0, 0, 0, 0, 1]], np.int32)
    got = sample(KEY, x_init, selector=mdm_jax.TopK(2), temperature=0.0)
    per_call = [[int((np.asarray(row) == call).sum()) for call in range(2)] for row in got.reveal_step]
    assert got.nfe == 2
    assert per_call == [[3, 3], [1, 1], [2, 2], [0, 0]]


def sample_tokens(joint_net, params, rows, x_row, *, mask_id, seed=0, **options):
    """`rows` independent samples of one initial row."""
    x_init = jnp.broadcast_to(jnp.asarray(x_row, jnp.int32), (rows, len(x_row)))
    return mdm_jax.sample(joint_net, params, jax.random.key(seed), x_init, mask_id=mask_id, **options)


def code(tokens, num_values):
    return np.asarray(tokens) @ (num_values ** np.arange(tokens.shape[1])[::-1])


@functools.cache
def tiny_conditionals():
    """p_theta(. | x) of a net that is no model of any joint, for every state of two tokens and a mask at L = 3."""
    params = toy.net_params(5, vocab_size=2, scale=2.0)
    states = toy.sequences(3, 3)
    logits = jax.jit(toy.context_net)(params, jnp.asarray(states, jnp.int32))
    return params, {tuple(s): p for s, p in zip(states.tolist(), np.exp(toy.log_softmax(logits)), strict=True)}


def add(law, state, prob):
    if prob > 0:
        law[state] = law.get(state, 0) + prob


def fill(state, revealed, conditionals):
    """All ways to fill the revealed positions independently: [(state, probability)]."""
    for values in itertools.product(range(2), repeat=len(revealed)):
        tokens, prob = list(state), 1.0
        for i, value in zip(revealed, values, strict=True):
            tokens[i] = value
            prob *= conditionals[state][i, value]
        yield tuple(tokens), prob


def reverse_chain_law(schedule, num_steps, x_row):
    """The exact law of the reverse process, by enumeration: {sequence: probability}."""
    _, conditionals = tiny_conditionals()

    def masked_prob(t):
        return math.cos(math.pi * (1 - t) / 2) if isinstance(schedule, mdm_jax.Cosine) else t

    law = {tuple(x_row): 1.0}
    for step in range(1, num_steps + 1):
        t, s = 1 - (step - 1) / num_steps, 1 - step / num_steps
        reveal = 1 - masked_prob(s) / masked_prob(t) if step < num_steps else 1.0
        law, before = {}, law
        for state, prob in before.items():
            masks = [i for i, token in enumerate(state) if token == 2]
            for size in range(len(masks) + 1):
                for revealed in itertools.combinations(masks, size):
                    chosen = reveal**size * (1 - reveal) ** (len(masks) - size)
                    for after, filled in fill(state, revealed, conditionals):
                        add(law, after, prob * chosen * filled)
    return [law.get(tuple(x), 0.0) for x in toy.sequences(2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [mdm_jax.Linear(), mdm_jax.Cosine()], ids=str)
def test_vanilla_sample_follows_the_exact_law_of_the_reverse_process(schedule):
    params, _ = tiny_conditionals()
    for num_steps, x_row in ((2, [2, 2, 2]), (3, [2, 2, 2]), (3, [2, 1, 2])):
        x_init = jnp.broadcast_to(jnp.asarray(x_row, jnp.int32), (20_000, 3))
        got = mdm_jax.vanilla_sample(
            toy.context_net, params, KEY, x_init, mask_id=2, schedule=schedule, num_steps=num_steps
        )
        toy.assert_frequencies(code(got.tokens, 2), reverse_chain_law(schedule, num_steps, x_row))
        assert got.nfe == num_steps


@pytest.mark.slow
def test_vanilla_sample_in_one_step_follows_the_product_of_the_marginals():
    params, conditionals = tiny_conditionals()
    x_init = jnp.full((20_000, 3), 2, jnp.int32)
    got = mdm_jax.vanilla_sample(
        toy.context_net, params, KEY, x_init, mask_id=2, schedule=mdm_jax.Linear(), num_steps=1
    )
    assert got.nfe == 1
    law = [filled for _, filled in fill((2, 2, 2), (0, 1, 2), conditionals)]
    toy.assert_frequencies(code(got.tokens, 2), law)
    np.testing.assert_allclose(got.log_prob, np.log(law)[code(got.tokens, 2)], atol=1e-5)


def test_vanilla_sample_reveals_each_position_at_the_steps_of_independent_bernoulli_draws():
    # The joint law of which step reveals which position, seen through the network calls, which no row's absence hides.
    params, _ = tiny_conditionals()
    num_steps, length = 3, 3
    x_init = jnp.full((20_000, length), 2, jnp.int32)
    got = mdm_jax.vanilla_sample(
        toy.context_net, params, KEY, x_init, mask_id=2, schedule=mdm_jax.Linear(), num_steps=num_steps
    )
    assert got.nfe == num_steps
    # Linear in equal steps: each position's step is uniform over 1..3, independently of the others.
    toy.assert_frequencies(code(got.reveal_step, num_steps), np.full(27, 1 / 27))


def test_vanilla_sample_is_sample_with_the_random_oracle_and_binomial():
    options = {"oracle": oracles.random, "selector": mdm_jax.Binomial(4, mdm_jax.Cosine())}
    vanilla = mdm_jax.vanilla_sample(
        toy.context_net, PARAMS, KEY, X_INIT, mask_id=MASK, schedule=mdm_jax.Cosine(), num_steps=4
    )
    jax.tree.map(np.testing.assert_array_equal, vanilla, sample(KEY, X_INIT, **options))


def test_sample_by_margin_at_temperature_one_follows_the_exact_law_of_the_adaptive_process():
    params, conditionals = tiny_conditionals()
    law = {(2, 2, 2): 1.0}
    for _ in range(3):
        law, before = {}, law
        for state, prob in before.items():
            margins = {i: abs(conditionals[state][i, 0] - conditionals[state][i, 1]) for i in range(3) if state[i] == 2}
            best = max(margins, key=margins.get)
            for after, filled in fill(state, (best,), conditionals):
                add(law, after, prob * filled)
    probs = [law[tuple(x)] for x in toy.sequences(2, 3)]
    got = sample_tokens(toy.context_net, params, 20_000, [2, 2, 2], mask_id=2)
    toy.assert_frequencies(code(got.tokens, 2), probs)
    # The test tells orders apart: from left to right the same net has another law.
    left_to_right = {(2, 2, 2): 1.0}
    for i in range(3):
        left_to_right, before = {}, left_to_right
        for state, prob in before.items():
            for after, filled in fill(state, (i,), conditionals):
                add(left_to_right, after, prob * filled)
    with pytest.raises(AssertionError):
        toy.assert_frequencies(code(got.tokens, 2), [left_to_right[tuple(x)] for x in toy.sequences(2, 3)])


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ["random", "margin"])
def test_sample_of_the_ideal_denoiser_one_token_a_step_follows_the_joint_in_any_order(name):
    joint = toy.random_joint(4, 2, 3)
    got = sample_tokens(
        toy.bayes_net(2, 3), jnp.asarray(joint), 20_000, [2, 2, 2], mask_id=2, oracle=ORACLES[name], temperature=1.0
    )
    index = code(got.tokens, 2)
    toy.assert_frequencies(index, joint)
    # And log_prob is the exact log-probability of what was drawn, whatever the order.
    np.testing.assert_allclose(got.log_prob, np.log(joint)[index], atol=2e-5)


def test_sample_of_the_ideal_denoiser_all_at_once_follows_the_product_of_marginals_not_the_joint():
    joint = toy.random_joint(4, 2, 3)
    got = sample_tokens(
        toy.bayes_net(2, 3), jnp.asarray(joint), 20_000, [2, 2, 2], mask_id=2, selector=mdm_jax.PerStep(3)
    )
    marginal = joint @ toy.sequences(2, 3)  # P(x_i = 1)
    product = [np.prod(np.where(x == 1, marginal, 1 - marginal)) for x in toy.sequences(2, 3)]
    toy.assert_frequencies(code(got.tokens, 2), product)
    with pytest.raises(AssertionError):
        toy.assert_frequencies(code(got.tokens, 2), joint)


def test_log_prob_equals_the_sum_recomputed_from_the_reveal_steps_at_temperature_one():
    got = sample(KEY, X_INIT, **(STOCHASTIC | {"temperature": 2.5}))
    tokens, steps = np.asarray(got.tokens), np.asarray(got.reveal_step)
    total = np.zeros(B)
    for call in range(int(got.nfe)):
        state = np.where(steps >= call, MASK, tokens)
        log_p = toy.log_softmax(jax.jit(toy.context_net)(PARAMS, jnp.asarray(state)))
        picked = np.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
        total += np.where(steps == call, picked, 0).sum(axis=-1)
    np.testing.assert_allclose(got.log_prob, total, atol=1e-5)


@pytest.mark.slow
def test_sample_inside_jit_with_a_traced_temperature_equals_the_plain_call():
    inside = jax.jit(lambda key, temperature: sample(key, X_INIT, temperature=temperature))
    for temperature in (0.7, 0.0):
        got, expected = inside(KEY, temperature), sample(KEY, X_INIT, temperature=temperature)
        np.testing.assert_array_equal(got.tokens, expected.tokens)
        np.testing.assert_array_equal(got.reveal_step, expected.reveal_step)


@pytest.mark.slow
def test_sample_of_features_equals_the_sample_of_their_logits():
    got = mdm_jax.sample(toy.features_net, PARAMS, KEY, X_INIT, mask_id=MASK, **STOCHASTIC)
    np.testing.assert_array_equal(got.tokens, sample(KEY, X_INIT, **STOCHASTIC).tokens)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("block_length", [None, 3])
def test_sample_tells_a_selective_denoiser_which_positions_are_open(block_length):
    options = {"block_length": block_length, **STOCHASTIC}
    got = mdm_jax.sample(toy.OnlyFeatures(), PARAMS, KEY, X_INIT, mask_id=MASK, **options)
    want = sample(KEY, X_INIT, **options)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("name", "block_length"), [("random", 5), ("margin", None)])
@pytest.mark.slow
def test_sample_of_a_transformer_that_skips_closed_positions_is_that_of_the_whole_one(name, block_length):
    shape = {"max_length": 16, "num_layers": 2, "num_heads": 4, "width": 16, "mlp_width": 24}
    config = TransformerConfig(vocab_size=11, num_extra_tokens=1, positions="learned", init_std=0.3, **shape)
    params, denoiser = init_params(config, jax.random.key(0)), make_denoiser(config)
    x_init = np.where(np.random.default_rng(0).random((4, 16)) < [[0.2], [0.5], [0.9], [1.0]], 11, 3).astype(np.int32)
    options = {"mask_id": 11, "oracle": ORACLES[name], "selector": mdm_jax.PerStep(2), "block_length": block_length}
    got = mdm_jax.sample(denoiser, params, KEY, x_init, **options)
    want = mdm_jax.sample(lambda params, tokens: denoiser(params, tokens), params, KEY, x_init, **options)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.reveal_step, want.reveal_step)
    np.testing.assert_allclose(got.log_prob, want.log_prob, atol=1e-4)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4))
    alone = mdm_jax.sample(denoiser, params, keys[:1], x_init[:1], **options)  # needs a quarter of what the others do
    np.testing.assert_array_equal(alone.tokens, got.tokens[:1])


def tied_net(params, tokens):
    """The same prediction at every position, so that every position ties."""
    return jnp.broadcast_to(params, (*tokens.shape, 5))


def test_sample_of_tied_scores_reveals_the_lowest_index_first():
    params = jnp.asarray([0.1, 1.3, 0.4, 1.3, 0.2])
    x_init = np.array([[M, 0, M, M, M, M], [0, M, M, 0, M, 0]], np.int32)
    got = mdm_jax.sample(tied_net, params, KEY, x_init, mask_id=MASK, temperature=0.0)
    np.testing.assert_array_equal(got.reveal_step, [[0, -1, 1, 2, 3, 4], [-1, 0, 1, -1, 2, -1]])
    np.testing.assert_array_equal(np.asarray(got.tokens)[x_init == M], 1)


def notebook_noise(key, c):
    noise = jax.random.normal(key, c.top_prob.shape)
    return c.top_prob + noise


@pytest.mark.slow
def test_sample_with_an_oracle_from_a_notebook_that_draws_works_unchanged_and_row_by_row():
    options = {"oracle": notebook_noise, "temperature": 0.0}
    got = sample(KEY, X_INIT, **options)
    assert MASK not in np.asarray(got.tokens)
    np.testing.assert_array_equal(np.asarray(got.tokens)[X_INIT != MASK], X_INIT[X_INIT != MASK])
    alone = sample(row_keys()[4:5], X_INIT[4:5], **options)
    np.testing.assert_array_equal(alone.tokens[0], got.tokens[4])
    # Each row draws its own order: among many rows of one start all 3! orders of three masks come.
    orders = sample(KEY, np.tile([[M, 1, M, 1, M]], (60, 1)).astype(np.int32), **options).reveal_step
    assert len(np.unique(np.asarray(orders), axis=0)) == 6


@pytest.mark.slow
def test_sample_with_the_margin_written_as_a_lambda_equals_the_margin():
    got = sample(KEY, X_INIT, oracle=lambda key, c: c.top_prob - c.second_prob)
    jax.tree.map(np.testing.assert_array_equal, got, sample(KEY, X_INIT))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("selector", "temperature"), [(SELECTORS[3], 1.0), (SELECTORS[5], 0.0)], ids=["plans", "chooses"]
)
def test_sample_under_the_key_reuse_checker_reuses_no_key(selector, temperature):
    options = {"oracle": ORACLES["noisy margin"], "selector": selector, "temperature": temperature}
    with jax.debug_key_reuse(True):
        sample(jax.random.key(0), X_INIT, **options)


@pytest.mark.parametrize(("selector", "temperature"), [*((s, 1.0) for s in SELECTORS), (SELECTORS[0], 0.0)], ids=str)
def test_sample_under_strict_dtype_promotion_promotes_nothing_implicitly(selector, temperature):
    with jax.numpy_dtype_promotion("strict"):  # raises while tracing
        jax.eval_shape(
            lambda key: sample(
                key, X_INIT, oracle=ORACLES["noisy margin"], selector=selector, temperature=temperature, block_length=3
            ),
            KEY,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_init": X_INIT.astype(np.float32)}, "integer"),
        ({"x_init": X_INIT == MASK}, "integer"),
        ({"x_init": X_INIT[0]}, "shape"),
        ({"x_init": X_INIT[None]}, "shape"),
        ({"mask_id": -1}, "mask_id.*at least 0"),
        ({"mask_id": 5.0}, "mask_id"),
        ({"mask_id": True}, "mask_id"),
        ({"mask_id": None}, "mask_id"),
        ({"block_length": 0}, "block_length"),
        ({"block_length": -3}, "block_length"),
        ({"block_length": 2.5}, "block_length"),
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"key": jax.random.PRNGKey(0)}, "typed key"),
        ({"key": 0}, "typed key"),
        ({"key": jax.random.split(KEY, B + 1)}, "key"),
        ({"key": jax.random.split(KEY, (B, 1))}, "key"),
        ({"selector": 3}, "selector"),
        ({"selector": None}, "selector"),
        ({"selector": mdm_jax.PerStep}, "selector"),
        ({"denoiser": lambda params, tokens: jnp.zeros((B, L))}, "denoiser.*logits"),
        ({"denoiser": lambda params, tokens: jnp.zeros((B, L + 1, V))}, "denoiser.*logits"),
        ({"denoiser": lambda params, tokens: jnp.zeros((B, L, V), int)}, "denoiser.*logits"),
        ({"denoiser": lambda params, tokens: None}, "denoiser.*logits"),
        ({"denoiser": lambda params, tokens: jnp.zeros((B, L, 1))}, "denoiser.*logits"),
        ({"denoiser": lambda p, x: mdm_jax.Features(jnp.zeros((B, L, 3)), jnp.zeros((4, V)))}, "Features"),
        ({"oracle": lambda key, c: c.top_prob.sum()}, "oracle.*scores"),
        ({"oracle": lambda key, c: c.top_prob[:, 1:]}, "oracle.*scores"),
        ({"oracle": lambda key, c: c.top_prob[0]}, "oracle.*scores"),
        ({"oracle": lambda key, c: None}, "oracle"),
        ({"oracle": "margin"}, "oracle"),
    ],
)
def test_sample_with_unusable_input_is_refused_and_told_why(changes, message):
    arguments = {"denoiser": toy.context_net, "key": KEY, "x_init": X_INIT, "mask_id": MASK} | changes
    denoiser, key, x_init = (arguments.pop(name) for name in ("denoiser", "key", "x_init"))
    with pytest.raises(mdm_jax.InputError, match=message) as caught:
        mdm_jax.sample(denoiser, PARAMS, key, x_init, **arguments)
    assert "\n" not in str(caught.value)


def test_sample_with_a_traced_mask_id_is_refused():
    with pytest.raises(mdm_jax.InputError, match="mask_id must be a Python int"):
        jax.jit(lambda mask_id: mdm_jax.sample(toy.context_net, PARAMS, KEY, X_INIT, mask_id=mask_id))(MASK)


@pytest.mark.parametrize("num_steps", [0, -1, 1.5])
def test_vanilla_sample_with_an_impossible_number_of_steps_is_refused(num_steps):
    with pytest.raises(mdm_jax.InputError, match="num_steps"):
        mdm_jax.vanilla_sample(
            toy.context_net, PARAMS, KEY, X_INIT, mask_id=MASK, schedule=mdm_jax.Linear(), num_steps=num_steps
        )


def test_sample_with_a_denoiser_that_fails_raises_its_own_error():
    def broken(params, tokens):
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        mdm_jax.sample(broken, PARAMS, KEY, X_INIT, mask_id=MASK)
