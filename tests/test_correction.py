"""Decoding that takes tokens back by their quality: a plain Python loop, and `sample` where nothing is taken back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy import MASK, PAD

import mdm_jax
from mdm_jax import oracles
from mdm_jax.correction import TakeBack
from mdm_jax.judges import JUDGES

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

KEY = jax.random.key(5)
HEAD = {"kernel": jnp.asarray(np.random.default_rng(3).normal(size=6), jnp.float32), "bias": jnp.asarray([0.3])}
PARAMS = toy.net_params(0, scale=2.0) | {"quality": HEAD}
L = 7


def rows(seed, batch=4):
    """Tokens with two thirds of them masked, and a row that is given whole."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, (batch, L))
    tokens[rng.random((batch, L)) < 0.7] = MASK
    tokens[-1] = 3
    return jnp.asarray(tokens, jnp.int32)


def correct(x_init, judge, net=toy.features_net, **options):
    options = {"temperature": 0.0} | options
    return mdm_jax.correcting_sample(net, PARAMS, KEY, x_init, mask_id=MASK, judge=judge, **options)


def probs_of(tokens):
    """p_theta at every position, float64 [L, V], of tokens [L]."""
    return np.exp(toy.log_softmax(toy.context_net(PARAMS, jnp.asarray(tokens[None])), MASK))[0]


def quality_of(tokens, position, judge):
    """How likely the token at the position is right, and the calls that a step makes for it."""
    if judge == "leave-one-out":
        without = tokens.copy()
        without[position] = MASK
        return probs_of(without)[position, tokens[position]]
    if judge == "filled":
        filled = np.where(tokens == MASK, probs_of(tokens).argmax(axis=-1), tokens)
        return probs_of(filled)[position, tokens[position]]
    hidden = np.asarray(toy.features_net(PARAMS, jnp.asarray(tokens[None])).hidden)[0, position]
    return 1 / (1 + np.exp(-(hidden @ np.asarray(HEAD["kernel"]) + float(HEAD["bias"][0]))))


def by_hand(x_init, judge, k, tau):
    """The tokens of one row, how many were taken back, and the network calls."""
    tokens, taken, calls = np.array(x_init), 0, 0
    is_target = tokens == MASK
    while (tokens == MASK).any():
        masks, probs = np.flatnonzero(tokens == MASK), probs_of(tokens)
        top = np.sort(probs, axis=-1)
        margin = top[:, -1] - top[:, -2]
        chosen = sorted(masks, key=lambda i: -margin[i])[:k]
        revealed = np.flatnonzero(is_target & (tokens != MASK)) if len(chosen) > 1 and tau > 0 else []
        quality = {i: quality_of(tokens, i, judge) for i in revealed}
        doubted = sorted((i for i in revealed if quality[i] <= tau), key=quality.get)[: len(chosen) - 1]
        calls += 1 + {"leave-one-out": len(revealed), "filled": int(len(revealed) > 0), "quality": 0}[judge]
        tokens[chosen], tokens[doubted] = probs[chosen].argmax(axis=-1), MASK
        taken += len(doubted)
    return tokens, taken, calls


@pytest.mark.thinned(3)
@pytest.mark.parametrize("judge", JUDGES)
def test_each_row_is_what_a_plain_loop_makes_of_it_and_every_call_is_counted(judge):
    taken = 0
    for seed, k, tau in ((0, 3, 0.5), (1, 2, 1.0), (2, 4, 0.9)):
        x_init = rows(seed)
        got = correct(x_init, judge, k=k, tau=tau)
        want = [by_hand(row, judge, k, tau) for row in x_init]
        np.testing.assert_array_equal(got.tokens, [tokens for tokens, _, _ in want])
        for row in range(len(x_init)):
            alone = correct(jnp.tile(x_init[row : row + 1], (4, 1)), judge, k=k, tau=tau)
            assert int(alone.nfe) == want[row][2]
        taken += sum(number for _, number, _ in want)
    assert taken > 3, "or nothing was tested"


