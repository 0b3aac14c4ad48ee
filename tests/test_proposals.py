"""Several answers, of which one is kept: equal to the decoder with one, and by the rule that is named with more."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import MASK, PAD, Named, bayes_net, context_net, net_params, quick_compilation, random_joint, sequences

import mdm_jax
from mdm_jax.pseudo_likelihood import PseudoLikelihood
from mdm_jax.randomness import row_keys
from mdm_jax.sampling import SampleResult
from mdm_jax.sharding import make_mesh

KEY = jax.random.key(7)
PARAMS = net_params(1)
quick = pytest.fixture(scope="module", autouse=True)(quick_compilation)


def decode(keys, x_init):
    return mdm_jax.sample(context_net, PARAMS, keys, x_init, mask_id=MASK)


def rows(batch=3, length=6):
    """Tokens with some of them masked, and a row that is given whole."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, 5, (batch, length))
    tokens[rng.random((batch, length)) < 0.6] = MASK
    tokens[-1] = 3
    return jnp.asarray(tokens, jnp.int32)


def forms(num, length=6):
    """Orders of the positions and of the ids but the mask's, the first as they are."""
    rng = np.random.default_rng(3)
    positions, tokens = np.tile(np.arange(length), (num, 1)), np.tile(np.arange(MASK + 1), (num, 1))
    for form in range(1, num):
        positions[form] = rng.permutation(length)
        tokens[form, :MASK] = rng.permutation(MASK)
    return {"positions": positions, "tokens": tokens}


def nine(params, tokens):
    """A network that predicts nine ids."""
    return jnp.zeros((*tokens.shape, 9))


class Unhashable(Named):
    __hash__ = None

    def __init__(self):
        super().__init__(5)


