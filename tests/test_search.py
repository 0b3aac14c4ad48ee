"""Beam search: exact on small spaces, equal to `sample` with one filling, and honest about what it costs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import MASK, PAD, context_net, features_net, log_softmax, net_params, quick_compilation

import mdm_jax
from mdm_jax import correction, oracles

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


SELECTORS = {
    "threshold": mdm_jax.Threshold(0.3),
    "entropy": mdm_jax.EntropyBudget(1.0),
    "two a step": mdm_jax.PerStep(2),
    "two steps": mdm_jax.TopK(2),
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("selector", SELECTORS)
def test_one_filling_is_sample_with_any_selector(selector):
    params, x_init, selector = net_params(1), rows(1), SELECTORS[selector]
    got = search(context_net, params, x_init, width=1, selector=selector, check=3)
    want = mdm_jax.sample(context_net, params, KEY, x_init, mask_id=MASK, selector=selector, temperature=0)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def branches_by_loop(params, x_init, tau, width):
    """The fillings that a search with a threshold ends with, in plain Python: tokens with log p_theta, best first."""
    fillings = [(0.0, np.array(x_init))]
    while any((tokens == MASK).any() for _, tokens in fillings):
        found = []
        for total, tokens in fillings:
            if not (tokens == MASK).any():
                found.append((total, tokens))
                continue
            log_p = log_softmax(context_net(params, jnp.asarray(tokens[None]))[0])
            order = np.argsort(-log_p, axis=-1)
            prob = np.exp(np.take_along_axis(log_p, order, axis=-1))
            scores = np.where(tokens == MASK, prob[:, 0] - prob[:, 1], -1.0)
            chosen = scores >= tau if (scores >= tau).any() else np.arange(len(tokens)) == scores.argmax()
            first = tokens.copy()
            first[chosen] = order[chosen, 0]
            likely = total + log_p[chosen, order[chosen, 0]].sum()
            found.append((likely, first))
            doubtful = np.where(chosen, prob[:, 1], -1.0).argmax()
            second = first.copy()
            second[doubtful] = order[doubtful, 1]
            there = log_p[doubtful, order[doubtful]]
            found.append((likely - there[0] + there[1], second))
        fillings = sorted(found, key=lambda filling: -filling[0])[:width]
    return fillings


@pytest.mark.parametrize("check", [0, 2])
def test_search_with_a_threshold_is_that_of_plain_loops(check):
    params, x_init = net_params(6), rows(6)
    tau, width = 0.4, 4
    got = search(context_net, params, x_init, width=width, doubt=0, selector=mdm_jax.Threshold(tau), check=check)
    for row, given in enumerate(x_init):
        fillings = branches_by_loop(params, given, tau, width)
        kept = fillings[0]
        if check and (np.asarray(given) == MASK).any():
            tokens = jnp.asarray(np.stack([tokens for _, tokens in fillings]), jnp.int32)
            is_free = jnp.broadcast_to(given == MASK, tokens.shape)
            fit = mdm_jax.pseudo_log_likelihood(context_net, params, tokens, is_free, mask_id=MASK, num_calls=check)
            kept = fillings[int(fit.log_prob.argmax())]
        np.testing.assert_array_equal(got.tokens[row], kept[1])
        assert float(got.log_prob[row]) == pytest.approx(kept[0], abs=1e-5)


def test_check_keeps_the_filling_that_fits_itself_where_the_likeliest_does_not():
    def net(params, tokens):
        """The first token is 0 or, a little less likely, 1; behind either the second is 3, but 3 calls for 1."""
        first = jnp.where((tokens[:, 1:] == 3)[..., None], params[:1][None], params[1:][None])
        then = jnp.tile(jnp.array([[[0.0, 0.0, 0.0, 9.0]]]), (len(tokens), 1, 1))
        return jnp.concatenate([first, then], axis=1)

    params, x_init = jnp.array([[0.0, 9.0, 0.0, 0.0], [0.6, 0.5, -9.0, -9.0]]), jnp.array([[4, 4], [2, 3]])
    options = {"mask_id": 4, "width": 2, "oracle": oracles.left_to_right}
    likeliest, fitting = (mdm_jax.search_sample(net, params, KEY, x_init, **options, check=check) for check in (0, 2))
    assert likeliest.tokens.tolist() == [[0, 3], [2, 3]]
    assert fitting.tokens.tolist() == [[1, 3], [2, 3]]
    assert (likeliest.nfe, fitting.nfe) == (3, 3 + 2 * 2)
    assert fitting.log_prob[0] < likeliest.log_prob[0]
    assert fitting.log_prob[1] == 0


def test_selector_that_takes_back_or_remembers_is_refused():
    for selector in (mdm_jax.Klass(0.9), correction.TakeBack(2), correction.Remask(2)):
        with pytest.raises(mdm_jax.InputError, match=f"{type(selector).__name__} takes back or remembers"):
            search(context_net, net_params(0), rows(0), width=2, selector=selector)


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


@pytest.mark.parametrize(
    ("options", "said"),
    [({"width": 0}, "width"), ({"width": 2, "doubt": 1.5}, "doubt"), ({"width": 2, "check": -1}, "check")],
)
def test_width_doubt_and_check_out_of_range_are_named(options, said):
    with pytest.raises(mdm_jax.InputError, match=f"{said} must be"):
        search(context_net, net_params(0), rows(0), **options)
