"""KLASS: what is sure and calm is revealed, as a plain loop over one row reveals it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import MASK, PAD, context_net, log_softmax, net_params, quick_compilation

import mdm_jax
from mdm_jax import loop, oracles
from mdm_jax.sampling import Whole

KEY = jax.random.key(0)
PARAMS = net_params(3, length=14, scale=4.0)
quick = pytest.fixture(scope="module", autouse=True)(quick_compilation)


def rows():
    tokens = np.full((4, 12), MASK)
    tokens[1:, :3] = [[0, 1, 2], [4, 4, 4], [3, 1, 0]]
    tokens[3] = 2
    return jnp.asarray(tokens, jnp.int32)


def sample(x_init, selector, **options):
    options = {"mask_id": MASK, "selector": selector, "oracle": oracles.top_prob, "temperature": 0} | options
    return mdm_jax.sample(context_net, PARAMS, KEY, x_init, **options)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize(("confidence", "change"), [(1.0, np.inf), (0.0, 0.0)])
def test_thresholds_that_nothing_meets_give_sample_with_one_position_a_step(confidence, change, temperature):
    got = sample(rows(), mdm_jax.Klass(confidence, change), temperature=temperature)
    for one, other in zip(got, sample(rows(), mdm_jax.PerStep(1), temperature=temperature), strict=True):
        np.testing.assert_array_equal(one, other)


def plain(row, confidence, limit):
    """Tokens and steps of a row, by the rule as it is written."""
    tokens, steps = np.array(row), np.full(len(row), -1)
    last = {}
    step = 0
    while (tokens == MASK).any():
        prob = np.exp(log_softmax(context_net(PARAMS, jnp.asarray(tokens[None])))[0])
        chosen = {max(np.flatnonzero(tokens == MASK), key=lambda i: prob[i].max())}
        now = {}
        for i in np.flatnonzero(tokens == MASK):
            token, p = prob[i].argmax(), prob[i].max()
            was, q, calm = last.get(i, (None, 0.5, 0))
            change = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)) if token == was else np.inf
            now[i] = (token, p, calm + 1 if change < limit else 0)
            if p > confidence and now[i][2] >= 2:
                chosen.add(i)
        for i in chosen:
            tokens[i], steps[i] = now[i][0], step
        last, step = now, step + 1
    return tokens, steps


@pytest.mark.parametrize(("confidence", "change"), [(0.5, 0.2), (0.8, 0.03)])
def test_klass_reveals_what_a_plain_loop_reveals_whatever_the_other_rows(confidence, change):
    got = sample(rows(), mdm_jax.Klass(confidence, change))
    found = [plain(row, confidence, change) for row in rows()]
    np.testing.assert_array_equal(got.tokens, [tokens for tokens, _ in found])
    np.testing.assert_array_equal(got.reveal_step, [steps for _, steps in found])
    assert int(got.nfe) < 12, "more than one position at a time"
    padded = sample(jnp.pad(rows(), ((0, 0), (0, 2)), constant_values=PAD), mdm_jax.Klass(confidence, change))
    np.testing.assert_array_equal(padded.tokens[:, :-2], got.tokens)
    np.testing.assert_array_equal(padded.reveal_step[:, :-2], got.reveal_step)


@pytest.mark.slow
def test_klass_remembers_within_a_block_and_in_a_loop_driven_by_hand():
    selector, settings = mdm_jax.Klass(0.6, 0.05), loop.Loop(Whole(context_net), MASK, 4)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4))
    state = loop.init(settings, rows(), selector)
    while (state.tokens == MASK).any():
        state = loop.step(settings, PARAMS, selector, oracles.top_prob, keys, state)
    want = sample(rows(), selector, block_length=4)
    np.testing.assert_array_equal(state.tokens, want.tokens)
    np.testing.assert_array_equal(state.reveal_step, want.reveal_step)
    with pytest.raises(mdm_jax.InputError, match=r"Klass remembers: make the state with init\("):
        loop.step(settings, PARAMS, selector, oracles.top_prob, keys, loop.init(settings, rows()))


@pytest.mark.parametrize("numbers", [{"confidence": 1.5}, {"change": -1}, {"confidence": float("nan")}])
def test_thresholds_out_of_range_are_named(numbers):
    with pytest.raises(mdm_jax.InputError, match=f"{next(iter(numbers))} must be"):
        mdm_jax.Klass(**numbers)
