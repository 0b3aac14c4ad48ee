"""Oracles: what each scores, on which logits they disagree, and what they may draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mdm_jax
from mdm_jax import oracles

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

DETERMINISTIC = ["left_to_right", "top_prob", "margin", "top_log_prob", "log_margin", "neg_entropy", "token_prob"]


def confidence_of(probs, *, temperature=0.0, seed=0):
    """Confidence of hand-made probabilities [L, V], as one row."""
    logits = jnp.log(jnp.asarray(probs, jnp.float32))[None]
    return mdm_jax.confidence_from_logits(jax.random.key(seed), logits, temperature=temperature)


def best_position(oracle, confidence):
    return int(jnp.argmax(oracle(jax.random.key(0), confidence)[0]))


def test_top_prob_and_margin_on_two_competing_values_choose_differently():
    # Position 0 has the higher peak and a close rival; position 1 a lower peak and no rival.
    confidence = confidence_of([[0.52, 0.46, 0.01, 0.01], [0.50, 0.20, 0.15, 0.15]])
    assert best_position(oracles.top_prob, confidence) == 0
    assert best_position(oracles.margin, confidence) == 1


def test_neg_entropy_on_a_thin_tail_chooses_differently_from_top_prob_and_margin():
    # Position 0: peak 0.6 and margin 0.45, but spread; position 1: peak and margin lower, two values only.
    confidence = confidence_of([[0.60, 0.15, 0.13, 0.12], [0.58, 0.42, 0.0, 0.0]])
    assert best_position(oracles.top_prob, confidence) == 0
    assert best_position(oracles.margin, confidence) == 0
    assert best_position(oracles.neg_entropy, confidence) == 1


def test_margin_and_log_margin_on_a_flat_prediction_choose_differently():
    # Position 0 has the wider gap and twice its rival's probability; position 1 nearly four times its rivals'.
    confidence = confidence_of([[0.60, 0.30, 0.10, 0, 0, 0, 0, 0], [0.35, *[0.65 / 7] * 7]])
    assert best_position(oracles.margin, confidence) == 0
    assert best_position(oracles.log_margin, confidence) == 1


def test_log_oracles_of_probabilities_that_underflow_are_finite():
    logits = jnp.asarray([[[0.0, -200.0, -300.0], [-jnp.inf, 0.0, -jnp.inf], [5.0, -75.0, -jnp.inf]]])
    confidence = mdm_jax.confidence_from_logits(jax.random.key(0), logits, temperature=0.0)
    assert confidence.second_prob[0, :2].tolist() == [0, 0]
    np.testing.assert_allclose(oracles.log_margin(None, confidence), [[87.33655, 87.33655, 80]], rtol=1e-6)
    np.testing.assert_array_equal(oracles.top_log_prob(None, confidence), [[0, 0, 0]])


def test_every_oracle_on_hand_made_probabilities_gives_the_scores_of_its_definition():
    probs = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    confidence = confidence_of(probs)
    expected = {
        "left_to_right": [0, -1, -2],
        "top_prob": [0.5, 0.8, 0.5],
        "margin": [0.2, 0.7, 0.25],
        "top_log_prob": np.log([0.5, 0.8, 0.5]),
        "log_margin": np.log([0.5 / 0.3, 8, 2]),
        "neg_entropy": (probs * np.log(probs)).sum(axis=-1),
        "token_prob": [0.5, 0.8, 0.5],
    }
    for name, scores in expected.items():
        got = getattr(oracles, name)(jax.random.key(0), confidence)
        assert got.dtype == jnp.float32, name
        np.testing.assert_allclose(got, [scores], atol=1e-6, err_msg=name)


def test_token_prob_at_temperature_one_scores_the_token_drawn_not_the_likeliest():
    probs = np.array([0.5, 0.3, 0.15, 0.05])
    confidence = confidence_of(np.tile(probs, (200, 1)), temperature=1.0)
    tokens = np.asarray(confidence.token[0])
    assert set(tokens) == {0, 1, 2, 3}
    np.testing.assert_allclose(oracles.token_prob(jax.random.key(0), confidence)[0], probs[tokens], atol=1e-6)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_oracles_with_another_key_score_alike(name):
    confidence = confidence_of(np.random.default_rng(0).dirichlet(np.ones(4), size=6))
    oracle = getattr(oracles, name)
    np.testing.assert_array_equal(oracle(jax.random.key(0), confidence), oracle(jax.random.key(1), confidence))


@pytest.mark.parametrize("name", DETERMINISTIC[1:])
def test_scores_of_equal_predictions_are_exactly_equal(name):
    # So that ties are ties, and the lowest index wins them, whatever the position.
    row = np.random.default_rng(1).dirichlet(np.ones(5))
    scores = np.asarray(getattr(oracles, name)(jax.random.key(0), confidence_of(np.tile(row, (7, 1)))))
    assert len(set(scores[0].tolist())) == 1


def test_random_oracle_over_many_keys_orders_three_positions_uniformly():
    confidence = confidence_of(np.random.default_rng(2).dirichlet(np.ones(4), size=3))
    keys = jax.random.split(jax.random.key(3), 12_000)
    scores = jax.vmap(lambda key: oracles.random(key, confidence)[0])(keys)
    order = np.argsort(np.asarray(scores), axis=-1)
    code = order @ [9, 3, 1]
    toy.assert_frequencies(np.searchsorted(np.unique(code), code), np.full(6, 1 / 6))
    assert float(scores.min()) >= 0
    assert float(scores.max()) < 1


def test_random_oracle_ignores_what_the_network_says():
    key = jax.random.key(4)
    sure, unsure = confidence_of(np.eye(4) * 0.9 + 0.025), confidence_of(np.full((4, 4), 0.25))
    np.testing.assert_array_equal(oracles.random(key, sure), oracles.random(key, unsure))


def test_with_noise_made_twice_is_equal_and_hashes_alike():
    assert oracles.with_noise(oracles.margin, 0.5) == mdm_jax.with_noise(oracles.margin, 0.5)
    assert hash(oracles.with_noise(oracles.margin, 0.5)) == hash(oracles.with_noise(oracles.margin, 0.5))
    assert oracles.with_noise(oracles.margin, 0.5) != oracles.with_noise(oracles.margin, 0.4)
    assert oracles.with_noise(oracles.margin, 0.5) != oracles.with_noise(oracles.top_prob, 0.5)


def test_with_noise_takes_a_number_of_jax_and_a_new_scale_compiles_nothing():
    assert oracles.with_noise(oracles.margin, jnp.float32(0.5)) == oracles.with_noise(oracles.margin, 0.5)
    traces = []

    def noted(key, confidence):
        traces.append(1)
        return confidence.top_prob

    for scale in (0.1, 0.2):
        given = (toy.context_net, toy.net_params(0), jax.random.key(0), jnp.full((2, 6), toy.MASK))
        mdm_jax.sample(*given, mask_id=toy.MASK, oracle=oracles.with_noise(noted, scale))
    assert len(traces) == 1


@pytest.mark.parametrize("partial", [functools.partial, jax.tree_util.Partial])
def test_oracle_with_an_argument_bound_keeps_it(partial):
    def signed(key, confidence, sign=1.0):
        return sign * confidence.top_prob

    given = (toy.context_net, toy.net_params(0), jax.random.key(0), jnp.full((2, 6), toy.MASK))
    options = {"mask_id": toy.MASK, "temperature": 0}
    want = mdm_jax.sample(*given, oracle=lambda key, confidence: -confidence.top_prob, **options)
    other = mdm_jax.sample(*given, oracle=signed, **options)
    bound = partial(signed, sign=-1.0)
    beam = mdm_jax.search_sample(*given, mask_id=toy.MASK, width=1, oracle=bound)
    for got in (mdm_jax.sample(*given, oracle=bound, **options), beam):
        np.testing.assert_array_equal(got.reveal_step, want.reveal_step)
    assert (want.reveal_step != other.reveal_step).any()


def test_with_noise_of_scale_zero_scores_as_the_oracle():
    confidence = confidence_of(np.random.default_rng(5).dirichlet(np.ones(4), size=6))
    key = jax.random.key(5)
    noisy = oracles.with_noise(oracles.margin, 0.0)(key, confidence)
    np.testing.assert_array_equal(noisy, oracles.margin(key, confidence))


def test_with_noise_over_many_keys_adds_independent_gaussian_noise_of_its_scale():
    from scipy import stats

    confidence = confidence_of([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    oracle = oracles.with_noise(oracles.margin, 0.3)
    scores = jax.vmap(lambda key: oracle(key, confidence)[0])(jax.random.split(jax.random.key(6), 20_000))
    noise = (np.asarray(scores, np.float64) - np.asarray(oracles.margin(None, confidence)[0], np.float64)) / 0.3
    for position in range(2):
        assert stats.kstest(noise[:, position], "norm").pvalue > 1e-5
    # The correlation of n independent pairs is normal with deviation 1/sqrt(n): 4.5 deviations.
    assert abs(np.corrcoef(noise.T)[0, 1]) < 4.5 / np.sqrt(len(noise))


def test_with_noise_around_the_random_oracle_draws_score_and_noise_from_different_keys():
    confidence = confidence_of(np.full((1, 4), 0.25))
    keys = jax.random.split(jax.random.key(7), 20_000)
    wide = oracles.with_noise(oracles.random, 1e6)
    noisy = jax.vmap(lambda key: wide(key, confidence)[0, 0])(keys)
    small = jax.vmap(lambda key: oracles.with_noise(oracles.random, 0.0)(key, confidence)[0, 0])(keys)
    assert abs(np.corrcoef(np.asarray(noisy), np.asarray(small))[0, 1]) < 4.5 / np.sqrt(len(keys))