WAYS = {
    "best": lambda x_init, num: mdm_jax.best_sample(decode, KEY, x_init, num=num),
    "stable": lambda x_init, num: mdm_jax.stable_sample(decode, KEY, x_init, num=num),
    "symmetric": lambda x_init, num: mdm_jax.symmetric_sample(decode, KEY, x_init, **forms(num, x_init.shape[1])),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_proposal_is_what_the_decoder_gives_element_for_element(way):
    want = mdm_jax.sample(context_net, PARAMS, KEY, rows(), mask_id=MASK)
    for one, other in zip(WAYS[way](rows(), 1), want, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_what_is_kept_is_whole_leaves_the_given_alone_and_depends_on_its_own_row_only(way):
    x_init = rows()
    got = WAYS[way](x_init, 4)
    is_masked = np.asarray(x_init) == MASK
    assert (got.tokens < MASK).all()
    np.testing.assert_array_equal(got.tokens[~is_masked], x_init[~is_masked])
    np.testing.assert_array_equal(got.reveal_step >= 0, is_masked)
    steps = is_masked.sum(axis=1).max()
    assert got.nfe == 4 * (steps + (-(-steps // 2) if way == "stable" else 0))
    others = WAYS[way](x_init.at[1:].set(jnp.roll(x_init[1:], 1, axis=0)), 4)
    np.testing.assert_array_equal(got.tokens[0], others.tokens[0])
    wider = jnp.pad(x_init, ((0, 0), (0, 2)), constant_values=PAD)
    if way == "symmetric":  # whose forms are for one length: padding stays where and what it is
        of_six = forms(4)
        positions = np.hstack([of_six["positions"], np.tile([6, 7], (4, 1))])
        tokens = np.hstack([of_six["tokens"], np.tile(np.arange(MASK + 1, PAD + 1), (4, 1))])
        padded = mdm_jax.symmetric_sample(decode, KEY, wider, positions=positions, tokens=tokens)
    else:
        padded = WAYS[way](wider, 4)
    np.testing.assert_array_equal(padded.tokens[:, :6], got.tokens)


def test_best_of_many_from_the_ideal_model_is_the_likeliest_sequence_of_all():
    joint = random_joint(0, 2, 3)
    net = bayes_net(2, 3)

    def exact(keys, x_init):
        return mdm_jax.sample(net, jnp.asarray(joint), keys, x_init, mask_id=2, oracle=mdm_jax.oracles.random)

    got = mdm_jax.best_sample(exact, KEY, jnp.full((2, 3), 2), num=64)
    assert joint.max() > 0.2, "64 draws leave it out with a probability below 1e-6"
    np.testing.assert_array_equal(got.tokens, np.tile(sequences(2, 3)[joint.argmax()], (2, 1)))
    np.testing.assert_allclose(got.log_prob, np.log(joint.max()), rtol=1e-5)


@pytest.mark.slow
def test_not_a_number_is_never_the_likeliest():
    def faulty(keys, x_init):
        log_prob = np.where(np.arange(len(x_init)) % 2 == 0, np.float32(np.nan), -np.float32(np.inf))
        tokens = np.broadcast_to(np.arange(len(x_init), dtype=np.int32)[:, None], x_init.shape)
        return SampleResult(*map(jnp.asarray, (tokens, np.zeros_like(tokens), log_prob, np.int32(1))))

    got = mdm_jax.best_sample(faulty, KEY, jnp.full((2, 3), MASK), num=3)
    assert jnp.isfinite(got.tokens).all()
    got = mdm_jax.best_sample(lambda *given: faulty(*given)._replace(log_prob=-jnp.arange(6.0)), KEY, rows(2), num=3)
    np.testing.assert_array_equal(got.tokens[:, 0], [0, 3])


@jax.jit
def all_equal(keys, x_init):
    """Knows that all tokens are equal: fills up by the majority of what it sees. With nothing to see it guesses.

    Half its guesses hold two tokens in equal parts. It likes these best.
    """

    def fill(key, row):
        kind_key, place_key = jax.random.split(key)
        is_wrong = jax.random.bernoulli(kind_key)
        halves = jax.random.permutation(place_key, jnp.arange(6) % 2)
        seen = jnp.where(row == MASK, 0, jnp.where(row == 1, 1, -1)).sum()
        sure = jnp.full(6, (seen > 0).astype(jnp.int32))
        guess = jnp.where(is_wrong, halves, jnp.full(6, jax.random.bernoulli(place_key).astype(jnp.int32)))
        filled = jnp.where((row == MASK).all(), guess, sure)
        return jnp.where(row == MASK, filled, row), jnp.where(is_wrong, -1.0, -2.0)

    tokens, log_prob = jax.vmap(fill)(keys, x_init)
    return SampleResult(tokens, jnp.where(x_init == MASK, 0, -1), log_prob, jnp.int32(1))


@pytest.mark.slow
def test_stable_keeps_an_answer_that_comes_back_where_there_is_one():
    x_init = jnp.full((64, 6), MASK)
    best, stable = (way(all_equal, KEY, x_init, num=3) for way in (mdm_jax.best_sample, mdm_jax.stable_sample))
    wrong_best, wrong_stable = ((np.ptp(got.tokens, axis=1) > 0).mean() for got in (best, stable))
    # Of half-and-half answers two tokens at least change, whichever three are masked. So a stable answer is wrong
    # only where all three are, 1 in 8, and the likeliest where one of three is, 7 in 8: five standard deviations of 64.
    assert wrong_stable < 1 / 8 + 5 * np.sqrt(7 / 64 / 64)
    assert wrong_best > 7 / 8 - 5 * np.sqrt(7 / 64 / 64)
    assert not ((np.ptp(stable.tokens, axis=1) > 0) & (np.ptp(best.tokens, axis=1) == 0)).any()
    assert stable.nfe == 6


@pytest.mark.parametrize(("share", "number"), [(0.15, 15), (0.29, 29), (0.151, 16), (1e-9, 1), (1.0, 100)])
def test_stable_solves_the_share_of_an_answer_again_rounded_up(share, number):
    counts = []

    def counted(keys, x_init):
        counts.append(np.asarray((x_init == MASK).sum(axis=-1)))
        return SampleResult(jnp.zeros_like(x_init), jnp.zeros_like(x_init), jnp.zeros(len(x_init)), jnp.int32(1))

    mdm_jax.stable_sample(counted, KEY, jnp.full((1, 100), MASK), num=2, share=share)
    np.testing.assert_array_equal(counts, [[100, 100], [number, number]])


def test_symmetric_keeps_what_most_forms_agree_on_as_plain_python_counts():
    x_init = np.array([[MASK, 1, MASK, 0, 1, 0], [1, 1, MASK, MASK, 0, 1], [0] * 6])
    rng = np.random.default_rng(4)
    positions = np.stack([np.arange(6), *(rng.permutation(6) for _ in range(6))])
    tokens = np.stack([np.arange(MASK + 1), *([1, 0, 2, 3, 4, 5] for _ in range(6))])
    params = net_params(5, vocab_size=2, scale=3.0)

    def greedy(keys, x_init):
        return mdm_jax.sample(context_net, params, keys, x_init, mask_id=MASK, temperature=0)

    got = mdm_jax.symmetric_sample(greedy, KEY, x_init, positions=positions, tokens=tokens)
    counts = []
    for row, kept, log_prob in zip(x_init, got.tokens, got.log_prob, strict=True):
        found = []
        for position, token in zip(positions, tokens, strict=True):
            form = np.array([token[row[i]] for i in position])
            answer = greedy(KEY, form[None])
            back = np.empty(6, int)
            for i, place in enumerate(position):
                back[place] = token.tolist().index(int(answer.tokens[0, i]))
            found.append((tuple(back.tolist()), float(answer.log_prob[0])))
        votes = collections.Counter(answer for answer, _ in found)
        counts.append(votes)
        most = [(log, answer) for answer, log in found if votes[answer] == max(votes.values())]
        assert tuple(kept.tolist()) == max(most)[1]
        assert float(log_prob) == pytest.approx(max(most)[0], abs=1e-5)
    assert max(map(len, counts)) > 1, "the forms disagree"


def wrote_a_seven(keys, x_init):
    return SampleResult(jnp.full_like(x_init, 7), x_init, jnp.zeros(len(x_init)), jnp.int32(1))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: mdm_jax.best_sample(decode, KEY, x, num=0), "num must be a whole number, at least 1"),
        (lambda x: mdm_jax.stable_sample(decode, KEY, x, num=2, share=0.0), "share must be a number, above 0"),
        (lambda x: mdm_jax.best_sample(decode, KEY, x[0], num=2), "shape \\[batch, length\\]"),
        (
            lambda x: mdm_jax.symmetric_sample(decode, KEY, x, positions=[[0] * 6], tokens=[[0]]),
            "positions must be permutations",
        ),
        (
            lambda x: mdm_jax.symmetric_sample(decode, KEY, x, positions=[range(6)] * 2, tokens=[range(6)]),
            "positions hold 2 forms and tokens 1",
        ),
        (
            lambda x: mdm_jax.symmetric_sample(decode, KEY, x, positions=[range(5)], tokens=[range(6)]),
            "positions are for 5 tokens; the rows of x_init have 6",
        ),
        (
            lambda x: mdm_jax.symmetric_sample(decode, KEY, x, positions=[range(6)], tokens=[range(MASK)]),
            "x_init holds the id 5, and tokens are permutations of the ids 0 to 4 alone",
        ),
        (
            lambda x: mdm_jax.symmetric_sample(wrote_a_seven, KEY, x, positions=[range(6)], tokens=[range(MASK + 1)]),
            "the decoder wrote the id 7, and tokens are permutations of the ids 0 to 5 alone",
        ),
    ],
)
def test_what_cannot_be_used_is_named(call, said):
    with pytest.raises(mdm_jax.InputError, match=said):
        call(rows())


def test_rank_keeps_the_answer_that_it_ranks_highest_and_its_calls_count():
    x_init, options = rows(), {"mask_id": MASK, "num_calls": 2}
    rank = functools.partial(mdm_jax.pseudo_log_likelihood, context_net, PARAMS, **options)
    seen = []

    def noted(tokens, is_free):
        seen.append((np.asarray(tokens).reshape(3, 4, -1), rank(tokens, is_free)))
        np.testing.assert_array_equal(is_free, np.repeat(np.asarray(x_init) == MASK, 4, axis=0))
        return seen[-1][1]

    for got, plain in (
        (mdm_jax.best_sample(decode, KEY, x_init, num=4, rank=noted), WAYS["best"](x_init, 4)),
        (mdm_jax.symmetric_sample(decode, KEY, x_init, **forms(4), rank=noted), WAYS["symmetric"](x_init, 4)),
    ):
        tokens, found = seen.pop(0)
        fit = np.asarray(found.log_prob).reshape(3, 4)
        np.testing.assert_array_equal(got.tokens, tokens[np.arange(3), fit.argmax(axis=1)])
        assert got.nfe == plain.nfe + 4 * 2
    assert WAYS["best"](x_init, 1).nfe == mdm_jax.best_sample(decode, KEY, x_init, num=1, rank=noted).nfe


def test_rank_that_is_no_number_comes_last_and_ties_go_to_the_likeliest():
    def proposed(keys, x_init):
        number = jnp.arange(len(keys)) % 3
        return SampleResult(
            jnp.stack([number] * 2, 1), jnp.zeros((len(keys), 2), jnp.int32), -1.0 * number, jnp.int32(1)
        )

    for ranks, kept in (([jnp.nan, -1.0, -1.0], 1), ([jnp.nan] * 3, 0), ([-2.0, -jnp.inf, -1.0], 2)):
        found = PseudoLikelihood(jnp.tile(jnp.array(ranks), 2), jnp.int32(5))
        got = mdm_jax.best_sample(proposed, KEY, jnp.full((2, 2), 7), num=3, rank=lambda *_, found=found: found)
        assert got.tokens.tolist() == [[kept] * 2] * 2
        assert got.nfe == 3 + 15


RANK = functools.partial(mdm_jax.pseudo_log_likelihood, context_net, PARAMS, mask_id=MASK, num_calls=2)
ENOUGH = {
    "best": functools.partial(mdm_jax.best_sample, num=4),
    "symmetric": functools.partial(mdm_jax.symmetric_sample, **forms(4)),
}


def many_rows():
    """Six rows with masks, and one that is given whole."""
    tokens = np.random.default_rng(11).integers(0, 5, (6, 6))
    tokens[np.random.default_rng(12).random((6, 6)) < 0.6] = MASK
    return jnp.asarray(np.concatenate([tokens, [[3] * 6]]), jnp.int32)


@pytest.mark.parametrize("way", ENOUGH)
def test_enough_keeps_of_each_row_the_first_proposal_that_is_good_enough(way):
    x_init, one_batch, tried = many_rows(), [], []

    def decoded(keys, tokens):
        one_batch.append(decode(keys, tokens))
        tried.append(np.asarray(tokens))
        return one_batch[-1]

    def ranked(tokens, is_free):
        one_batch.append((tokens, RANK(tokens, is_free).log_prob))
        return RANK(tokens, is_free)

    ENOUGH[way](decoded, KEY, x_init, rank=ranked)
    answers, values = (np.asarray(field).reshape(7, 4, -1) for field in one_batch[1])
    log_prob = np.asarray(one_batch[0].log_prob).reshape(7, 4)
    values = values[:, :, 0]
    of_all = [float(values.min()), *np.sort(values[:6].max(axis=1)).tolist(), float(np.sort(values[:6], axis=None)[-2])]
    kinds = set()
    for enough in [*of_all, 0.0, 1.0]:
        tried.clear()
        got = ENOUGH[way](decoded, KEY, x_init, rank=RANK, enough=enough)
        good = [np.flatnonzero(row >= enough) for row in values]
        first = [int(found[0]) if len(found) else int(row.argmax()) for found, row in zip(good, values, strict=True)]
        np.testing.assert_array_equal(got.tokens, answers[np.arange(7), first], err_msg=f"{enough}")
        np.testing.assert_allclose(got.log_prob, log_prob[np.arange(7), first], atol=1e-5)
        np.testing.assert_array_equal(got.reveal_step >= 0, x_init == MASK)
        last = [int(found[0]) if len(found) else 3 for found in good]
        assert len(tried) == max(last) + 1
        for number, tokens in enumerate(tried):
            num_left = sum(number <= one for one in last[:6])
            assert (tokens == MASK).any(axis=1).sum() == num_left
            assert len(tokens) == (7 if number == 0 else min(7, 1 << (num_left - 1).bit_length()))
        kinds.add((min(last[:6]) < max(last[:6]), max(len(found) for found in good[:6]) > 0, max(first) > 0))
    assert (True, True, True) in kinds, "of one batch some rows are done early, and some late"


@pytest.mark.eight_devices
@pytest.mark.parametrize("place", ["rows", "rows and keys", "params", "another device", "nothing"])
def test_enough_takes_arrays_where_samplers_take_them(place):
    x_init, keys, params = many_rows()[:6].repeat(4, axis=0), KEY, PARAMS
    want = mdm_jax.symmetric_sample(decode, keys, x_init, **forms(4), rank=RANK, enough=-9.0)
    mesh = make_mesh(data=8)
    over_rows, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (["data"], []))
    if place == "rows and keys":
        keys = jax.device_put(row_keys(keys, 24), over_rows)
    if place in ("rows", "rows and keys"):
        x_init = jax.device_put(x_init, over_rows)
    if place == "params":
        params = jax.device_put(params, whole)
    if place == "another device":
        x_init = jax.device_put(x_init, jax.devices()[3])
    tried = []

    def decoded(keys, tokens):
        found = mdm_jax.sample(context_net, params, keys, tokens, mask_id=MASK)
        tried.append((len(tokens), int(found.nfe)))
        return found

    rank = functools.partial(mdm_jax.pseudo_log_likelihood, context_net, params, mask_id=MASK, num_calls=2)
    got = mdm_jax.symmetric_sample(decoded, keys, x_init, **forms(4), rank=rank, enough=-9.0)
    assert tried[-1][0] < tried[0][0] == 24, "rows leave the batch"
    np.testing.assert_array_equal(got.tokens, want.tokens)
    assert got.nfe == want.nfe == sum(nfe + 2 for _, nfe in tried), "a call on fewer rows counts as one"


@pytest.mark.parametrize("way", ENOUGH)
def test_enough_has_nothing_to_ask_of_one_proposal(way):
    x_init, options = rows(), {"num": 1} if way == "best" else forms(1)
    want = mdm_jax.sample(context_net, PARAMS, KEY, x_init, mask_id=MASK)
    for one, other in zip(ENOUGH[way](decode, KEY, x_init, rank=RANK, enough=0.0, **options), want, strict=True):
        np.testing.assert_array_equal(one, other)


def test_enough_counts_the_calls_of_the_proposals_that_were_made():
    x_init = rows()[:1]
    blanks = int((x_init == MASK).sum())
    for enough, num in ((-1e9, 1), (1e9, 3)):
        got = mdm_jax.best_sample(decode, KEY, x_init, num=3, rank=RANK, enough=enough)
        assert got.nfe == num * (blanks + 2)


def test_enough_prefers_any_number_to_none_and_keeps_the_highest_if_none_is_enough():
    values, made = (np.nan, -np.inf, -5.0, -9.0), []

    def proposed(keys, x_init):
        made.append(jnp.full(x_init.shape, len(made), jnp.int32))
        return SampleResult(made[-1], jnp.zeros_like(x_init), jnp.zeros(len(x_init)), jnp.int32(1))

    def rank(tokens, is_free):
        return PseudoLikelihood(jnp.asarray(values)[tokens[:, 0]], jnp.int32(1))

    got = mdm_jax.best_sample(proposed, KEY, jnp.full((2, 2), 7), num=4, rank=rank, enough=-1.0)
    assert got.tokens.tolist() == [[2, 2]] * 2
    assert got.nfe == 8


def test_enough_gives_ties_to_the_likeliest_then_to_the_first():
    for likely, kept in (((-3.0, -1.0, -2.0), 1), ((-1.0, -1.0, -1.0), 0), ((-2.0, -1.0, -1.0), 1)):
        made = []

        def proposed(keys, x_init, made=made, likely=likely):
            made.append(jnp.full(x_init.shape, len(made), jnp.int32))
            log_prob = jnp.full(len(x_init), likely[len(made) - 1])
            return SampleResult(made[-1], jnp.zeros_like(x_init), log_prob, jnp.int32(1))

        def rank(tokens, is_free):
            return PseudoLikelihood(jnp.full(len(tokens), -5.0), jnp.int32(1))

        got = mdm_jax.best_sample(proposed, KEY, jnp.full((2, 2), 7), num=3, rank=rank, enough=-1.0)
        assert got.tokens.tolist() == [[kept] * 2] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"enough": -1.0}, "enough is a value of rank"),
        ({"enough": float("nan"), "rank": RANK}, "enough must be a number"),
        ({"enough": -1e300, "rank": RANK}, "enough must be a number"),
    ],
)
def test_enough_that_cannot_be_used_is_named(options, said):
    for sampler, more in ((mdm_jax.best_sample, {"num": 2}), (mdm_jax.symmetric_sample, forms(2))):
        with pytest.raises(mdm_jax.InputError, match=said):
            sampler(decode, KEY, rows(), **options, **more)


