"""Samplers end, whatever the network, the oracle and the selector give; what they write is never a mask."""

import dataclasses
import functools
import json
import subprocess
import sys

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

import mdm_jax
from mdm_jax import loop, oracles, selection
from mdm_jax.evaluation.prompts import fill_sequences
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.decoder import make_decoder
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.tasks.zebra import layouts as zebra_layouts
from mdm_jax.tasks.zebra import riddles as zebra_riddles
from mdm_jax.training.learned_order import LearnedOrder
from mdm_jax.training.objectives import masked_loss

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

B, L, V = 2, 4, 5
WIDTH = 3
KEY = jax.random.key(3)
NAN, INF = float("nan"), float("inf")


def table(params, tokens):
    """A network whose logits [L, V] are its parameters, whatever the tokens."""
    return jnp.broadcast_to(params, (tokens.shape[0], *params.shape))


@dataclasses.dataclass(frozen=True)
class TableDecoder:
    """The same, piece by piece."""

    is_causal: bool

    def init_cache(self, batch, length):
        return jnp.zeros(())

    def __call__(self, params, tokens, cache, start):
        here = jax.lax.dynamic_slice_in_dim(params, start, tokens.shape[1])
        return jnp.broadcast_to(here, (tokens.shape[0], *here.shape)), cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hostile:
    """A selector that plans a traced number, if it plans, and chooses a traced set."""

    number: int
    chosen: bool
    plans: bool = dataclasses.field(default=True, metadata={"static": True})

    def plan(self, key, j, n_0, left):
        return jnp.full_like(left, self.number) if self.plans else None

    def choose(self, scores, confidence, is_open, num_reveal):
        return jnp.broadcast_to(jnp.asarray(self.chosen), is_open.shape)


def hostile_oracle(key, confidence):
    return jnp.where(confidence.token == 1, jnp.nan, -jnp.inf)


def judged(params, tokens):
    """The table as a network that gives hidden states, which a quality head reads."""
    return mdm_jax.Features(table(params["table"], tokens), jnp.eye(V))


def forms_of(mask_id):
    """As they are, mirrored, and with the ids but the mask's in another order."""
    others = [token for token in range(V) if token != mask_id]
    turned = np.arange(V + 1)
    turned[others] = np.roll(others, 1)
    positions = np.arange(L)[[range(L), range(L)[::-1], range(L)]]
    return {"positions": positions, "tokens": np.stack([np.arange(V + 1), np.arange(V + 1), turned])}


