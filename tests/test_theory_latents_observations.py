"""The Bayes-optimal predictor against enumeration of all sequences, and what a sampler makes of it."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.theory import latents_observations, predicates
from mdm_jax.theory.latents_observations import BayesDenoiser, LatentsObservations, states
from mdm_jax.theory.predicates import Predicate, SparseObservations


def nae_bits(num_latents=6, num_observations=12, seed=0):
    tuples = predicates.random_tuples(np.random.default_rng(seed), num_observations, num_latents, 3)
    return LatentsObservations(num_latents, (0.5, 0.5), SparseObservations(predicates.nae(3, 2), tuples))


def noisy_ternary():
    """Three latents of three values, four noisy observations, an uneven prior, and an order that mixes them."""
    rng = np.random.default_rng(1)
    predicate = Predicate("any", 2, 3, (0.0, *rng.random(8).tolist()))
    tuples = np.array([[0, 1], [1, 2], [2, 0], [1, 0]], np.int32)
    return LatentsObservations(3, (0.5, 0.3, 0.2), SparseObservations(predicate, tuples), rng.permutation(7))


def slabs():
    return predicates.random_slabs(np.random.default_rng(2), 4, 5, 0.6)


def joint(distribution):
    """All sequences with their probabilities, by a plain loop."""
    num, table = distribution.num_latents, distribution.observations.predicate.table
    for latents in itertools.product(range(distribution.num_values), repeat=num):
        prior = math.prod(distribution.prior[value] for value in latents)
        chances = [table[tuple(latents[i] for i in row)] for row in distribution.observations.tuples.tolist()]
        for bits in itertools.product((0, 1), repeat=len(chances)):
            likelihood = math.prod(p if bit else 1 - p for p, bit in zip(chances, bits, strict=True))
            tokens = [0] * distribution.length
            for place, value in zip(distribution.positions, (*latents, *bits), strict=True):
                tokens[place] = value
            yield tokens, prior * likelihood


def plain_conditionals(distribution, tokens, mask_id, vocab_size):
    found = np.zeros((distribution.length, vocab_size))
    for sequence, probability in joint(distribution):
        if all(token in (mask_id, value) for token, value in zip(tokens, sequence, strict=True)):
            found[range(len(sequence)), sequence] += probability
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("make", [lambda: nae_bits(4, 5), noisy_ternary])
def test_bayes_denoiser_equals_enumeration_of_all_sequences_for_random_evidence(make):
    distribution, rng = make(), np.random.default_rng(2)
    denoiser = BayesDenoiser(distribution.num_values, mask_id=3)
    tokens = distribution.sample(rng, 12)
    tokens[rng.random(tokens.shape) < rng.random((12, 1))] = 3
    found = np.exp(denoiser(states(distribution), jnp.asarray(tokens)))
    for row, got in zip(tokens, found, strict=True):
        wanted = plain_conditionals(distribution, row, 3, denoiser.vocab_size)
        np.testing.assert_allclose(got, wanted, atol=3e-6)
        np.testing.assert_array_equal(got[wanted == 0], 0)


def test_bayes_denoiser_of_slabs_keeps_the_latents_that_agree_and_no_others():
    distribution = LatentsObservations(5, (0.5, 0.5), slabs())
    every = np.array(list(itertools.product((0, 1), repeat=5)))
    answers = distribution.observations.probabilities(every)
    shown = distribution.sample(np.random.default_rng(5), 1)[0]
    left = every[(answers == shown[5:]).all(axis=1)]
    assert 1 < len(left) < 32
    tokens = jnp.asarray(np.append(np.full(5, 2), shown[5:])[None])
    found = np.exp(BayesDenoiser(2, 2)(states(distribution), tokens))[0, :5, 1]
    np.testing.assert_allclose(found, left.mean(axis=0), atol=1e-6)


@pytest.mark.slow
def test_bayes_denoiser_in_many_chunks_equals_one(monkeypatch):
    distribution = nae_bits(5, 7)
    tokens = jnp.asarray(np.where(np.arange(12) % 3, distribution.sample(np.random.default_rng(0), 9), 2))
    params, denoiser = states(distribution), BayesDenoiser(2, mask_id=2)
    whole = jax.jit(lambda tokens: denoiser(params, tokens))(tokens)
    monkeypatch.setattr(latents_observations, "_CHUNK", 24 * 5)  # five of the 32 states at a time
    parts = jax.jit(lambda tokens: denoiser(params, tokens))(tokens)
    np.testing.assert_allclose(np.exp(parts), np.exp(whole), atol=1e-6)


def test_bayes_denoiser_answers_uniformly_on_impossible_evidence():
    tuples = np.array([[0, 1], [0, 1], [1, 0]], np.int32)
    distribution = LatentsObservations(2, (0.2, 0.3, 0.5), SparseObservations(predicates.coloring(3), tuples))
    tokens = jnp.asarray([[3, 3, 1, 0, 3], [3, 3, 1, 1, 3]])  # of one pair both answers; and the same twice
    impossible, possible = np.exp(BayesDenoiser(3, mask_id=3)(states(distribution), tokens))
    np.testing.assert_allclose(impossible[:2], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(impossible[2:], [[0, 1, 0], [1, 0, 0], [0.5, 0.5, 0]], rtol=1e-6)
    np.testing.assert_allclose(possible[4], [0, 1, 0], atol=1e-6)


@pytest.mark.thinned(6)
@pytest.mark.parametrize("oracle", ["margin", "left_to_right", "top_prob", "random", "neg_entropy", "token_prob"])
def test_one_token_at_a_time_is_exact_under_every_order(oracle):
    distribution = nae_bits()
    start = jnp.full((200, distribution.length), 2)
    order = getattr(mdm_jax.oracles, oracle)
    result = mdm_jax.sample(
        BayesDenoiser(2, 2), states(distribution), jax.random.key(0), start, mask_id=2, oracle=order
    )
    assert distribution.consistent(np.asarray(result.tokens)).min() == 1


@pytest.mark.slow
def test_one_token_at_a_time_under_margin_samples_the_distribution_itself():
    # Frequencies of all 32 values of 3 latents and 2 observations, of 20,000 samples, against the exact ones.
    distribution = nae_bits(3, 2)
    start = jnp.full((20_000, 5), 2)
    tokens = mdm_jax.sample(BayesDenoiser(2, 2), states(distribution), jax.random.key(1), start, mask_id=2).tokens
    counts = np.bincount(np.asarray(tokens) @ (2 ** np.arange(5)), minlength=32)
    exact = np.zeros(32)
    for sequence, probability in joint(distribution):
        exact[np.asarray(sequence) @ (2 ** np.arange(5))] += probability
    assert (counts[exact == 0] == 0).all()
    wanted = 20_000 * exact[exact > 0]
    statistic = (np.square(counts[exact > 0] - wanted) / wanted).sum()
    assert statistic < stats.chi2.ppf(1 - 1e-6, len(wanted) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("oracle", ["random", "margin"])
def test_several_tokens_at_a_time_lose_consistency_the_more_the_worse(oracle):
    distribution, params = nae_bits(), states(nae_bits())
    start, order = jnp.full((400, distribution.length), 2), getattr(mdm_jax.oracles, oracle)
    shares = []
    for k in (1, 3, 18):
        result = mdm_jax.sample(
            BayesDenoiser(2, 2),
            params,
            jax.random.key(2),
            start,
            mask_id=2,
            oracle=order,
            selector=mdm_jax.PerStep(k),
        )
        shares.append(distribution.consistent(np.asarray(result.tokens)).mean())
    assert shares[0] == 1
    assert shares[0] - 0.05 > shares[1] > shares[2] + 0.05
    assert abs(shares[2] - 0.625) < 0.03  # all at once: bits that do not know of one another, 0.75² + 0.25²


@pytest.mark.slow
def test_margin_draws_coupled_observations_together_and_loses_more_than_random_order():
    distribution, params = nae_bits(10, 50), states(nae_bits(10, 50))
    start = jnp.full((300, 60), 2)
    share = {
        name: distribution.consistent(
            np.asarray(
                mdm_jax.sample(
                    BayesDenoiser(2, 2),
                    params,
                    jax.random.key(0),
                    start,
                    mask_id=2,
                    oracle=getattr(mdm_jax.oracles, name),
                    selector=mdm_jax.PerStep(4),
                ).tokens
            )
        ).mean()
        for name in ("random", "margin")
    }
    assert share["margin"] < share["random"] - 0.05  # 0.68 against 0.81


def test_samples_have_the_prior_the_predicate_and_the_places():
    distribution = noisy_ternary()
    tokens = distribution.sample(np.random.default_rng(3), 20_000)
    latents = tokens[:, distribution.positions[:3]]
    for value, share in enumerate(distribution.prior):
        assert abs((latents == value).mean() - share) < 5 * math.sqrt(0.25 / 60_000)
    assert tokens[:, distribution.positions[3:]].max() == 1
    exact = sum(p for sequence, p in joint(distribution) if sequence[distribution.positions[3]])
    assert abs(tokens[:, distribution.positions[3]].mean() - exact) < 5 * math.sqrt(0.25 / 20_000)


def test_not_all_equal_observations_are_one_three_quarters_of_the_time():
    tokens = nae_bits(20, 40).sample(np.random.default_rng(4), 2000)
    assert abs(tokens[:, 20:].mean() - 0.75) < 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LatentsObservations(0, (0.5, 0.5), nae_bits().observations), "num_latents=0"),
        (lambda: LatentsObservations(2, (0.5, 0.6), nae_bits().observations), "sums to 1"),
        (lambda: LatentsObservations(6, (0.5, 0.5), nae_bits().observations, np.zeros(18, int)), "a permutation of 0"),
        (lambda: states(nae_bits(26, 12)), "too much to enumerate"),
        (lambda: states(nae_bits(1100, 12)), r"2\^1100 states of N=1100"),
        (lambda: LatentsObservations(5, (0.5, 0.5), nae_bits().observations), "give 0 to 4"),
        (lambda: LatentsObservations(6, (0.5, 0.3, 0.2), nae_bits().observations), "of m=2 values, not 3"),
        (lambda: LatentsObservations(4, (0.5, 0.5), slabs()), "slabs are of 5 bits, not 4"),
        (
            lambda: BayesDenoiser(2, 2)(states(nae_bits()), jnp.zeros((1, 17), jnp.int32)),
            r"tokens are \[B, 18\] for these states",
        ),
        (lambda: BayesDenoiser(2, mask_id=1), "mask_id=1 is a value"),
    ],
)
def test_bad_parameters_are_one_line_that_names_them(make, message):
    with pytest.raises(InputError, match=message):
        make()