def test_enough_is_refused_under_jit_in_one_line():
    with pytest.raises(mdm_jax.InputError, match="call this outside jax"):
        jax.jit(lambda x: mdm_jax.best_sample(decode, KEY, x, num=2, rank=RANK, enough=0.0).tokens)(rows())


def test_symmetric_rank_is_the_mean_over_the_forms_of_an_answer_in_plain_python():
    answers = jnp.asarray(np.random.default_rng(5).integers(0, 5, (3, 6)), jnp.int32)
    is_free = np.asarray(rows()) == MASK
    got = mdm_jax.symmetric_rank(RANK, **forms(3))(answers, jnp.asarray(is_free))
    assert got.nfe == 3 * 2
    for row in range(3):
        values = []
        for position, token in zip(*forms(3).values(), strict=True):
            form = [int(token[answers[row, i]]) for i in position]
            free = [bool(is_free[row, i]) for i in position]
            values.append(float(RANK(jnp.array([form]), jnp.array([free])).log_prob[0]))
        assert float(got.log_prob[row]) == pytest.approx(np.mean(values), abs=1e-5)
    with pytest.raises(mdm_jax.InputError, match="positions are for 5 tokens; the rows of tokens have 6"):
        mdm_jax.symmetric_rank(RANK, positions=[range(5)], tokens=[range(6)])(answers, jnp.asarray(is_free))
    with pytest.raises(mdm_jax.InputError, match="positions must be permutations"):
        mdm_jax.symmetric_rank(RANK, positions=[[0, 0]], tokens=[range(6)])