FORMS = {mask_id: forms_of(mask_id) for mask_id in (0, 2, V)}
SAMPLERS = {
    "margin": lambda p, key, x, m, t, k: mdm_jax.sample(
        table, p, key, x, mask_id=m, selector=mdm_jax.PerStep(k), temperature=t
    ),
    "top_k": lambda p, key, x, m, t, k: mdm_jax.sample(
        table, p, key, x, mask_id=m, selector=mdm_jax.TopK(k), oracle=oracles.neg_entropy, temperature=0, block_length=3
    ),
    "threshold": lambda p, key, x, m, t, k: mdm_jax.sample(
        table, p, key, x, mask_id=m, selector=mdm_jax.Threshold(t), oracle=oracles.token_prob, temperature=t
    ),
    "entropy": lambda p, key, x, m, t, k: mdm_jax.sample(
        table, p, key, x, mask_id=m, selector=mdm_jax.EntropyBudget(t), temperature=0
    ),
    "klass": lambda p, key, x, m, t, k: mdm_jax.sample(
        table, p, key, x, mask_id=m, selector=mdm_jax.Klass(t, t), temperature=t
    ),
    "stable": lambda p, key, x, m, t, k: mdm_jax.stable_sample(
        functools.partial(mdm_jax.sample, table, p, mask_id=m, temperature=t), key, x, num=WIDTH
    ),
    "hostile plan": lambda p, key, x, m, t, k: mdm_jax.sample(
        table, p, key, x, mask_id=m, selector=Hostile(k, k > 0), oracle=hostile_oracle, temperature=t
    ),
    "hostile choice": lambda p, key, x, m, t, k: mdm_jax.sample(
        table, p, key, x, mask_id=m, selector=Hostile(k, k > 0, plans=False), oracle=hostile_oracle, temperature=t
    ),
    "vanilla": lambda p, key, x, m, t, k: mdm_jax.vanilla_sample(
        table, p, key, x, mask_id=m, schedule=mdm_jax.Cosine(), num_steps=k
    ),
    "cached": lambda p, key, x, m, t, k: mdm_jax.cached_sample(
        TableDecoder(False), p, key, x, mask_id=m, block_length=2, selector=mdm_jax.TopK(k), temperature=t
    ),
    "remasking": lambda p, key, x, m, t, k: mdm_jax.remasking_sample(
        table, p, key, x, mask_id=m, num_steps=k, temperature=t
    ),
    "leave one out": lambda p, key, x, m, t, k: mdm_jax.correcting_sample(
        table, p, key, x, mask_id=m, k=k, tau=t, temperature=0
    ),
    "filled": lambda p, key, x, m, t, k: mdm_jax.correcting_sample(
        table, p, key, x, mask_id=m, k=k, tau=t, judge="filled"
    ),
    "quality": lambda p, key, x, m, t, k: mdm_jax.correcting_sample(
        judged,
        {"table": p, "quality": {"kernel": p[0], "bias": p[1, :1]}},
        key,
        x,
        mask_id=m,
        k=k,
        tau=t,
        judge="quality",
        temperature=t,
    ),
    "search": lambda p, key, x, m, t, k: mdm_jax.search_sample(table, p, key, x, mask_id=m, width=WIDTH, doubt=t),
    "checked search": lambda p, key, x, m, t, k: mdm_jax.search_sample(
        table, p, key, x, mask_id=m, width=WIDTH, doubt=t, selector=mdm_jax.Threshold(t), check=2
    ),
    "proposals": lambda p, key, x, m, t, k: mdm_jax.best_sample(
        functools.partial(mdm_jax.sample, table, p, mask_id=m, temperature=t), key, x, num=WIDTH
    ),
    "symmetric": lambda p, key, x, m, t, k: mdm_jax.symmetric_sample(
        functools.partial(mdm_jax.sample, table, p, mask_id=m, temperature=t), key, x, **FORMS[m]
    ),
    "average": lambda p, key, x, m, t, k: mdm_jax.sample(
        mdm_jax.symmetric_average(table, mask_id=m, **FORMS[m]), p, key, x, mask_id=m, temperature=t
    ),
    "checked proposals": lambda p, key, x, m, t, k: mdm_jax.best_sample(
        functools.partial(mdm_jax.sample, table, p, mask_id=m, temperature=t),
        key,
        x,
        num=WIDTH,
        rank=functools.partial(mdm_jax.pseudo_log_likelihood, table, p, mask_id=m, num_calls=2),
    ),
    "learned order": lambda p, key, x, m, t, k: mdm_jax.sample(
        judged,
        {"table": p},
        key,
        x,
        mask_id=m,
        selector=mdm_jax.PerStep(k),
        oracle=LearnedOrder(p[0], p[1, :3]),
        temperature=t,
    ),
    "no remasking": lambda p, key, x, m, t, k: mdm_jax.remasking_sample(
        table, p, key, x, mask_id=m, num_steps=k, remask=False
    ),
}
jitted = {name: jax.jit(run, static_argnums=3) for name, run in SAMPLERS.items()}
"""With all numbers traced, so that none is checked, and one compilation for each mask serves all."""

LOGITS = st.sampled_from([0.0, 1.0, -2.0, 80.0, 3e38, -3e38, NAN, INF, -INF])


@pytest.mark.thinned(6)
@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=30, deadline=None)
@given(
    logits=st.lists(st.lists(LOGITS, min_size=V, max_size=V), min_size=L, max_size=L),
    masked=st.lists(st.booleans(), min_size=B * L, max_size=B * L),
    mask_id=st.sampled_from([0, 2, V]),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1e38, INF, NAN, -1.0]),
    number=st.sampled_from([1, 3, 0, -7, 50]),
)
def test_any_network_and_any_numbers_end_in_tokens(name, logits, masked, mask_id, temperature, number):
    is_masked = np.reshape(masked, (B, L))
    given_tokens = np.where(np.arange(L) == mask_id, V - 1, np.arange(L))[None]
    x_init = jnp.asarray(np.where(is_masked, mask_id, given_tokens), jnp.int32)
    got = jitted[name](jnp.asarray(logits), KEY, x_init, mask_id, temperature, number)
    tokens = np.asarray(got.tokens)
    assert ((tokens >= 0) & (tokens < V)).all()
    assert (tokens != mask_id).all()
    np.testing.assert_array_equal(tokens[~is_masked], np.asarray(x_init)[~is_masked])
    np.testing.assert_array_equal(np.asarray(got.reveal_step) >= 0, is_masked)
    most = {"search": L * WIDTH, "stable": 2 * L * WIDTH, "leave one out": L * L, "filled": 2 * L}
    most |= dict.fromkeys(("checked search", "checked proposals"), (L + 2) * WIDTH)
    most |= dict.fromkeys(("proposals", "symmetric"), L * WIDTH)
    assert got.nfe <= most.get(name, max(L, number) + 1)
    possible = np.isfinite(logits) | (np.array(logits) == -INF)
    possible[:, mask_id : mask_id + 1] = True
    can_be = np.delete(np.array(logits) > -INF, mask_id, axis=1) if mask_id < V else np.array(logits) > -INF
    is_sound = (possible.all(axis=1) & can_be.any(axis=1))[None]
    if not is_masked.any():
        np.testing.assert_array_equal(got.log_prob, 0)
    elif name in ("margin", "cached", "remasking") and 0 <= temperature < INF:
        np.testing.assert_array_equal(np.isnan(got.log_prob), (is_masked & ~is_sound).any(axis=1))