def test_tau_of_one_takes_back_all_that_a_step_may_also_of_tokens_that_are_sure():
    params, x_init = jnp.asarray([30.0, 0.0, 0.0]), jnp.full((1, 8), 3)

    def sure(params, tokens):
        return jnp.broadcast_to(params, (*tokens.shape, 3))

    found = mdm_jax.correcting_sample(sure, params, KEY, x_init, mask_id=3, k=4, tau=1.0, temperature=0.0)
    # Masks before each step: 8, 4, 3, 2, 1. A step calls once, and once for each token that it may take back.
    assert int(found.nfe) == (1 + 0) + (1 + 4) + (1 + 5) + (1 + 6) + 1


@pytest.mark.thinned(3)
@pytest.mark.parametrize("judge", JUDGES)
def test_without_corrections_it_is_sample_element_for_element(judge):
    for k, tau in ((1, 1.0), (3, 0.0)):
        got = correct(rows(4), judge, k=k, tau=tau, temperature=1.0, oracle=oracles.top_prob)
        want = mdm_jax.sample(
            toy.features_net, PARAMS, KEY, rows(4), mask_id=MASK, selector=mdm_jax.PerStep(k), oracle=oracles.top_prob
        )
        jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("judge", JUDGES)
def test_given_tokens_stay_padding_changes_nothing_and_row_does_not_depend_on_others(judge):
    x_init = rows(5)
    got = correct(x_init, judge, k=3, tau=1.0)
    is_masked = np.asarray(x_init) == MASK
    np.testing.assert_array_equal(np.asarray(got.tokens)[~is_masked], np.asarray(x_init)[~is_masked])
    np.testing.assert_array_equal(np.asarray(got.reveal_step) >= 0, is_masked)
    assert (got.tokens != MASK).all()
    padded = jnp.pad(x_init, ((0, 0), (0, 2)), constant_values=PAD)
    np.testing.assert_array_equal(correct(padded, judge, k=3, tau=1.0).tokens[:, :L], got.tokens)
    turned = correct(x_init[::-1], judge, k=3, tau=1.0)
    np.testing.assert_array_equal(turned.tokens[::-1], got.tokens)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("judge", JUDGES)
def test_what_is_drawn_does_not_depend_on_padding_nor_on_other_rows(judge):
    x_init = rows(5)
    got, likeliest = (correct(x_init, judge, k=3, tau=1.0, temperature=t) for t in (1.0, 0.0))
    assert (got.tokens != likeliest.tokens).any(), "or nothing was drawn"
    padded = jnp.pad(x_init, ((0, 0), (0, 2)), constant_values=PAD)
    np.testing.assert_array_equal(correct(padded, judge, k=3, tau=1.0, temperature=1.0).tokens[:, :L], got.tokens)
    others = correct(x_init.at[1:].set(jnp.roll(x_init[1:], 1, axis=0)), judge, k=3, tau=1.0, temperature=1.0)
    np.testing.assert_array_equal(others.tokens[0], got.tokens[0])


@pytest.mark.slow
def test_denoiser_is_told_what_is_read():
    for judge in ("leave-one-out", "filled"):
        got, want = (correct(rows(6), judge, net, k=3) for net in (toy.OnlyFeatures(), toy.context_net))
        jax.tree.map(np.testing.assert_array_equal, got, want)


MISUSES = [
    (lambda: correct(rows(0), "margin"), "judge must be one of leave-one-out, filled, quality; got 'margin'"),
    (lambda: correct(rows(0), "filled", k=0), "k must be a whole number, at least 1"),
    (lambda: correct(rows(0), "filled", tau=1.5), "tau must be a number, at least 0, at most 1|tau must be a number"),
    (lambda: correct(rows(0), "quality", toy.context_net), "must give Features"),
    (
        lambda: mdm_jax.correcting_sample(
            toy.features_net, toy.net_params(0), KEY, rows(0), mask_id=MASK, judge="quality"
        ),
        "has no quality head",
    ),
    (
        lambda: mdm_jax.sample(toy.context_net, PARAMS, KEY, rows(0), mask_id=MASK, selector=TakeBack(2)),
        "TakeBack wants a network that judges tokens",
    ),
    (
        lambda: mdm_jax.sample(
            toy.context_net, PARAMS, KEY, rows(0), mask_id=MASK, selector=TakeBack(2), block_length=2
        ),
        "TakeBack corrects whole sequences",
    ),
]


@pytest.mark.parametrize("case", range(len(MISUSES)))
def test_misuse_is_one_line(case):
    call, words = MISUSES[case]
    with pytest.raises(mdm_jax.InputError, match=words):
        call()