@pytest.mark.parametrize("mask_id", [0, 3, 8])
def test_symmetric_average_is_the_mean_of_the_probabilities_of_the_forms_in_plain_python(mask_id):
    rng, params = np.random.default_rng(4), net_params(1, vocab_size=8)
    x = jnp.asarray(np.where(rng.random((3, 6)) < 0.5, mask_id, rng.integers(0, 8, (3, 6))), jnp.int32)
    positions = np.array([range(6), *(rng.permutation(6) for _ in range(2))])
    tokens = np.tile(np.arange(9), (3, 1))
    others = [token for token in range(8) if token != mask_id]
    tokens[1:, others] = [rng.permutation(others) for _ in range(2)]
    average = mdm_jax.symmetric_average(context_net, mask_id=mask_id, positions=positions, tokens=tokens)
    got, want = np.exp(average(params, x)), np.zeros((3, 6, 8))
    for moved, names in zip(positions, tokens, strict=True):
        for b, row in enumerate(np.asarray(x)):
            form = jnp.array([[names[row[i]] for i in moved]])
            p = np.exp(np.array(context_net(params, form)[0], np.float64))
            p[:, mask_id : mask_id + 1] = 0
            p /= p.sum(axis=1, keepdims=True)
            for place, position in enumerate(moved):
                want[b, position] += [p[place, names[token]] / 3 for token in range(8)]
    np.testing.assert_allclose(got, want, atol=1e-6)  # float32 logits
    again = mdm_jax.symmetric_average(context_net, mask_id=mask_id, positions=positions, tokens=tokens)
    assert average == again, "jit compiles equal ones once"
    assert hash(average) == hash(again)