@pytest.mark.parametrize("logit", [NAN, INF, -INF, 0.0])
def test_proposals_until_one_is_good_enough_end_whatever_the_network_gives(logit):
    params, x_init = jnp.full((L, V), logit), jnp.asarray([[V] * L, [V, 1, 2, V]])
    decode = functools.partial(mdm_jax.sample, table, params, mask_id=V)
    rank = functools.partial(mdm_jax.pseudo_log_likelihood, table, params, mask_id=V, num_calls=2)
    got = mdm_jax.symmetric_sample(decode, KEY, x_init, rank=rank, enough=-0.5, **FORMS[V])
    assert ((got.tokens >= 0) & (got.tokens < V)).all()
    assert got.tokens[1, 1:3].tolist() == [1, 2]
    assert got.nfe == (L + 2) * WIDTH, "no answer of such a network is good enough"
    assert np.isnan(got.log_prob).all() == (logit != 0)


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.lists(LOGITS, min_size=V, max_size=V), min_size=L, max_size=L),
    temperature=st.sampled_from([0.0, 1.0, 1e38, NAN]),
)
def test_any_causal_network_ends_in_tokens(logits, temperature):
    prompt = jnp.asarray([[1, 2], [3, 9]])
    got = causal(jnp.asarray(logits), KEY, prompt, jnp.asarray([2, 1]), temperature)
    tokens = np.asarray(got.tokens)
    assert ((tokens >= 0) & (tokens < V)).all()
    np.testing.assert_array_equal(tokens[0, :2], [1, 2])
    assert tokens[1, 0] == 3


causal = jax.jit(
    lambda p, key, prompt, lengths, t: mdm_jax.autoregressive_sample(
        TableDecoder(True), p, key, prompt, lengths, length=L, temperature=t
    )
)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("logit", [NAN, INF, -INF, 0.0])
def test_prompts_are_continued_whatever_the_network_gives(logit):
    def flat(params, tokens):
        return jnp.broadcast_to(params, (*tokens.shape, V))

    decode = functools.partial(mdm_jax.sample, flat, jnp.asarray(logit), mask_id=V)
    prompts = [[1, 2, 3], [4] * 6, [0]]
    filled = fill_sequences(decode, [[*prompt, V, V] for prompt in prompts], pad_id=V + 1, batch_size=2)
    for prompt, row in zip(prompts, filled.rows, strict=True):
        assert row.tokens[:-2].tolist() == prompt
        assert ((row.tokens[-2:] >= 0) & (row.tokens[-2:] < V)).all()


@pytest.mark.slow
def test_token_of_nothing_possible_is_the_lowest_id_but_the_mask():
    nothing = jnp.full((L, V), -jnp.inf)
    for mask_id, lowest in ((0, 1), (3, 0), (V, 0)):
        got = mdm_jax.sample(table, nothing, KEY, jnp.full((B, L), mask_id), mask_id=mask_id, temperature=0)
        np.testing.assert_array_equal(got.tokens, lowest)
        assert np.isnan(got.log_prob).all()


def test_not_a_number_counts_as_impossible_and_shows_in_its_row_alone():
    logits = jnp.zeros((L, V)).at[1].set(jnp.asarray([NAN, 0.0, 4.0, NAN, NAN]))
    x_init = jnp.asarray([[V, V, V, V], [V, 1, V, V]])
    got = mdm_jax.sample(table, logits, KEY, x_init, mask_id=V, temperature=0)
    assert got.tokens[0, 1] == 2
    assert np.isnan(got.log_prob).tolist() == [True, False]
    confidence = mdm_jax.confidence_from_logits(KEY, logits[None], temperature=0)
    assert confidence.top_prob[0, 1] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-6)
    assert confidence.second_prob[0, 1] == pytest.approx(1 / (1 + np.exp(4)), rel=1e-6)


def test_scores_that_are_not_a_number_come_last_and_show():
    def some(key, confidence):
        return jnp.where(jnp.arange(L)[None] < 2, jnp.nan, 1.0)

    got = mdm_jax.sample(table, jnp.zeros((L, V)), KEY, jnp.full((1, L), V), mask_id=V, oracle=some)
    assert (got.reveal_step[0, 2:] < got.reveal_step[0, :2].min()).all()
    assert np.isnan(got.log_prob).all()


def constrained(params, tokens):
    """A network that allows no token in the last position, and the digits 1 and 2 elsewhere; -inf, but not NaN."""
    allowed = jnp.asarray([False, True, True, False, False])
    is_last = jnp.arange(tokens.shape[1]) == tokens.shape[1] - 1
    logits = jnp.where(allowed[None] & ~is_last[:, None], 0.0, -jnp.inf)
    return jnp.broadcast_to(logits, (tokens.shape[0], *logits.shape)) + params


