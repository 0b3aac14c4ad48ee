"""The pseudo-log-likelihood: against plain loops, in groups, and blind to what is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import MASK, Named, OnlyFeatures, context_net, features_net, log_softmax, net_params, quick_compilation

import mdm_jax

PARAMS = net_params(1)
quick = pytest.fixture(scope="module", autouse=True)(quick_compilation)


def answers(batch=4, length=7):
    """Tokens, and a random part of them that is free; of the last row none is."""
    rng = np.random.default_rng(0)
    is_free = rng.random((batch, length)) < 0.6
    is_free[-1] = False
    return jnp.asarray(rng.integers(0, 5, (batch, length)), jnp.int32), jnp.asarray(is_free)


def by_loop(tokens, is_free, num_calls):
    """The sum, position by position."""
    total = 0.0
    free = np.flatnonzero(is_free)
    for number, position in enumerate(free):
        hidden = [other for i, other in enumerate(free) if i % num_calls == number % num_calls]
        masked = np.array(tokens)
        masked[hidden] = MASK
        logits = context_net(PARAMS, jnp.asarray(masked[None]))[0, position]
        total += log_softmax(logits)[tokens[position]]
    return total


@pytest.mark.parametrize("net", [context_net, features_net, OnlyFeatures()])
@pytest.mark.parametrize("num_calls", [1, 2, 3, 7, None, 50])
def test_sum_is_that_of_each_group_masked_alone(net, num_calls):
    tokens, is_free = answers()
    got = mdm_jax.pseudo_log_likelihood(net, PARAMS, tokens, is_free, mask_id=MASK, num_calls=num_calls)
    want = [
        by_loop(np.asarray(one), np.asarray(free), num_calls or 7) for one, free in zip(tokens, is_free, strict=True)
    ]
    np.testing.assert_allclose(got.log_prob, want, atol=1e-5)  # seven float32 log-softmaxes of order 1
    assert got.nfe == min(num_calls or 7, int(is_free.sum(axis=1).max()))


def test_row_of_which_nothing_is_free_has_none_and_one_of_given_tokens_alone_costs_nothing():
    tokens, is_free = answers()
    got = mdm_jax.pseudo_log_likelihood(context_net, PARAMS, tokens, is_free, mask_id=MASK)
    assert got.log_prob[-1] == 0
    assert mdm_jax.pseudo_log_likelihood(context_net, PARAMS, tokens[-1:], is_free[-1:], mask_id=MASK).nfe == 0


def test_row_with_a_mask_where_it_is_free_has_minus_infinity():
    tokens, is_free = answers()
    at = int(np.flatnonzero(is_free[0])[0])
    got = mdm_jax.pseudo_log_likelihood(context_net, PARAMS, tokens.at[0, at].set(MASK), is_free, mask_id=MASK)
    assert got.log_prob[0] == -jnp.inf
    assert jnp.isfinite(got.log_prob[1:]).all()


def test_exact_model_gives_the_conditionals_of_its_own_joint():
    joint = np.array([[0.5, 0.1], [0.0, 0.4]])

    def net(params, tokens):
        """Each of two tokens given the other."""
        given = jnp.where(tokens == 2, 0, tokens)
        first, second = params[:, given[:, 1]].T, params[given[:, 0]]
        return jnp.log(jnp.stack([first, second], axis=1))

    tokens = jnp.array([[0, 0], [0, 1], [1, 1]])
    got = mdm_jax.pseudo_log_likelihood(net, jnp.asarray(joint), tokens, jnp.ones((3, 2), bool), mask_id=2)
    want = [np.log(0.5 / 0.5 * 0.5 / 0.6), np.log(0.1 / 0.5 * 0.1 / 0.6), np.log(0.4 / 0.5 * 1.0)]
    np.testing.assert_allclose(got.log_prob, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_calls": 0}, "num_calls must be"),
        ({"is_free": jnp.ones((4, 3), bool)}, r"is_free must be bool \[4, 7\]"),
        ({"is_free": jnp.ones((4, 7), jnp.int32)}, "got int32"),
        ({"is_free": None}, "is_free must be bool"),
        ({"mask_id": -1}, "mask_id must be"),
        ({"denoiser": 3}, "denoiser must be a function"),
    ],
)
def test_what_cannot_be_used_is_named(changes, said):
    tokens, is_free = answers()
    given = {"denoiser": context_net, "params": PARAMS, "tokens": tokens, "is_free": is_free, "mask_id": MASK} | changes
    with pytest.raises(mdm_jax.InputError, match=said):
        mdm_jax.pseudo_log_likelihood(given.pop("denoiser"), given.pop("params"), **given)


def test_id_that_the_network_does_not_know_is_refused_or_not_a_number_under_jit():
    tokens, is_free = jnp.array([[0, 1, 2], [0, 1, 99]]), jnp.array([[True, True, False]] * 2)

    def score(tokens):
        return mdm_jax.pseudo_log_likelihood(Named(MASK + 1), PARAMS, tokens, is_free, mask_id=MASK).log_prob

    with pytest.raises(mdm_jax.InputError, match="holds the id 99"):
        score(tokens)
    np.testing.assert_array_equal(np.isnan(jax.jit(score)(tokens)), [False, True])
    found = mdm_jax.pseudo_log_likelihood(context_net, PARAMS, jnp.array([[6]]), jnp.array([[True]]), mask_id=MASK)
    assert np.isnan(found.log_prob).all(), "an id without a logit"


def test_it_runs_under_jit():
    tokens, is_free = answers()
    given = {"mask_id": MASK, "num_calls": 2}
    run = jax.jit(
        lambda params, tokens, free: mdm_jax.pseudo_log_likelihood(context_net, params, tokens, free, **given)
    )
    np.testing.assert_array_equal(
        run(PARAMS, tokens, is_free).log_prob,
        mdm_jax.pseudo_log_likelihood(context_net, PARAMS, tokens, is_free, **given).log_prob,
    )