def test_a_loss_of_an_averaged_network_has_a_gradient():
    average = mdm_jax.symmetric_average(context_net, mask_id=0, positions=[range(6)], tokens=[range(MASK + 1)])
    x_0 = jnp.asarray(np.random.default_rng(5).integers(1, 5, (4, 6)), jnp.int32)
    losses = [
        jax.value_and_grad(lambda p, net=net: mdm_jax.subset_loss(net, p, KEY, x_0, mask_id=0).mean())(PARAMS)
        for net in (context_net, average)
    ]
    for plain, averaged in zip(*map(jax.tree.leaves, losses), strict=True):
        rounding = 8 * np.finfo(np.float32).eps * np.abs(plain).max()  # sums of terms as large, in another order
        np.testing.assert_allclose(plain, averaged, rtol=0, atol=rounding)


def test_averaged_network_takes_no_more_ids_than_the_network():
    net = Named(5)
    options = {"positions": [range(6)], "tokens": [range(9)]}
    assert mdm_jax.symmetric_average(net, mask_id=4, **options).num_tokens == 5
    assert mdm_jax.symmetric_average(context_net, mask_id=4, **options).num_tokens == 9
    with pytest.raises(mdm_jax.InputError, match="embeds the ids 0 to 4"):
        mdm_jax.symmetric_average(net, mask_id=5, **options)
    with pytest.raises(mdm_jax.InputError, match="tokens holds the id 5"):
        mdm_jax.symmetric_average(net, mask_id=4, **options)(PARAMS, rows())