@dataclasses.dataclass(frozen=True)
class ConstrainedDecoder(TableDecoder):
    def __call__(self, params, tokens, cache, start):
        logits = jax.lax.dynamic_slice_in_dim(constrained(params, jnp.zeros((1, L), int)), start, tokens.shape[1], 1)
        return jnp.broadcast_to(logits, (*tokens.shape, V)), cache


@pytest.mark.thinned(2)
@pytest.mark.parametrize("mask_id", [0, 9])
@pytest.mark.slow
def test_dead_end_of_one_row_holds_up_no_other(mask_id):
    # As in the layouts of Sudoku and Zebra, where the mask is id 0 and above all.
    x_init = jnp.asarray([[mask_id] * L, [mask_id] * (L - 1) + [4]])
    params, options = jnp.zeros(()), {"mask_id": mask_id, "temperature": 1.0}
    for got in (
        mdm_jax.sample(constrained, params, KEY, x_init, **options),
        mdm_jax.sample(constrained, params, KEY, x_init, selector=mdm_jax.Binomial(3), block_length=2, **options),
        mdm_jax.vanilla_sample(
            constrained, params, KEY, x_init, mask_id=mask_id, schedule=mdm_jax.Linear(), num_steps=3
        ),
        mdm_jax.remasking_sample(constrained, params, KEY, x_init, num_steps=3, **options),
        mdm_jax.cached_sample(ConstrainedDecoder(False), params, KEY, x_init, block_length=2, **options),
    ):
        assert np.isin(got.tokens[:, :-1], [1, 2]).all()
        assert got.tokens[:, -1].tolist() == [1 if mask_id == 0 else 0, 4]
        assert np.isnan(got.log_prob).tolist() == [True, False]


def allowed(params, tokens):
    """A network that allows, row by row, the tokens [B, L, V] that its parameters say."""
    return jnp.where(params, 0.0, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class AllowedDecoder(TableDecoder):
    def __call__(self, params, tokens, cache, start):
        return jax.lax.dynamic_slice_in_dim(allowed(params, tokens), start, tokens.shape[1], 1), cache


def layouts():
    grid = np.zeros((1, 16), np.int8)
    grid[0, :3] = [1, 2, 3]
    for name in ("in-place", "question-answer", "shifted"):
        layout = sudoku_layouts.get(name, 4)
        yield name, layout.start({"puzzle": grid}), layout.mask_id, layout.num_tokens, layout.zero
    layout = zebra_layouts.get("in-place")
    start = layout.start({"clues": zebra_riddles.get("fish").clues[None]})
    yield "zebra", start, layout.mask_id, layout.num_tokens, layout.zero


@pytest.mark.slow
@pytest.mark.parametrize(("name", "start", "mask_id", "vocab_size", "zero"), list(layouts()))
def test_cell_without_a_legal_token_holds_up_no_other_in_the_layouts_of_puzzles(name, start, mask_id, vocab_size, zero):
    x_init = jnp.asarray(np.repeat(start, 2, axis=0))
    is_mask = np.asarray(x_init) == mask_id
    dead = np.flatnonzero(is_mask[0])[0]
    params = np.zeros((*x_init.shape, vocab_size), bool)
    params[:, :, [zero + 1, zero + 2]] = True
    params[0, dead] = False
    options = {"mask_id": mask_id, "selector": mdm_jax.TopK(3)}
    for got in (
        mdm_jax.sample(allowed, params, KEY, x_init, **options),
        mdm_jax.sample(allowed, params, KEY, x_init, mask_id=mask_id, selector=mdm_jax.Threshold(0.9), temperature=0),
        mdm_jax.vanilla_sample(allowed, params, KEY, x_init, mask_id=mask_id, schedule=mdm_jax.Linear(), num_steps=3),
        mdm_jax.remasking_sample(allowed, params, KEY, x_init, mask_id=mask_id, num_steps=3),
        mdm_jax.cached_sample(AllowedDecoder(False), params, KEY, x_init, block_length=x_init.shape[1] // 2, **options),
    ):
        tokens = np.asarray(got.tokens)
        assert tokens[0, dead] == (1 if mask_id == 0 else 0)
        is_mask[0, dead] = False
        assert np.isin(tokens[is_mask], [zero + 1, zero + 2]).all()
        is_mask[0, dead] = True
        assert np.isnan(got.log_prob).tolist() == [True, False]


@pytest.mark.slow
def test_network_of_the_library_with_damaged_parameters_ends_and_shows_it():
    config = TransformerConfig(
        vocab_size=4, num_extra_tokens=1, max_length=L, num_layers=1, num_heads=2, width=8, mlp_width=8
    )
    damaged = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), init_params(config, KEY))
    x_init = jnp.full((B, L), 4)
    for got in (
        mdm_jax.sample(make_denoiser(config), damaged, KEY, x_init, mask_id=4),
        mdm_jax.cached_sample(make_decoder(config), damaged, KEY, x_init, mask_id=4, block_length=2),
    ):
        np.testing.assert_array_equal(np.asarray(got.tokens) < 4, True)
        assert np.isnan(got.log_prob).all()


