"""Beam search: exact on small spaces, equal to `sample` with one filling, and honest about what it costs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import MASK, PAD, context_net, features_net, net_params, quick_compilation

import mdm_jax
from mdm_jax import oracles

KEY = jax.random.key(0)
quick = pytest.fixture(scope="module", autouse=True)(quick_compilation)


def rows(seed, batch=4, length=6):
    """Tokens with a random half of them masked, and a row that is given whole."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, (batch, length))
    tokens[rng.random((batch, length)) < 0.6] = MASK
    tokens[-1] = 3
    return jnp.asarray(tokens, jnp.int32)


def search(net, params, x_init, **options):
    return mdm_jax.search_sample(net, params, KEY, x_init, mask_id=MASK, **options)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("oracle", ["margin", "left_to_right", "random"])
@pytest.mark.parametrize("net", [context_net, features_net])
def test_one_filling_is_sample_element_for_element(net, oracle):
    params, x_init, oracle = net_params(1), rows(1), getattr(oracles, oracle)
    got = search(net, params, x_init, width=1, oracle=oracle)
    want = mdm_jax.sample(net, params, KEY, x_init, mask_id=MASK, oracle=oracle, temperature=0)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def chain_log_prob(params, x_init, filled, order):
    """Log p_theta of revealing the tokens of `filled` one by one in this order."""
    tokens, total = np.array(x_init), 0.0
    for position in order:
        logits = np.asarray(context_net(params, jnp.asarray(tokens[None])), np.float64)[0, position]
        total += logits[filled[position]] - np.log(np.exp(logits).sum())
        tokens[position] = filled[position]
    return total


@pytest.mark.thinned(2)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_full_width_over_two_tokens_finds_the_likeliest_of_all_fillings(seed):
    params = net_params(seed, vocab_size=2, scale=0.7)
    x_init = jnp.array([[MASK, 1, MASK, MASK, 0, MASK]], jnp.int32)
    got = search(context_net, params, x_init, width=16, doubt=0, oracle=oracles.left_to_right)
    masked = np.flatnonzero(np.asarray(x_init[0]) == MASK)
    chains = {}
    for values in itertools.product(range(2), repeat=len(masked)):
        filled = np.array(x_init[0])
        filled[masked] = values
        chains[tuple(filled.tolist())] = chain_log_prob(params, x_init[0], filled, masked)
    likeliest = max(chains, key=chains.get)
    assert tuple(got.tokens[0].tolist()) == likeliest
    assert float(got.log_prob[0]) == pytest.approx(chains[likeliest], abs=1e-5)  # four float32 log-softmaxes of order 1


def test_log_prob_is_that_of_the_order_in_which_the_filling_was_made():
    params, x_init = net_params(2), rows(2)
    got = search(context_net, params, x_init, width=4, doubt=0)
    for row in range(len(x_init)):
        steps, is_mask = np.asarray(got.reveal_step[row]), np.asarray(x_init[row]) == MASK
        assert ((steps >= 0) == is_mask).all()
        order = [position for position in np.argsort(steps, kind="stable") if is_mask[position]]
        assert len({steps[position] for position in order}) == len(order), "one position in a step"
        want = chain_log_prob(params, x_init[row], np.asarray(got.tokens[row]), order)
        assert float(got.log_prob[row]) == pytest.approx(want, abs=1e-5)


@pytest.mark.slow
def test_without_doubt_search_costs_what_sample_costs_and_with_it_at_most_width_times_that():
    params, x_init = net_params(3), rows(3)
    plain = mdm_jax.sample(context_net, params, KEY, x_init, mask_id=MASK, temperature=0)
    sure = search(context_net, params, x_init, width=8, doubt=1.0)
    np.testing.assert_array_equal(sure.tokens, plain.tokens)
    assert int(sure.nfe) == int(plain.nfe)
    steps = int(plain.nfe)
    wide = search(context_net, params, x_init, width=8, doubt=0)
    assert int(wide.nfe) == sum(min(2**step, 8) for step in range(steps))
    assert (wide.log_prob >= plain.log_prob - 1e-6).sum() >= 3, "a wider search rarely ends lower"


@pytest.mark.slow
def test_row_does_not_depend_on_other_rows_or_on_padding():
    params, x_init = net_params(4), rows(4)
    together = search(context_net, params, x_init, width=3, doubt=0)
    for row in range(len(x_init)):
        alone = search(context_net, params, x_init[row : row + 1], width=3, doubt=0)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
    padded = jnp.pad(x_init, ((0, 0), (0, 2)), constant_values=PAD)
    np.testing.assert_array_equal(search(context_net, params, padded, width=3, doubt=0).tokens[:, :6], together.tokens)


@pytest.mark.parametrize(("options", "said"), [({"width": 0}, "width"), ({"width": 2, "doubt": 1.5}, "doubt")])
def test_width_and_doubt_out_of_range_are_named(options, said):
    with pytest.raises(mdm_jax.InputError, match=f"{said} must be"):
        search(context_net, net_params(0), rows(0), **options)
