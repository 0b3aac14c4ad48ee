"""The loss estimators: unbiased, stratified, per example, in float32, and what each refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.flatten_util import ravel_pytree

import mdm_jax

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

L, MASK = 4, toy.MASK
PARAMS = toy.net_params(0)
X_0 = np.array([[3, 0, 4, 1], [1, 1, 2, 0], [2, 4, 0, 3]])
IS_PROMPT = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1]], bool)
SCHEDULES = [mdm_jax.Linear(), mdm_jax.Cosine(), mdm_jax.Polynomial(2)]
ORDER = np.array([[2, 0, 3, 1], [0, 3, 2, 1], [1, 3, 0, 2]])
ESTIMATORS = {
    "elbo linear": functools.partial(mdm_jax.elbo_loss, schedule=SCHEDULES[0]),
    "elbo cosine": functools.partial(mdm_jax.elbo_loss, schedule=SCHEDULES[1]),
    "elbo polynomial": functools.partial(mdm_jax.elbo_loss, schedule=SCHEDULES[2]),
    "subset": mdm_jax.subset_loss,
    "order": mdm_jax.order_loss,
    "three orders": functools.partial(mdm_jax.order_loss, num_orders=3),
}
THREE = ["elbo linear", "subset", "order"]


@functools.cache
def tables():
    return [toy.nll_table(toy.context_net, PARAMS, row, MASK) for row in X_0]


def assert_unbiased(estimates, exact):
    """The mean over keys (axis 0) is `exact` within 4.5 standard errors, a chance below 1e-5 for each number."""
    estimates = np.asarray(estimates, np.float64)
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (error < 0.1 * np.abs(exact) + 1e-12).all(), "too few draws to say anything"
    np.testing.assert_array_less(np.abs(estimates.mean(axis=0) - exact), 4.5 * error + 2e-6 * np.abs(exact) + 1e-12)


@functools.cache
def many_keys(loss, options):
    def draw(keys, arrays):
        one = functools.partial(loss, toy.context_net, PARAMS, x_0=jnp.asarray(X_0), mask_id=MASK, **dict(options))
        return jax.vmap(lambda key: one(key=key, **arrays))(keys)

    return jax.jit(draw)


def over_keys(loss, seed, num, *, num_orders=None, **arrays):
    """The loss of X_0 under many keys: [num, 3]."""
    options = () if num_orders is None else (("num_orders", num_orders),)
    return many_keys(loss, options)(jax.random.split(jax.random.key(seed), num), arrays)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_loss_over_many_keys_is_unbiased_for_every_row_with_and_without_a_prompt(name):
    for seed, prompts in enumerate((np.zeros_like(IS_PROMPT), IS_PROMPT)):
        exact = [toy.exact_loss(nll, ~prompt) for nll, prompt in zip(tables(), prompts, strict=True)]
        assert_unbiased(over_keys(ESTIMATORS[name], seed, 8000, is_prompt=jnp.asarray(prompts)), exact)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", THREE)
def test_loss_without_a_prompt_equals_the_loss_of_an_empty_prompt(name):
    loss = functools.partial(
        ESTIMATORS[name], toy.context_net, PARAMS, jax.random.key(0), jnp.asarray(X_0), mask_id=MASK
    )
    without, empty = jax.jit(lambda is_prompt: (loss(), loss(is_prompt=is_prompt)))(jnp.zeros(X_0.shape, bool))
    np.testing.assert_array_equal(without, empty)


def walk_nll(nll, order, prompt):
    """-log p(x_0; pi) from a table of conditionals, prompt dropped."""
    index = {tuple(row): i for i, row in enumerate(toy.subsets(L))}
    left, total = [i for i in order if not prompt[i]], 0.0
    while left:
        total += nll[index[tuple(np.isin(np.arange(L), left))], left.pop(0)]
    return total


@pytest.mark.parametrize("num_orders", [1, 4])
def test_order_loss_with_a_fixed_order_is_unbiased_for_the_nll_of_that_order(num_orders):
    exact = [walk_nll(*case) for case in zip(tables(), ORDER, IS_PROMPT, strict=True)]
    options = {"order": jnp.asarray(ORDER), "num_orders": num_orders, "is_prompt": jnp.asarray(IS_PROMPT)}
    assert_unbiased(over_keys(mdm_jax.order_loss, 2, 4000, **options), exact)
    order_nll = mdm_jax.order_nll(
        toy.context_net,
        PARAMS,
        jnp.asarray(X_0),
        jnp.asarray(ORDER),
        mask_id=MASK,
        is_prompt=jnp.asarray(IS_PROMPT),
    )
    np.testing.assert_allclose(order_nll, exact, rtol=1e-6)


def test_order_loss_with_a_fixed_order_takes_only_the_values_of_its_steps():
    # Each draw is L' times one conditional of the order, and every step comes equally often.
    draws = np.asarray(over_keys(mdm_jax.order_loss, 3, 8000, order=jnp.asarray(ORDER)), np.float64)
    index = {tuple(row): i for i, row in enumerate(toy.subsets(L))}
    for row in range(3):
        left = list(ORDER[row])
        values = []
        while left:
            values.append(L * tables()[row][index[tuple(np.isin(np.arange(L), left))], left.pop(0)])
        distance = np.abs(draws[:, row, None] - np.array(values)[None])
        np.testing.assert_array_less(distance.min(axis=-1), 1e-5)
        toy.assert_frequencies(distance.argmin(axis=-1), np.full(L, 1 / L))


def test_order_loss_with_more_orders_averages_independent_draws():
    one, four = (
        np.asarray(over_keys(mdm_jax.order_loss, 4, 4000, num_orders=n), np.float64).var(axis=0) for n in (1, 4)
    )
    # A variance of n draws has a relative error near sqrt(kurtosis / n), here under 3%.
    np.testing.assert_allclose(four, one / 4, rtol=0.1)


def count_net(params, tokens):
    """Gives token 0 at every position the probability exp(-params[n]) where n masks are in the row."""
    nll = params[(tokens == MASK).sum(axis=-1)]
    rest = jnp.log(-jnp.expm1(-nll))
    logits = jnp.stack([-nll, rest], axis=-1)[:, None]
    return jnp.broadcast_to(logits, (*tokens.shape, 2))


def test_subset_loss_over_a_batch_draws_every_number_of_masks_equally_often():
    # With nll(n) = n at each mask the loss is L'/n * n * n = L' n, which shows n.
    length, batch = 6, 24
    params = jnp.arange(length + 1.0) + (jnp.arange(length + 1) == 0).astype(jnp.float32)
    loss = jax.jit(functools.partial(mdm_jax.subset_loss, count_net, mask_id=MASK))
    for seed in range(5):
        n = np.asarray(loss(params, jax.random.key(seed), jnp.zeros((batch, length), jnp.int32))) / length
        np.testing.assert_allclose(n, np.round(n), atol=1e-4)
        np.testing.assert_array_equal(np.bincount(np.round(n).astype(int), minlength=length + 1), [0, 4, 4, 4, 4, 4, 4])


def test_subset_loss_of_each_row_draws_its_own_number_of_masks_uniformly():
    length, batch = 6, 5
    params = jnp.arange(length + 1.0) + (jnp.arange(length + 1) == 0).astype(jnp.float32)
    is_prompt = jnp.arange(length)[None] < jnp.arange(batch)[:, None]  # L' = 6, 5, 4, 3, 2
    loss = jax.jit(
        jax.vmap(
            lambda key: mdm_jax.subset_loss(
                count_net, params, key, jnp.zeros((batch, length), jnp.int32), mask_id=MASK, is_prompt=is_prompt
            )
        )
    )(jax.random.split(jax.random.key(9), 6000))
    for row, free in enumerate(range(6, 1, -1)):
        n = np.round(np.asarray(loss)[:, row] / free).astype(int)
        toy.assert_frequencies(n - 1, np.full(free, 1 / free))


def test_elbo_loss_over_a_batch_draws_one_time_in_each_stratum():
    # With nll(n) = 1/n at each mask the summed nll is 1, so the loss is 1/t (linear), wherever anything is masked.
    length, batch = 64, 8
    params = 1 / jnp.maximum(jnp.arange(length + 1.0), 1)
    loss = jax.jit(functools.partial(mdm_jax.elbo_loss, count_net, mask_id=MASK, schedule=mdm_jax.Linear()))
    offsets = []
    for seed in range(20):
        weight = np.asarray(loss(params, jax.random.key(seed), jnp.zeros((batch, length), jnp.int32)), np.float64)
        t = 1 / weight[weight > 0]
        assert len(t) >= batch - 1  # only the first stratum can leave all 64 tokens unmasked, unless by a 1e-3 chance
        assert ((t > 0) & (t <= 1 + 1e-6)).all()
        strata = np.ceil(t * batch - 1e-4).astype(int)
        assert len(set(strata)) == len(t), "two times fell into one stratum"
        offset = t * batch - np.floor(t * batch)
        np.testing.assert_allclose(np.exp(2j * np.pi * offset), np.exp(2j * np.pi * offset[0]), atol=1e-3)
        offsets.append(offset[0])
    assert np.ptp(offsets) > 0.5  # the shared draw changes with the key


def test_elbo_loss_of_a_single_row_draws_its_time_uniformly():
    from scipy import stats

    length = 64
    params = 1 / jnp.maximum(jnp.arange(length + 1.0), 1)
    x_0 = jnp.zeros((3, length), jnp.int32)
    loss = jax.jit(
        jax.vmap(
            lambda key: mdm_jax.elbo_loss(count_net, params, key, x_0, mask_id=MASK, schedule=mdm_jax.Polynomial(2))
        )
    )(jax.random.split(jax.random.key(0), 3000))
    for row in np.asarray(loss, np.float64).T:
        t = 2 / row[row > 0]
        late = t[t > 0.4]  # there a row with nothing masked has a chance of 0.84^64 = 1e-5
        assert stats.kstest((late - 0.4) / 0.6, "uniform").pvalue > 1e-5
        assert abs(len(late) / len(row) - 0.6) < 4.5 * np.sqrt(0.24 / len(row))


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ["elbo linear", "elbo cosine", "subset", "order"])
@pytest.mark.slow
def test_gradient_of_the_mean_loss_agrees_with_the_gradient_of_the_exact_loss(name):
    x_0, params = X_0[0], PARAMS

    def exact(params):
        member = toy.subsets(L)[1:]
        log_p = jax.nn.log_softmax(toy.context_net(params, jnp.where(member, MASK, x_0[None])))
        nll = -jnp.where(member, log_p[:, np.arange(L), x_0], 0).sum(axis=-1)
        return (nll * (1 / (member.sum(axis=-1) * np.array([L, 6, L, 1])[member.sum(axis=-1) - 1]))).sum()

    flat, unravel = ravel_pytree(params)
    np.testing.assert_allclose(exact(params), toy.exact_loss(tables()[0]), rtol=1e-6)
    x_0_batch = jnp.broadcast_to(jnp.asarray(x_0), (8, L))

    @jax.jit
    @jax.vmap
    def gradients(key):
        def mean_loss(flat):
            return ESTIMATORS[name](toy.context_net, unravel(flat), key, x_0_batch, mask_id=MASK).mean()

        return jax.grad(mean_loss)(flat)

    drawn = np.asarray(gradients(jax.random.split(jax.random.key(5), 3000)), np.float64)
    wanted = np.asarray(jax.jit(jax.grad(lambda flat: exact(unravel(flat))))(flat), np.float64)
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    # About 200 coordinates: 5 standard errors are exceeded with probability near 1e-4.
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - wanted), 5 * error + 1e-5)
    signal = np.linalg.norm(wanted) / np.linalg.norm(error)
    assert signal > 20, "too few draws to say anything"


@pytest.mark.slow
def test_variance_at_equal_network_rows_is_lowest_for_subset_loss(capsys):
    x_0 = jnp.broadcast_to(jnp.asarray(X_0[:1]), (8, L))
    variance = {}
    for name in THREE:
        draw = jax.jit(
            jax.vmap(lambda key, name=name: ESTIMATORS[name](toy.context_net, PARAMS, key, x_0, mask_id=MASK).mean())
        )
        variance[name] = float(draw(jax.random.split(jax.random.key(6), 3000)).var())
    with capsys.disabled():
        print("\nvariance of the mean over 8 network rows:", {k: round(v, 4) for k, v in variance.items()})
    # 8000 draws know each variance to about 5%; the margin is wider.
    assert variance["subset"] < 0.8 * variance["elbo linear"]
    assert variance["subset"] < 0.8 * variance["order"]


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", ["elbo cosine", "subset", "order"])
def test_loss_of_a_row_that_is_all_prompt_is_zero_and_its_gradient_finite(name):
    is_prompt = jnp.asarray([[True] * 4, [True, False, True, True], [False] * 4])

    @jax.jit
    def both(params, key):
        return jax.value_and_grad(
            lambda params: (lambda loss: (loss.sum(), loss))(
                ESTIMATORS[name](toy.context_net, params, key, jnp.asarray(X_0), mask_id=MASK, is_prompt=is_prompt)
            ),
            has_aux=True,
        )(params)

    for seed in range(3):
        (_, loss), grads = both(PARAMS, jax.random.key(seed))
        assert loss[0] == 0
        assert np.isfinite(np.asarray(loss)).all()
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", ["elbo linear", "subset", "order"])
def test_loss_of_features_equals_the_loss_of_their_logits(name):
    x_0 = jnp.tile(jnp.asarray(X_0), (4, 1))

    @jax.jit
    def both(key):
        return [ESTIMATORS[name](net, PARAMS, key, x_0, mask_id=MASK) for net in (toy.context_net, toy.features_net)]

    logits, features = both(jax.random.key(8))
    assert float(jnp.abs(logits).max()) > 0
    np.testing.assert_allclose(features, logits, rtol=1e-5, atol=1e-6)


def bfloat16_net(params, tokens):
    return toy.context_net(params, tokens).astype(jnp.bfloat16)


def rounded_net(params, tokens):
    return toy.context_net(params, tokens).astype(jnp.bfloat16).astype(jnp.float32)


def test_losses_of_bfloat16_logits_are_computed_in_float32():
    # The same logits in float32 must give the same loss; a bfloat16 softmax would be off in the third digit.
    x_0 = jnp.tile(jnp.asarray(X_0), (4, 1))
    order = jnp.tile(jnp.asarray(ORDER), (4, 1))

    @jax.jit
    def losses(key):
        nets = (bfloat16_net, rounded_net)
        by_order = [mdm_jax.order_nll(net, PARAMS, x_0, order, mask_id=MASK) for net in nets]
        by_subset = [mdm_jax.subset_loss(net, PARAMS, key, x_0, mask_id=MASK) for net in nets]
        return by_order, by_subset

    for half, full in losses(jax.random.key(0)):
        assert half.dtype == jnp.float32
        np.testing.assert_allclose(half, full, rtol=1e-6)


def test_token_nll_matches_float64_on_any_scale_and_in_bfloat16():
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(size=(2, 3, 50)), 40 * rng.normal(size=(2, 3, 50)) + 900]).astype(np.float32)
    targets = rng.integers(0, 50, (4, 3))
    for values in (jnp.asarray(logits), jnp.asarray(logits).astype(jnp.bfloat16)):
        log_p = toy.log_softmax(np.asarray(values, np.float32))
        expected = -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
        got = mdm_jax.token_nll(values, jnp.asarray(targets))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def causal_net(params, tokens):
    """A causal net: the output at slot j depends on the tokens at slots 0..j, in their order."""
    embedded = params["embed"][tokens] * params["gate"][None, : tokens.shape[1]]
    hidden = jnp.tanh(jnp.cumsum(embedded, axis=1) + params["place"][None, : tokens.shape[1]])
    return hidden @ params["head"]


def causal_features(params, tokens):
    embedded = params["embed"][tokens] * params["gate"][None, : tokens.shape[1]]
    hidden = jnp.tanh(jnp.cumsum(embedded, axis=1) + params["place"][None, : tokens.shape[1]])
    return mdm_jax.Features(hidden, params["head"])


@pytest.mark.parametrize("order", [None, ORDER], ids=["left to right", "in an order"])
@pytest.mark.parametrize("bos_id", [0, 6])
def test_causal_nll_matches_the_chain_rule_slot_by_slot(order, bos_id):
    got = mdm_jax.causal_nll(
        causal_net, PARAMS, jnp.asarray(X_0), bos_id=bos_id, order=None if order is None else jnp.asarray(order)
    )
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in PARAMS.items()}
    for row in range(3):
        sequence = X_0[row] if order is None else X_0[row][order[row]]
        total, context = 0.0, np.zeros(weights["embed"].shape[1])
        for slot, (read, wanted) in enumerate(zip([bos_id, *sequence[:-1]], sequence, strict=True)):
            context = context + weights["embed"][read] * weights["gate"][slot]
            logits = np.tanh(context + weights["place"][slot]) @ weights["head"]
            total -= toy.log_softmax(logits)[wanted]
        np.testing.assert_allclose(got[row], total, rtol=1e-6)


def test_causal_nll_over_all_sequences_is_a_distribution_whatever_the_order():
    params = toy.net_params(4, vocab_size=3)
    x_0 = jnp.asarray(toy.sequences(3, L))
    order = jnp.broadcast_to(jnp.asarray(ORDER[0]), x_0.shape)
    nll = mdm_jax.causal_nll(causal_net, params, x_0, bos_id=4, order=order)
    np.testing.assert_allclose(np.exp(-np.asarray(nll, np.float64)).sum(), 1, rtol=1e-5)
    features = mdm_jax.causal_nll(causal_features, params, x_0, bos_id=4, order=order)
    np.testing.assert_allclose(features, nll, rtol=1e-5)


def test_loss_of_a_network_that_predicts_the_mask_gives_the_mask_no_probability():
    # The mask token's logit is enormous; if it counted, the nll would be about 100 a token.
    def mask_lover(params, tokens):
        return jnp.broadcast_to(params, (*tokens.shape, 6))

    params = jnp.asarray([0.0, 0.0, 100.0, 0.0, 0.0, 0.0])
    nll = mdm_jax.order_nll(mask_lover, params, jnp.asarray([[0, 1, 3, 5]]), jnp.asarray([[0, 1, 2, 3]]), mask_id=2)
    np.testing.assert_allclose(nll, [4 * np.log(5)], rtol=1e-6)
    loss = mdm_jax.subset_loss(mask_lover, params, jax.random.key(0), jnp.asarray([[0, 1, 3, 5]]), mask_id=2)
    np.testing.assert_allclose(loss, [4 * np.log(5)], rtol=1e-6)


CALLS = {
    **{
        name: lambda key, name=name: ESTIMATORS[name](
            toy.context_net, PARAMS, key, jnp.asarray(X_0), mask_id=MASK, is_prompt=jnp.asarray(IS_PROMPT)
        )
        for name in ["elbo cosine", "elbo polynomial", "subset", "three orders"]
    },
    "order_nll": lambda key: mdm_jax.order_nll(
        toy.context_net, PARAMS, jnp.asarray(X_0), jnp.asarray(ORDER), mask_id=MASK
    ),
    "causal_nll": lambda key: mdm_jax.causal_nll(causal_net, PARAMS, jnp.asarray(X_0), bos_id=6),
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", CALLS)
def test_losses_under_the_key_reuse_checker_reuse_no_key(name):
    with jax.debug_key_reuse(True):
        jax.jit(CALLS[name])(jax.random.key(0))


@pytest.mark.parametrize("name", CALLS)
def test_losses_under_strict_dtype_promotion_promote_nothing_implicitly(name):
    with jax.numpy_dtype_promotion("strict"):  # raises while tracing
        jax.eval_shape(CALLS[name], jax.random.key(0))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", THREE)
def test_loss_of_a_row_does_not_depend_on_the_tokens_of_the_others(name):
    loss = jax.jit(lambda x_0: ESTIMATORS[name](toy.context_net, PARAMS, jax.random.key(1), x_0, mask_id=MASK))
    changed = np.concatenate([X_0[:1], (X_0[1:] + 1) % 5])
    here, there = loss(jnp.asarray(X_0)), loss(jnp.asarray(changed))
    assert here[0] == there[0]
    assert (here[1:] != there[1:]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_0": jnp.zeros((2, 4))}, "integer"),
        ({"x_0": jnp.zeros(4, int)}, "x_0"),
        ({"mask_id": -2}, "mask_id"),
        ({"mask_id": True}, "mask_id"),
        ({"is_prompt": jnp.zeros((2, 4), int)}, "is_prompt"),
        ({"denoiser": lambda params, tokens: jnp.zeros((2, 4))}, "denoiser"),
        ({"denoiser": lambda params, tokens: jnp.zeros((2, 5, 4))}, "denoiser"),
        ({"denoiser": lambda params, tokens: jnp.zeros((2, 4, 5), int)}, "denoiser"),
        ({"denoiser": lambda params, tokens: mdm_jax.Features(jnp.zeros((2, 4, 3)), jnp.zeros((4, 5)))}, "Features"),
    ],
)
@pytest.mark.parametrize("name", THREE)
def test_loss_with_unusable_input_is_refused(name, changes, message):
    arguments = {"denoiser": toy.context_net, "x_0": jnp.zeros((2, 4), int), "mask_id": MASK} | changes
    denoiser, x_0 = arguments.pop("denoiser"), arguments.pop("x_0")
    with pytest.raises(mdm_jax.InputError, match=message):
        ESTIMATORS[name](denoiser, PARAMS, jax.random.key(0), x_0, **arguments)


def test_order_loss_with_no_orders_or_a_wrong_order_is_refused():
    loss = functools.partial(mdm_jax.order_loss, toy.context_net, PARAMS, jax.random.key(0), mask_id=MASK)
    with pytest.raises(mdm_jax.InputError, match="num_orders"):
        loss(jnp.asarray(X_0), num_orders=0)
    with pytest.raises(mdm_jax.InputError, match="order"):
        loss(jnp.asarray(X_0), order=mdm_jax.identity_order(3, 5))