@pytest.mark.slow
def test_id_without_a_row_is_refused_where_it_can_be_seen_and_not_a_number_where_it_cannot():
    config = TransformerConfig(
        vocab_size=4, num_extra_tokens=1, max_length=L, num_layers=1, num_heads=2, width=8, mlp_width=8
    )
    params, denoiser = init_params(config, KEY), make_denoiser(config)
    traced = jax.jit(lambda x: mdm_jax.sample(denoiser, params, KEY, x, mask_id=4))
    loss = jax.jit(lambda x: mdm_jax.subset_loss(denoiser, params, KEY, x, mask_id=4))
    for bad in (5, -1, 2**31 - 1):
        x_init = np.array([[4, bad, 4, 1], [4, 1, 4, 1]])
        with pytest.raises(mdm_jax.InputError, match=f"x_init holds the id {bad}; the ids here run from 0 to 4"):
            mdm_jax.sample(denoiser, params, KEY, x_init, mask_id=4)
        with pytest.raises(mdm_jax.InputError, match=f"x_0 holds the id {bad}"):
            mdm_jax.subset_loss(denoiser, params, KEY, x_init, mask_id=4)
        assert np.isnan(traced(x_init).log_prob).tolist() == [True, False]
        assert (np.asarray(traced(x_init).tokens)[:, [0, 2]] < 4).all()
        assert np.isnan(loss(np.where(x_init == 4, 0, x_init))).tolist() == [True, False]
    with pytest.raises(mdm_jax.InputError, match="mask_id is 5, and the network embeds the ids 0 to 4 alone"):
        mdm_jax.sample(denoiser, params, KEY, np.full((B, L), 4), mask_id=5)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("loss", [mdm_jax.subset_loss, mdm_jax.order_loss])
def test_loss_of_an_id_beyond_the_logits_is_refused_or_not_a_number(loss):
    params = jnp.zeros((L, V))
    for bad in (-1, V, 2**31 - 1):
        x_0 = np.array([[bad, bad, bad, bad], [1, 1, 1, 1]])
        with pytest.raises(mdm_jax.InputError, match=f"x_0 holds the id {bad}"):
            loss(table, params, KEY, x_0, mask_id=7)
        traced = jax.jit(lambda x: loss(table, params, KEY, x, mask_id=7))(x_0)
        assert np.isnan(traced).tolist() == [True, False]


def test_ids_of_64_bits_are_never_taken_for_others():
    for bad in (np.array([[2**40 + 5, 5]]), np.array([[2**32 - 1, 5]], np.uint32), np.array([[-(2**63), 5]])):
        with pytest.raises(mdm_jax.InputError, match=f"x_init holds the id {bad[0, 0]}"):
            mdm_jax.sample(table, jnp.zeros((2, V)), KEY, bad, mask_id=5)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("selector", [mdm_jax.TopK(10**6), mdm_jax.Binomial(10**6)])
def test_a_million_steps_of_which_few_reveal_anything_are_passed_over(selector):
    # A million passes through the loop take a minute and a half; what is asked is that this test is no long one.
    got = mdm_jax.sample(table, jnp.zeros((8, V)), KEY, jnp.full((1, 8), V), mask_id=V, selector=selector)
    assert got.nfe == 8


@pytest.mark.slow
@pytest.mark.parametrize("selector", [mdm_jax.TopK(60, mdm_jax.Cosine()), mdm_jax.Binomial(60)])
def test_steps_that_are_passed_over_change_no_draw(selector, monkeypatch):
    x_init = jnp.asarray([[V] * 8, [V] * 3 + [1] * 5])
    options = {"mask_id": V, "selector": selector, "block_length": 4}
    found = []
    for looks_ahead in (True, False):
        if not looks_ahead:
            monkeypatch.setattr(loop, "idle_steps", lambda waits, batch: jnp.zeros((), jnp.int32))
        network = functools.partial(table)  # one that jit has no program of yet
        found.append(mdm_jax.sample(network, jnp.zeros((8, V)), KEY, x_init, **options))
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.slow
def test_binomial_waits_exactly_where_it_plans_nothing():
    selector, keys = mdm_jax.Binomial(12, mdm_jax.Cosine()), jax.random.split(KEY, 4096)
    j = jnp.asarray(np.random.default_rng(0).integers(1, 14, 4096), jnp.int32)
    left = jnp.asarray(np.random.default_rng(1).integers(0, 9, 4096), jnp.int32)
    planned = selector.plan(keys, j, left, left)
    np.testing.assert_array_equal(selector.waits(keys, j, left, left), planned == 0)
    assert ((planned >= 0) & (planned <= left)).all()
    assert (planned[j >= 12] == left[j >= 12]).all()