def test_every_form_of_a_row_gets_the_same_average_if_the_forms_are_a_group():
    mirrored = {"positions": [[*range(6)], [*range(5, -1, -1)]], "tokens": [range(MASK + 1)] * 2}
    average = mdm_jax.symmetric_average(context_net, mask_id=MASK, **mirrored)
    there, back = average(PARAMS, rows()), average(PARAMS, rows()[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(there, back, atol=1e-5)
    alone = context_net(PARAMS, rows()), context_net(PARAMS, rows()[:, ::-1])[:, ::-1]
    assert not np.allclose(*alone, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"positions": [[0, 0]]}, "positions must be permutations"),
        ({"positions": [[0, 1], [0]]}, "positions must be permutations"),
        ({"positions": [[0.0, 1.0]]}, "positions must be permutations"),
        ({"positions": [range(6)] * 2, "tokens": [range(6), [*range(1, 6), 0]]}, "must keep its id"),
        ({"mask_id": MASK + 1}, "must keep its id"),
        ({"mask_id": True}, "mask_id must be"),
        ({"denoiser": 3}, "denoiser must be a function"),
        ({"denoiser": Unhashable()}, "denoiser must be hashable"),
    ],
)
def test_symmetric_average_refuses_what_is_no_symmetry(changes, said):
    options = {"denoiser": context_net, "mask_id": MASK, "positions": [range(6)], "tokens": [range(MASK + 1)]}
    with pytest.raises(mdm_jax.InputError, match=said):
        mdm_jax.symmetric_average(**options | changes)


