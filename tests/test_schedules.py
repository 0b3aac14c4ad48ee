"""alpha_t, its derivative and the weights made of them, against float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mdm_jax

SCHEDULES = [
    mdm_jax.Linear(),
    mdm_jax.Cosine(),
    mdm_jax.Polynomial(2),
    mdm_jax.Polynomial(0.5),
    mdm_jax.Polynomial(3.5),
]
TIMES = np.linspace(0.02, 1, 99)


def alpha64(schedule, t):
    """alpha_t as DESIGN.md's formulas have it, in float64."""
    t = np.asarray(t, np.float64)
    if isinstance(schedule, mdm_jax.Linear):
        return 1 - t
    if isinstance(schedule, mdm_jax.Cosine):
        return 1 - np.cos(np.pi * (1 - t) / 2)
    return 1 - t**schedule.power


def weight64(schedule, t):
    """|alpha'_t| / (1 - alpha_t) in float64, written so that nothing cancels as t -> 0."""
    t = np.asarray(t, np.float64)
    if isinstance(schedule, mdm_jax.Linear):
        return 1 / t
    if isinstance(schedule, mdm_jax.Cosine):
        return np.pi / 2 / np.tan(np.pi * t / 2)
    return schedule.power / t


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_alpha_at_the_ends_is_exactly_one_and_zero(schedule):
    ends = jnp.array([0.0, 1.0])
    np.testing.assert_array_equal(schedule.alpha(ends), [1, 0])
    np.testing.assert_array_equal(jax.jit(schedule.alpha)(ends), [1, 0])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_alpha_over_time_matches_its_formula_and_never_rises(schedule):
    t = np.linspace(0, 1, 1001, dtype=np.float32)
    alpha = np.asarray(schedule.alpha(t))
    assert alpha.dtype == np.float32
    np.testing.assert_allclose(alpha, alpha64(schedule, t), atol=3e-7)
    assert (np.diff(alpha) <= 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_alpha_prime_matches_central_differences_of_alpha(schedule):
    t, h = TIMES[:-1], 1e-5
    slope = (alpha64(schedule, t + h) - alpha64(schedule, t - h)) / (2 * h)
    prime = np.asarray(schedule.alpha_prime(jnp.asarray(t, jnp.float32)))
    assert (prime < 0).all()
    np.testing.assert_allclose(prime, slope, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_alpha_prime_matches_automatic_differentiation_of_alpha(schedule):
    t = jnp.asarray(TIMES[:-1], jnp.float32)
    np.testing.assert_allclose(schedule.alpha_prime(t), jax.vmap(jax.grad(schedule.alpha))(t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_elbo_weight_from_tiny_to_late_times_keeps_float32_relative_accuracy(schedule):
    # 1 - alpha(t) taken as a difference of float32 numbers would be off by half its value at t = 1e-7.
    t = np.concatenate([np.geomspace(1e-37, 0.9, 400), 2.0 ** -np.arange(1, 30)]).astype(np.float32)
    for weight in (schedule.elbo_weight(t), jax.jit(schedule.elbo_weight)(t)):
        assert weight.dtype == jnp.float32
        np.testing.assert_allclose(weight, weight64(schedule, t), rtol=3e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_elbo_weight_at_time_one_is_the_derivative_there(schedule):
    np.testing.assert_allclose(schedule.elbo_weight(jnp.float32(1)), weight64(schedule, 1), atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_reveal_prob_over_pairs_of_times_matches_its_definition(schedule):
    t, s = (x.ravel().astype(np.float32) for x in np.meshgrid(TIMES, np.linspace(0, 1, 37)))
    t, s = t[s <= t], s[s <= t]
    t64, s64 = t.astype(np.float64), s.astype(np.float64)
    expected = (alpha64(schedule, s64) - alpha64(schedule, t64)) / (1 - alpha64(schedule, t64))
    reveal = np.asarray(schedule.reveal_prob(t, s))
    np.testing.assert_allclose(reveal, expected, atol=1e-6)
    assert ((reveal >= 0) & (reveal <= 1)).all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_reveal_prob_into_time_zero_is_exactly_one(schedule):
    t = jnp.asarray([0.0, 1e-30, 1e-6, 0.3, 1.0])
    np.testing.assert_array_equal(jax.jit(schedule.reveal_prob)(t, jnp.zeros(5)), np.ones(5))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_reveal_prob_between_equal_times_is_exactly_zero(schedule):
    t = jnp.asarray(TIMES, jnp.float32)
    np.testing.assert_array_equal(jax.jit(schedule.reveal_prob)(t, t), np.zeros(len(TIMES)))


def test_reveal_prob_at_small_times_keeps_relative_accuracy():
    # 1 - alpha is near 1e-7 here, so differences of float32 alphas would be noise.
    t, s = jnp.float32(1e-7), jnp.float32(2.5e-8)
    assert math.isclose(mdm_jax.Linear().reveal_prob(t, s), 0.75, rel_tol=1e-5)
    assert math.isclose(mdm_jax.Cosine().reveal_prob(t, s), 0.75, rel_tol=1e-5)
    assert math.isclose(mdm_jax.Polynomial(2).reveal_prob(t, s), 1 - 1 / 16, rel_tol=1e-5)


def test_schedules_made_twice_are_equal_and_hash_alike():
    assert mdm_jax.Polynomial(2.5) == mdm_jax.Polynomial(2.5) != mdm_jax.Polynomial(2)
    assert {mdm_jax.Linear(), mdm_jax.Linear(), mdm_jax.Cosine(), mdm_jax.Cosine()} == {
        mdm_jax.Linear(),
        mdm_jax.Cosine(),
    }


@pytest.mark.parametrize("power", [0, -1, -0.5, math.nan])
def test_polynomial_with_a_power_not_above_zero_is_refused(power):
    with pytest.raises(mdm_jax.InputError, match="power"):
        mdm_jax.Polynomial(power)
