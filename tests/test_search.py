"""Beam search: exact on small spaces, equal to `sample` with one filling, and honest about what it costs."""

import dataclasses
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
    "three steps": mdm_jax.TopK(3),
    "four steps": mdm_jax.TopK(4),
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("selector", SELECTORS)
def test_one_filling_is_sample_with_any_selector(selector):
    params, x_init, selector = net_params(1), rows(1), SELECTORS[selector]
    got = search(context_net, params, x_init, width=1, selector=selector, check=3)
    want = mdm_jax.sample(context_net, params, KEY, x_init, mask_id=MASK, selector=selector, temperature=0)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


DOUBT = 0.15


def search_by_loop(params, given, tau, width, check):
    """A search of one row by a threshold on the margin, in plain Python: tokens, log p_theta and nfe."""
    is_free, nfe = np.asarray(given) == MASK, 0
    going, done = [(0.0, np.array(given))], []
    if not is_free.any():
        going, done = done, going
    while going:
        nfe += 1 << (len(going) - 1).bit_length()
        found = []
        for total, tokens in going:
            log_p = log_softmax(context_net(params, jnp.asarray(tokens[None]))[0])
            order = np.argsort(-log_p, axis=-1)
            prob = np.exp(np.take_along_axis(log_p, order, axis=-1))
            scores = np.where(tokens == MASK, prob[:, 0] - prob[:, 1], -1.0)
            chosen = scores >= tau if (scores >= tau).any() else np.arange(len(tokens)) == scores.argmax()
            first = tokens.copy()
            first[chosen] = order[chosen, 0]
            likely = total + log_p[chosen, order[chosen, 0]].sum()
            doubtful = np.where(chosen, prob[:, 1], -1.0).argmax()
            second = first.copy()
            second[doubtful] = order[doubtful, 1]
            there = log_p[doubtful, order[doubtful]]
            found += [(likely, first), (likely - there[0] + there[1], second)][: 1 + (np.exp(there[1]) >= DOUBT)]
        done += [filling for filling in found if not (filling[1] == MASK).any()]
        done = sorted(done, key=lambda filling: -filling[0])[:width]
        going = sorted((one for one in found if (one[1] == MASK).any()), key=lambda filling: -filling[0])
        going = [one for one in going if check or not done or one[0] > done[0][0]][:width]
    if check and len(done) > 1:
        tokens = jnp.asarray(np.stack([tokens for _, tokens in done]), jnp.int32)
        free = jnp.broadcast_to(is_free, tokens.shape)
        fit = mdm_jax.pseudo_log_likelihood(context_net, params, tokens, free, mask_id=MASK, num_calls=check)
        done = [done[int(fit.log_prob.argmax())]]
        nfe += (1 << (len(tokens) - 1).bit_length()) * min(check, is_free.sum())
    return done[0][1], done[0][0], nfe


@pytest.mark.thinned(3)
@pytest.mark.parametrize("check", [0, 2])
@pytest.mark.parametrize("tau", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("width", [2, 4])
def test_search_with_a_threshold_is_that_of_plain_loops(width, tau, check):
    params, x_init = net_params(6), rows(6, batch=6)
    options = {"width": width, "doubt": DOUBT, "selector": mdm_jax.Threshold(tau), "check": check}
    together = search(context_net, params, x_init, **options)
    for row, given in enumerate(x_init):
        tokens, log_prob, nfe = search_by_loop(params, given, tau, width, check)
        np.testing.assert_array_equal(together.tokens[row], tokens)
        assert float(together.log_prob[row]) == pytest.approx(log_prob, abs=1e-5)  # float32
        assert int(search(context_net, params, given[None], **options).nfe) == nfe


def test_finished_filling_is_not_lost_to_open_ones_that_have_written_less():
    def net(params, tokens):
        """The first token is most likely 0, and then the others are anything; behind 1 both are surely 2."""
        behind = jnp.where((tokens[:, :1] == 1)[..., None], params[None, 3:5], params[None, 1:3])
        return jnp.concatenate([jnp.tile(params[None, :1], (len(tokens), 1, 1)), behind], axis=1)

    sure = [-9.0, -9.0, 9.0, -9.0]
    params = jnp.array([[np.log(0.8), np.log(0.2), -9, -9], [0.0, 0.0, -9, -9], [0.0] * 4, sure, sure])
    options = {"width": 2, "oracle": oracles.left_to_right, "selector": Sure(0.9)}
    for check in (0, 3):
        got = search(net, params, jnp.full((1, 3), MASK), **options, check=check)
        assert got.tokens.tolist() == [[1, 2, 2]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sure(mdm_jax.Threshold):
    """Reveals what has at least the probability tau."""

    def choose(self, scores, confidence, is_open, num_reveal):
        del scores, num_reveal
        return is_open & (confidence.top_prob >= self.tau)


@pytest.mark.parametrize("width", [1, 3])
def test_network_or_score_that_is_no_number_shows_as_it_does_in_sample(width):
    def net(params, tokens):
        return jnp.broadcast_to(params, (*tokens.shape, 4))

    def no_number(key, confidence):
        return jnp.full_like(confidence.top_prob, jnp.nan)

    for logits, oracle in ((jnp.array([jnp.nan, 1, 2, 0]), oracles.margin), (jnp.array([3.0, 1, 2, 0]), no_number)):
        want = mdm_jax.sample(net, logits, KEY, jnp.full((1, 2), MASK), mask_id=MASK, oracle=oracle, temperature=0)
        got = search(net, logits, jnp.full((1, 2), MASK), width=width, oracle=oracle)
        assert jnp.isnan(got.log_prob).all()
        np.testing.assert_array_equal(got.tokens, want.tokens)


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


@pytest.mark.thinned(2)
@pytest.mark.parametrize("seed", range(3))
def test_full_width_in_an_order_of_its_own_finds_the_likeliest_of_all_that_it_can_make(seed):
    """A plain recursion: at the position of highest margin both tokens are tried, with all that follows."""
    params = net_params(seed, vocab_size=2, scale=0.7)
    x_init = jnp.array([[MASK, 1, MASK, MASK, 0, MASK]], jnp.int32)

    def fillings(tokens, log_prob):
        masked = np.flatnonzero(tokens == MASK)
        if not len(masked):
            yield log_prob, tuple(tokens.tolist())
            return
        log_p = log_softmax(context_net(params, jnp.asarray(tokens[None])), MASK)[0]
        position = max(masked, key=lambda i: abs(np.exp(log_p[i, 0]) - np.exp(log_p[i, 1])))
        for token in (0, 1):
            filled = tokens.copy()
            filled[position] = token
            yield from fillings(filled, log_prob + log_p[position, token])

    log_prob, likeliest = max(fillings(np.array(x_init[0]), 0.0))
    got = search(context_net, params, x_init, width=16, doubt=0)
    assert tuple(got.tokens[0].tolist()) == likeliest
    assert float(got.log_prob[0]) == pytest.approx(log_prob, abs=1e-5)  # four float32 log-softmaxes of order 1


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
