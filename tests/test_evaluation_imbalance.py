"""The error of conditionals, position by position."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.evaluation import imbalance
from mdm_jax.evaluation.intervals import mean_interval


def test_masks_hide_as_many_latents_as_asked_and_as_large_a_share_of_observations():
    masks = imbalance.draw_masks(np.random.default_rng(0), 4000, 20, 280, 11)
    assert masks.shape == (4000, 300)
    assert set(masks[:, :20].sum(axis=1)) == {11}
    assert set(masks[:, 20:].sum(axis=1)) == {154}  # 11 + 154 = 165 positions, as in the paper
    share = masks.mean(axis=0)
    assert np.abs(share - 0.55).max() < 5 * math.sqrt(0.25 / 4000)


@pytest.mark.parametrize("masked", [0, 20])
def test_masks_of_no_or_all_latents_are_refused(masked):
    with pytest.raises(InputError, match=f"masked_latents={masked}: give 1 to 19"):
        imbalance.draw_masks(np.random.default_rng(0), 1, 20, 280, masked)


def test_log_probs_are_those_of_the_hidden_tokens_given_the_shown_ones():
    rng = np.random.default_rng(1)
    x_0, is_masked = rng.integers(2, size=(7, 6)), rng.random((7, 5)) < 0.5
    table = rng.normal(size=(4, 4))

    def denoiser(params, tokens):  # looks at how many masks there are, and at the token's own place
        count = (tokens == 3).sum(axis=1)[:, None, None]
        return params["table"][tokens] + count * params["place"][None, : tokens.shape[1]]

    params = {"table": jnp.asarray(table), "place": jnp.asarray(rng.normal(size=(6, 4)))}
    found = imbalance.log_probs(denoiser, params, x_0, is_masked, mask_id=3, batch_size=3)
    assert found.shape == (7, 5)
    for row in range(7):
        hidden = np.append(is_masked[row], False)
        shown = np.where(hidden, 3, x_0[row])
        logits = table[shown] + hidden.sum() * np.asarray(params["place"])
        logits[:, 3] = -np.inf  # the mask is never predicted
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        wanted = np.where(hidden, log_p[range(6), x_0[row]], 0)[:5]
        # four roundings (product, sum, difference, logarithm) of logits below 32
        np.testing.assert_allclose(found[row], wanted, rtol=0, atol=4 * 32 * 2**-24)


def test_errors_average_over_masked_positions_first_and_sequences_then():
    is_masked = np.array([[True, True, False, True], [True, False, True, False]])
    log_p = np.array([[-1.0, -2.0, 9.0, -3.0], [-0.5, 9.0, -1.0, 9.0]])
    log_q = np.array([[0.0, -1.0, 0.0, -1.0], [-0.5, 0.0, -4.0, 0.0]])
    found = imbalance.errors(log_p, log_q, is_masked, 2)
    np.testing.assert_allclose(found.positions[:, 0], [0.5, 1.0, 9.0, 4.0])
    np.testing.assert_allclose(found.positions[0, 1:], mean_interval([1.0, 0.0]))
    np.testing.assert_allclose(found.positions[1, 1:], [1.0, 1.0])  # of one sequence
    assert found.latents[0] == pytest.approx((1.0 + 0.0) / 2)
    assert found.observations[0] == pytest.approx((4.0 + 9.0) / 2)
    assert found.latents[1:] == pytest.approx(mean_interval([1.0, 0.0]))


def test_positions_that_are_never_masked_have_no_error():
    found = imbalance.errors(np.zeros((1, 3)), np.zeros((1, 3)), np.array([[True, False, True]]), 2)
    np.testing.assert_array_equal(np.isnan(found.positions[:, 0]), [False, True, False])
    assert (
        imbalance.errors(np.zeros((1, 3)), np.zeros((1, 3)), np.array([[True, False, False]]), 2).observations is None
    )


def test_log_probs_of_many_masks_are_traced_once():
    traced = []

    def denoiser(params, tokens):
        traced.append(tokens.shape)
        return params[tokens]

    x_0 = np.zeros((7, 4), int)
    for seed in range(3):
        is_masked = np.random.default_rng(seed).random((7, 4)) < 0.5
        imbalance.log_probs(denoiser, jnp.zeros((4, 2)), x_0, is_masked, mask_id=3, batch_size=3)
    assert traced == [(3, 4)]


@pytest.mark.parametrize("size", [2, 4, 100])
def test_mean_interval_covers_the_mean_of_normal_values_in_nineteen_of_twenty_cases(size):
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(2000):
        low, high = mean_interval(rng.normal(3.0, 2.0, size=size))
        covered += low < 3.0 < high
    assert abs(covered / 2000 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 2000)
    assert mean_interval([0.7]) == (0.7, 0.7)
