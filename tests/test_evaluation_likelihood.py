"""Likelihoods of continuations, against the losses and against enumeration."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from languages import MASK, PAD, write_model

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.evaluation.likelihood import AT_ONCE, Continuation, log_likelihoods

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm_jax.load(write_model(tmp_path_factory.mktemp("model"), vocab_size=24, max_length=128))


ROUNDING = 1e-4
"""Two programs of one float32 network of one layer differ by at most some hundred roundings (2^-24 of the value)."""
ASKED = [
    Continuation([7, 8, 9], [10, 11, 12, 13]),
    Continuation([7, 8, 9], [10]),
    Continuation([7, 8, 9], [11]),
    Continuation([], [20, 21, 22]),
    Continuation([5] * 70, [6, 7]),
]


def found(model, continuations, **options):
    own = {"mask_id": MASK, "pad_id": PAD, "max_length": 128, "batch_size": 3} | options
    return log_likelihoods(model.denoiser, model.params, continuations, **own)


def alone(model, prompt, tokens):
    return jnp.asarray([[*prompt, *tokens]]), jnp.asarray([[True] * len(prompt) + [False] * len(tokens)])


@pytest.mark.slow
def test_likelihood_from_left_to_right_is_that_of_the_order(model):
    asked = [ASKED[0], ASKED[3]]
    for (prompt, tokens), got in zip(asked, found(model, asked, order="left_to_right"), strict=True):
        x_0, is_prompt = alone(model, prompt, tokens)
        order = mdm_jax.identity_order(1, x_0.shape[1])
        nats = mdm_jax.order_nll(model.denoiser, model.params, x_0, order, mask_id=MASK, is_prompt=is_prompt)
        np.testing.assert_allclose(got, -nats[0], rtol=ROUNDING)


def test_bound_is_the_mean_over_all_subsets_of_tokens(model):
    prompt, tokens = ASKED[0]
    x_0, _ = alone(model, prompt, tokens)
    subsets = [list(subset) for n in range(1, 5) for subset in itertools.combinations(range(3, 7), n)]
    x = np.array(np.repeat(x_0, len(subsets), axis=0))
    for row, subset in zip(x, subsets, strict=True):
        row[subset] = MASK
    log_p = toy.log_softmax(jax.jit(model.denoiser)(model.params, x), MASK)
    sums = [log_p[i, subset, np.asarray(x_0)[0, subset]].sum() for i, subset in enumerate(subsets)]
    total = sum(nats / len(subset) / math.comb(4, len(subset)) for nats, subset in zip(sums, subsets, strict=True))
    draws = [found(model, ASKED[:1], num_draws=64, seed=seed)[0] for seed in range(6)]
    assert abs(np.mean(draws) - total) < 4 * np.std(draws) / np.sqrt(6) + 1e-3
    assert abs(np.mean(draws) - total) < 0.1 * abs(total)


def test_choices_of_one_token_cost_one_call_and_sum_to_all_probability(model):
    calls = []

    def counting(params, tokens):
        jax.debug.callback(lambda: calls.append(1))
        return model.denoiser(params, tokens)

    choices = [Continuation([7, 8, 9], [token]) for token in range(24) if token != MASK]
    got = log_likelihoods(counting, model.params, choices, mask_id=MASK, pad_id=PAD, max_length=128)
    jax.effects_barrier()
    np.testing.assert_allclose(np.exp(got).sum(), 1, rtol=ROUNDING)
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.parametrize("order", ["all", "left_to_right"])
def test_likelihood_depends_on_no_batch_and_padding(model, order, tmp_path):
    unpadded = mdm_jax.load(write_model(tmp_path, vocab_size=24, max_length=128, pad_id=None))
    asked, options = ASKED[:4], {"order": order, "num_draws": 4}
    together = found(model, asked, **options)
    np.testing.assert_allclose(together, found(model, asked, **options, batch_size=16), rtol=ROUNDING)
    np.testing.assert_allclose(together, found(unpadded, asked, **options, pad_id=None), rtol=ROUNDING)


@pytest.mark.slow
def test_many_continuations_are_scored_as_few(model):
    asked = ASKED[:4]
    many = found(model, asked * 80, order="left_to_right")
    assert len(many) > AT_ONCE
    np.testing.assert_allclose(many, found(model, asked, order="left_to_right") * 80, rtol=ROUNDING / 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"continuations": [Continuation([1], [])]}, "continuation 1 has 0 tokens"),
        ({"continuations": [Continuation([5] * 128, [6])]}, "128 in all at most"),
        ({"continuations": [Continuation([5], [MASK])]}, "no mask"),
        ({"order": "best"}, "order='best' is unknown"),
        ({"num_draws": 0}, "num_draws"),
    ],
)
def test_wrong_argument_is_named(model, change, words):
    with pytest.raises(InputError, match=words):
        found(model, **{"continuations": ASKED} | change)
