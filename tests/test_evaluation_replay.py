"""A decoding call by call: derived from its result, recorded from its network, and asked for once more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.evaluation import replay

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

MASK, PARAMS, KEY = toy.MASK, toy.net_params(0), jax.random.key(3)
X_INIT = np.array([[MASK] * 7, [0, 1, 2, 3, 4, 0, 1], [MASK, 3, MASK, MASK, 1, MASK, 2]], np.int32)
ROUNDING = 1e-5
"""Sums of about ten float32 log-probabilities, each of some roundings (2^-24 of the value)."""


def strict(denoiser, temperature):
    selector = mdm_jax.TopK(4)
    options = {"mask_id": MASK, "selector": selector, "temperature": temperature}
    return mdm_jax.sample(denoiser, PARAMS, KEY, X_INIT, **options)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_trace_of_a_strict_result_is_what_the_network_was_shown_and_at_reveal_sums_to_its_log_prob(temperature):
    recorded = replay.Recorded(toy.context_net)
    result = strict(recorded, temperature)
    trace = replay.trace_of(result.tokens, result.reveal_step, mask_id=MASK)
    np.testing.assert_array_equal(recorded.trace(result, mask_id=MASK).tokens, trace.tokens)
    np.testing.assert_array_equal(trace.tokens[0], X_INIT)
    read = replay.at_reveal(toy.context_net, PARAMS, trace)
    np.testing.assert_array_equal(np.isnan(read.token_prob), X_INIT != MASK)
    np.testing.assert_array_equal(np.isnan(read.entropy), X_INIT != MASK)
    np.testing.assert_allclose(np.nansum(np.log(read.token_prob), axis=1), result.log_prob, rtol=ROUNDING)


@pytest.mark.slow
def test_at_reveal_in_chunks_is_that_of_calls_one_by_one(monkeypatch):
    result = strict(toy.context_net, 1.0)
    trace = replay.trace_of(result.tokens, result.reveal_step, mask_id=MASK)
    whole = replay.at_reveal(toy.context_net, PARAMS, trace)
    monkeypatch.setattr(replay, "TOKENS", 3 * X_INIT.size)  # 4 calls, 3 at a time
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=ROUNDING / 10),
        replay.at_reveal(toy.context_net, PARAMS, trace),
        whole,
    )
    for step in range(len(trace.tokens) - 1):
        log_p = jax.nn.log_softmax(toy.context_net(PARAMS, jnp.asarray(trace.tokens[step])))
        now = trace.is_masked[step] & ~trace.is_masked[step + 1]
        entropy = -(np.exp(log_p) * log_p).sum(axis=-1)
        np.testing.assert_allclose(whole.entropy[now], entropy[now], rtol=ROUNDING)


def test_recording_of_a_corrector_shows_what_was_taken_back_and_ends_in_its_result():
    recorded = replay.Recorded(toy.context_net)
    options = {"mask_id": MASK, "num_steps": 5, "noise": 3.0}
    result = mdm_jax.remasking_sample(recorded, PARAMS, KEY, X_INIT, **options)
    np.testing.assert_array_equal(
        result.tokens, mdm_jax.remasking_sample(toy.context_net, PARAMS, KEY, X_INIT, **options).tokens
    )
    trace = recorded.trace(result, mask_id=MASK)
    np.testing.assert_array_equal(trace.tokens[[0, -1]], [X_INIT, result.tokens])
    taken_back = ~trace.is_masked[:-1] & trace.is_masked[1:]
    revealed = trace.is_masked[:-1] & ~trace.is_masked[1:]
    assert taken_back.any()
    last = np.where(revealed.any(axis=0), len(revealed) - 1 - revealed[::-1].argmax(axis=0), -1)
    np.testing.assert_array_equal(last, result.reveal_step)
    read = replay.at_reveal(toy.context_net, PARAMS, trace)
    np.testing.assert_array_equal(np.isnan(read.token_prob), X_INIT != MASK)


def test_recording_of_two_results_is_refused():
    recorded = replay.Recorded(toy.context_net)
    strict(recorded, 0.0)
    with pytest.raises(InputError, match="8 network calls"):
        recorded.trace(strict(recorded, 0.0), mask_id=MASK)