@pytest.mark.parametrize(
    ("changes", "x", "said"),
    [
        ({"positions": [range(5)]}, rows(), "positions are for 5 tokens; the rows of tokens have 6"),
        ({"tokens": [range(3)], "mask_id": 2}, rows(), "tokens holds the id"),
        ({"denoiser": nine}, rows(), "the network predicts the ids 0 to 8"),
        ({"tokens": [[0, 1, 6, 3, 4, 5, 2]]}, rows(), "the network predicts the ids 0 to 4"),
        ({}, [[1, 2, 3, 4, 0, -1]], "tokens holds the id -1"),
        ({}, [1, 2, 3, 4, 0, 1], "tokens must be"),
        ({}, [[0.5] * 6], "tokens must hold integer"),
    ],
)
def test_averaged_network_refuses_what_does_not_fit(changes, x, said):
    options = {"denoiser": context_net, "mask_id": MASK, "positions": [range(6)], "tokens": [range(MASK + 1)]}
    average = mdm_jax.symmetric_average(**options | changes)
    with pytest.raises(mdm_jax.InputError, match=said):
        average(PARAMS, x)


@pytest.mark.parametrize(
    ("answers", "is_free", "said"),
    [
        ([[1, 2, 3, 4, 0, -1]], [[True] * 6], "tokens"),
        ([1, 2, 3, 4, 0, 1], [[True] * 6], "tokens"),
        ([[1, 2, 3, 4, 0, 1]], [[True] * 9], "is_free must be bool"),
        ([[1, 2, 3, 4, 0, 1]], [[1] * 6], "is_free must be bool"),
        ([[1, 2, 3, 4, 0, 7]], [[True] * 6], "tokens holds the id 7"),
    ],
)
def test_symmetric_rank_refuses_what_is_no_answer(answers, is_free, said):
    with pytest.raises(mdm_jax.InputError, match=said):
        mdm_jax.symmetric_rank(RANK, **forms(2))(answers, is_free)