def test_top_k_has_nothing_left_after_its_last_step_whatever_the_schedule_and_the_number_of_masks():
    class Clipped(mdm_jax.Linear):
        def mask_prob(self, t):
            return jnp.maximum(t, 0.1)

    n_0 = jnp.asarray([3, 10**6, 2 * 10**6])
    for schedule in (mdm_jax.Linear(), Clipped()):
        planned = mdm_jax.TopK(4, schedule).plan(jax.random.split(KEY, 3), jnp.full(3, 4), n_0, n_0)
        np.testing.assert_array_equal(planned, n_0)
    x_init = jnp.full((1, 20), V)
    got = mdm_jax.sample(table, jnp.zeros((20, V)), KEY, x_init, mask_id=V, selector=mdm_jax.TopK(4, Clipped()))
    assert got.nfe == 4


def test_selector_that_waits_for_ever_is_held_to_a_position_a_step_after_its_patience():
    j = jnp.asarray([1, selection.PATIENCE, selection.PATIENCE + 1], jnp.int32)
    left = jnp.full(3, 4)
    planned = selection.plan_step(Hostile(0, False), jax.random.split(KEY, 3), j, left, left)
    np.testing.assert_array_equal(planned, [0, 0, 1])


ENDLESS = """
import dataclasses, json, sys
sys.path.insert(0, sys.argv[1])
import jax, jax.numpy as jnp
import mdm_jax, test_samplers_end as t
params, found = jnp.zeros((t.L, t.V)), []
for name in ("hostile plan", "hostile choice", "margin", "top_k", "vanilla", "remasking"):
    got = t.jitted[name](params * jnp.nan, t.KEY, jnp.full((1, t.L), 2), 2, 1.0, 0)
    found.append([bool((got.tokens != 2).all()), int(got.nfe)])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_samplers_end_where_xla_is_free_to_optimise():
    # XLA may drop a loop without end, and the tests' own process does not optimise.
    command = [sys.executable, "-c", ENDLESS, str(commands.ROOT / "tests")]
    done = subprocess.run(
        command, cwd=commands.ROOT, env=commands.ENV, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert all(is_whole and nfe >= 1 for is_whole, nfe in found), found


# What is given to samplers and losses, and cannot be used.

sample = functools.partial(mdm_jax.sample, table, jnp.zeros((L, V)), KEY)
X = np.full((B, L), V)


class Unhashable:
    __hash__ = None

    def __call__(self, params, tokens):
        return table(params, tokens)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Text(Hostile):
    pass


MISUSES = [
    (lambda: sample(None, mask_id=V), "x_init must hold integer"),
    (lambda: sample([[1, 2], [3]], mask_id=V), "x_init must be tokens of shape"),
    (lambda: sample("text", mask_id=V), "x_init must hold integer"),
    (lambda: sample(X.astype(float), mask_id=V), "x_init must hold integer"),
    (lambda: sample(X[:0], mask_id=V), "at least one row"),
    (lambda: sample(X, mask_id="a"), "mask_id must be a Python int"),
    (lambda: sample(X, mask_id=2**31), "mask_id must be at least 0 and below 2\\^31"),
    (lambda: sample(X, mask_id=V, temperature="a"), "temperature must be one number"),
    (lambda: sample(X, mask_id=V, temperature=None), "temperature must be one number"),
    (lambda: sample(X, mask_id=V, temperature=[1.0]), "temperature must be one number"),
    (lambda: sample(X, mask_id=V, temperature=NAN), "temperature must be at least 0"),
    (lambda: sample(X, mask_id=V, temperature=1e39), "temperature must be at least 0 and at most"),
    (lambda: sample(X, mask_id=V, temperature=10**400), "temperature must be one number"),
    (lambda: sample(X, mask_id=V, selector=None), "selector must be an object with plan"),
    (lambda: sample(X, mask_id=V, selector=mdm_jax.PerStep), "selector must be an object with plan"),
    (lambda: sample(X, mask_id=V, selector=Text("a", True)), "the numbers of a selector must be numbers"),
    (lambda: sample(X, mask_id=V, oracle="margin"), "oracle must be a function"),
    (lambda: sample(X, mask_id=V, oracle=lambda key, c: "x"), "the oracle must give scores"),
    (lambda: sample(X, mask_id=V, oracle=lambda key, c: c.top_prob.astype(complex)), "real numbers"),
    (lambda: sample(X, mask_id=V, block_length=0), "block_length must be a whole number"),
    (lambda: sample(X, mask_id=V, block_length=2.5), "block_length must be a whole number"),
    (lambda: mdm_jax.sample(None, 0, KEY, X, mask_id=V), "denoiser must be a function"),
    (lambda: mdm_jax.sample(Unhashable(), 0, KEY, X, mask_id=V), "denoiser must be hashable"),
    (lambda: mdm_jax.sample(table, 0, 0, X, mask_id=V), "key must be a typed key"),
    (lambda: mdm_jax.vanilla_sample(table, 0, KEY, X, mask_id=V, schedule=None, num_steps=3), "schedule must be"),
    (lambda: mdm_jax.TopK("8"), "num_steps must be a whole number"),
    (lambda: sample(X, mask_id=V, selector=mdm_jax.TopK(jnp.asarray([2, 3]))), "num_steps must be one number"),
    (lambda: jax.jit(lambda n: sample(X, mask_id=V, selector=mdm_jax.TopK(n)))(1e30), "num_steps must be a whole"),
    (lambda: mdm_jax.TopK(2**31), "num_steps must be a whole number"),
    (lambda: mdm_jax.TopK(4, None), "schedule must be a Schedule"),
    (lambda: mdm_jax.Threshold(NAN), "tau must be a number"),
    (lambda: mdm_jax.EntropyBudget(-1.0), "gamma must be a number"),
    (lambda: mdm_jax.with_noise(oracles.margin, "a"), "scale must be a number"),
    (lambda: mdm_jax.with_noise(oracles.margin, jnp.ones(2)), "scale must be a number"),
    (lambda: sample(X, mask_id=V, selector=mdm_jax.PerStep([2])), "numbers of a selector must be numbers"),
    (lambda: mdm_jax.search_sample(table, 0, KEY, X, mask_id=V, width=2, doubt="abc"), "doubt must be a number"),
    (lambda: mdm_jax.search_sample(table, 0, KEY, X, mask_id=V, width=2, doubt=[0.1]), "doubt must be a number"),
    (lambda: mdm_jax.search_sample(table, 0, KEY, X, mask_id=V, width=2, doubt=True), "doubt must be a number"),
    (lambda: mdm_jax.correcting_sample(table, 0, KEY, X, mask_id=V, tau=jnp.ones(2)), "tau must be a number"),
    (lambda: mdm_jax.correcting_sample(table, 0, KEY, X, mask_id=V, judge=["filled"]), "judge must be one of"),
    (
        lambda: jax.jit(lambda tau: mdm_jax.correcting_sample(table, 0, KEY, X, mask_id=V, tau=tau))(jnp.ones(2)),
        "tau must be one number",
    ),
    (lambda: masked_loss(-1), "mask_id must be at least 0"),
    (lambda: masked_loss("a"), "mask_id must be a Python int"),
    (lambda: mdm_jax.with_noise(None, 1.0), "oracle must be a function"),
    (lambda: mdm_jax.Polynomial("a"), "power must be a number"),
    (lambda: mdm_jax.uniform_order(KEY, 0, 3), "batch must be a whole number"),
    (lambda: mdm_jax.uniform_order(KEY, 2, "a"), "length must be a whole number"),
    (lambda: mdm_jax.near_identity_order(KEY, 2, 3, -1), "num_swaps must be a whole number"),
    (lambda: mdm_jax.subset_loss(None, 0, KEY, X % V, mask_id=V), "denoiser must be a function"),
    (lambda: mdm_jax.subset_loss(table, 0, KEY, X[:0], mask_id=V), "at least one row"),
    (lambda: mdm_jax.subset_loss(table, 0, 7, X % V, mask_id=V), "key must be a typed key"),
    (lambda: mdm_jax.elbo_loss(table, 0, KEY, X % V, mask_id=V, schedule=None), "schedule must be"),
    (lambda: mdm_jax.order_loss(table, 0, KEY, X % V, mask_id=V, num_orders="a"), "num_orders must be"),
    (lambda: mdm_jax.order_loss(table, 0, KEY, X % V, mask_id=V, order=X * 0), "order must hold in each row"),
    (lambda: mdm_jax.order_nll(table, 0, X % V, None, mask_id=V), "order must be int32"),
    (
        lambda: mdm_jax.order_nll(table, jnp.zeros((L, V)), X, np.tile(np.arange(L), (B, 1)), mask_id=7),
        "holds the id 5",
    ),
    (lambda: mdm_jax.causal_nll(table, jnp.zeros((L, V)), X % V, bos_id="a"), "bos_id must be a Python int"),
    (lambda: mdm_jax.forward_mask(KEY, X, "a", schedule=mdm_jax.Linear(), mask_id=V), "t must be one number per row"),
    (lambda: mdm_jax.forward_mask(KEY, X, NAN, schedule=mdm_jax.Linear(), mask_id=V), "t must hold times from 0"),
    (lambda: mdm_jax.forward_mask(KEY, X, 0.5, schedule=mdm_jax.Linear(), mask_id=V, is_prompt="a"), "is_prompt"),
    (
        lambda: mdm_jax.reverse_posterior(jnp.zeros((B, L, V)), X + 1, 0.5, 0.2, schedule=mdm_jax.Linear(), mask_id=V),
        "x_t holds the id 6",
    ),
    (lambda: mdm_jax.remasking_sample(table, 0, KEY, X, mask_id=V, num_steps="a"), "num_steps must be a whole number"),
    (lambda: mdm_jax.remasking_sample(table, 0, KEY, X, mask_id=V, num_steps=3, noise=1e39), "noise must be a number"),
    (lambda: mdm_jax.cached_sample(TableDecoder(False), 0, KEY, X, mask_id=V, block_length=None), "block_length"),
    (
        lambda: mdm_jax.autoregressive_sample(TableDecoder(True), 0, KEY, X, None, length=9),
        "prompt_length must be integers",
    ),
    (
        lambda: mdm_jax.autoregressive_sample(TableDecoder(True), 0, KEY, X, [L, L], length=10**30),
        "length must be a whole number",
    ),
    (lambda: mdm_jax.remasking_sample(table, 0, KEY, X, mask_id=V, num_steps=3, noise=10**400), "noise must be a"),
]


@pytest.mark.parametrize("case", range(len(MISUSES)))
def test_misuse_is_one_line(case):
    call, words = MISUSES[case]
    with pytest.raises(mdm_jax.InputError, match=words) as caught:
        call()
    assert len(str(caught.value)) < 400


def test_block_longer_than_all_integers_is_the_sequence():
    whole, huge = (mdm_jax.sample(table, jnp.zeros((L, V)), KEY, X, mask_id=V, block_length=n) for n in (None, 2**40))
    np.testing.assert_array_equal(whole.tokens, huge.tokens)


# Promises about keys and types.


@pytest.mark.slow
def test_keys_of_other_generators_give_rows_that_do_not_depend_on_one_another():
    for kind in ("rbg", "unsafe_rbg"):
        key = jax.random.key(3, impl=kind)
        other = mdm_jax.sample(table, jnp.zeros((L, V)), jax.random.key(4, impl=kind), X, mask_id=V)
        both = mdm_jax.sample(table, jnp.zeros((L, V)), key, X, mask_id=V)
        one = mdm_jax.sample(table, jnp.zeros((L, V)), key, X[:1], mask_id=V)
        np.testing.assert_array_equal(both.tokens[:1], one.tokens)
        assert (both.tokens != other.tokens).any()
        orders = mdm_jax.uniform_order(key, 3, 30)
        np.testing.assert_array_equal(orders[:2], mdm_jax.uniform_order(key, 2, 30))


def test_every_sampler_and_loss_is_strict_about_types():
    x, x_0 = jnp.full((B, L), V), jnp.zeros((B, L), int)
    order = mdm_jax.identity_order(B, L)
    params = jnp.zeros((L, V))
    with jax.numpy_dtype_promotion("strict"):
        for run in SAMPLERS.values():
            jax.eval_shape(lambda p, run=run: run(p, KEY, x, V, 1.0, 3), params)
        for call in (
            lambda p: mdm_jax.autoregressive_sample(TableDecoder(True), p, KEY, x_0, [1, 2], length=L, temperature=1.0),
            lambda p: mdm_jax.sample(table, p, KEY, x, mask_id=V, oracle=mdm_jax.with_noise(oracles.log_margin, 0.5)),
            lambda p: mdm_jax.elbo_loss(table, p, KEY, x_0, mask_id=V, schedule=mdm_jax.Polynomial(2.0)),
            lambda p: mdm_jax.subset_loss(table, p, KEY, x_0, mask_id=V),
            lambda p: mdm_jax.order_loss(table, p, KEY, x_0, mask_id=V),
            lambda p: mdm_jax.order_nll(table, p, x_0, order, mask_id=V),
            lambda p: mdm_jax.causal_nll(table, p, x_0, bos_id=V, order=order),
            lambda p: mdm_jax.confidence_from_logits(KEY, p[None], mask_id=0),
            lambda p: mdm_jax.confidence_from_hidden(KEY, p[None], jnp.zeros((V, 9))),
            lambda p: mdm_jax.forward_mask(KEY, x_0, jnp.full(B, 0.5), schedule=mdm_jax.Cosine(), mask_id=V),
            lambda p: mdm_jax.mask_last(x_0, order, jnp.full(B, 2), mask_id=V),
            lambda p: mdm_jax.reverse_posterior(
                jnp.zeros((B, L, V)), x, 0.5, 0.2, schedule=mdm_jax.Linear(), mask_id=V
            ),
            lambda p: mdm_jax.near_identity_order(KEY, B, L, 2),
            lambda p: mdm_jax.inverse(order),
        ):
            jax.eval_shape(call, params)
