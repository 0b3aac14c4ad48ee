"""The decoder that takes tokens back: equal to a plain Python loop, and to `sample` where it must be; rows apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

import mdm_jax
from mdm_jax import oracles

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

L, V, MASK = 7, 5, toy.MASK
PARAMS = toy.net_params(0)
KEY = jax.random.key(11)
ORACLE = mdm_jax.with_noise(oracles.margin, 0.3)
B = 9
M = MASK
X_INIT = np.array(
    [
        [M, M, M, M, M, M, M],
        [0, 1, 2, 3, 4, 0, 1],
        [M, 3, M, M, 1, M, 2],
        [2, 2, 2, 2, M, 2, 2],
        [M, M, 4, M, M, M, M],
        [M, M, M, 0, M, 1, M],
        [4, M, M, 0, 0, M, M],
        [M, M, M, M, M, M, 3],
        [1, M, M, M, M, 3, M],
    ],
    np.int32,
)
remasking_sample = functools.partial(mdm_jax.remasking_sample, toy.context_net, PARAMS, mask_id=MASK)


@functools.cache
def row_keys(batch=B):
    return jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(batch))


# The plain loop.


@jax.jit
def network_and_draws(keys, step, tokens, temperature):
    """One step's draws with the documented keys: fold row, fold step, split in plan, token, score, noise."""
    step_keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, step), 4))(keys)
    logits = toy.context_net(PARAMS, tokens)
    confidence = mdm_jax.confidence_from_logits(step_keys[:, 1], logits, temperature=temperature)

    rows = [jax.tree.map(lambda field, row=row: field[row][None], confidence) for row in range(B)]
    scores = [ORACLE(step_keys[row, 2], rows[row])[0] for row in range(B)]

    def position_noise(key, position):
        return jax.random.gumbel(jax.random.fold_in(key, position), (1,), mode="high")[0]

    gumbel = jax.vmap(jax.vmap(position_noise, (None, 0)), (0, None))(step_keys[:, 3], jnp.arange(tokens.shape[1]))
    return confidence, jnp.stack(scores), gumbel


def reference(x_init, num_steps, noise, anneal, remask, temperature):
    tokens, reveal_step = x_init.copy(), np.full(x_init.shape, -1)
    log_prob, nfe = np.zeros(x_init.shape), 0
    targets = [np.flatnonzero(row == MASK) for row in x_init]
    for step in range(num_steps):
        t = num_steps - step - 1
        compete = targets if remask else [np.flatnonzero(row == MASK) for row in tokens]
        keep = [len(row_targets) * t // num_steps for row_targets in targets]
        if all(len(positions) == left for positions, left in zip(compete, keep, strict=True)):
            continue
        confidence, scores, gumbel = network_and_draws(row_keys(), step, tokens, temperature)
        confidence = jax.tree.map(np.asarray, confidence)
        scores = np.asarray(scores) + noise * (t / num_steps if anneal else 1) * np.asarray(gumbel)
        for row in range(B):
            worst_first = sorted(compete[row], key=lambda i: (scores[row, i], -i))
            for i in worst_first[: keep[row]]:
                tokens[row, i] = MASK
            for i in worst_first[keep[row] :]:
                if tokens[row, i] == MASK:
                    reveal_step[row, i] = nfe
                tokens[row, i], log_prob[row, i] = confidence.token[row, i], confidence.token_log_prob[row, i]
        nfe += 1
    return tokens, reveal_step, log_prob.sum(axis=-1), nfe


def assert_same(got, expected):
    tokens, reveal_step, log_prob, nfe = expected
    np.testing.assert_array_equal(got.tokens, tokens)
    np.testing.assert_array_equal(got.reveal_step, reveal_step)
    assert got.nfe == nfe
    np.testing.assert_allclose(got.log_prob, log_prob, atol=1e-5)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("remask", [True, False], ids=["remask", "strict"])
def test_remasking_sample_with_every_reading_equals_the_plain_loop(remask, temperature):
    options = {"oracle": ORACLE, "remask": remask, "temperature": temperature}
    for num_steps, noise, anneal in [(3, 0.0, True), (4, 0.5, True), (4, 0.5, False), (10, 1.5, True)]:
        for shift in (0, 2, 4):
            x_init = np.roll(X_INIT, shift, axis=0)
            got = remasking_sample(KEY, x_init, num_steps=num_steps, noise=noise, anneal=anneal, **options)
            assert_same(got, reference(x_init, num_steps, noise, anneal, remask, temperature))


@pytest.mark.thinned(2)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_remasking_sample_strict_without_noise_is_sample_with_top_k(temperature):
    options = {"oracle": ORACLE, "temperature": temperature}
    for num_steps in (1, 3, 5, 20):
        got = remasking_sample(KEY, X_INIT, num_steps=num_steps, noise=0.0, remask=False, **options)
        selector = mdm_jax.TopK(num_steps)
        assert_same(got, mdm_jax.sample(toy.context_net, PARAMS, KEY, X_INIT, mask_id=M, selector=selector, **options))


@pytest.mark.slow
@pytest.mark.parametrize("remask", [True, False], ids=["remask", "strict"])
def test_remasking_sample_tells_a_denoiser_which_positions_it_reads(remask):
    options = {"num_steps": 4, "noise": 0.5, "remask": remask}
    got = mdm_jax.remasking_sample(toy.OnlyFeatures(), PARAMS, KEY, X_INIT, mask_id=M, **options)
    jax.tree.map(np.testing.assert_array_equal, got, remasking_sample(KEY, X_INIT, **options))


# Hand-made: what the net says depends on the number of masks alone.


def counting_net(params, tokens):
    return params[(tokens == MASK).sum(axis=1)]


PREDICTED = np.full((4, 3, 3), 0.05)
PREDICTED[3] = [[0.05, 0.90, 0.05], [0.6, 0.2, 0.2], [0.6, 0.2, 0.2]]  # all masked: position 0 is surely 1
PREDICTED[2] = [[0.34, 0.36, 0.30], [0.0, 0.01, 0.99], [0.0, 0.02, 0.98]]  # position 0 does not fit 1 and 2
PREDICTED[1] = [[0.80, 0.15, 0.05], [0.3, 0.1, 0.6], [0.9, 0.0, 0.1]]  # it was 0, and position 2 was 0 too


def hand_made(predicted=PREDICTED, **options):
    net_params = jnp.log(jnp.asarray(predicted, jnp.float32))
    x_init = np.full((1, 3), MASK, np.int32)
    got = mdm_jax.remasking_sample(counting_net, net_params, KEY, x_init, mask_id=MASK, num_steps=3, noise=0, **options)
    return got.tokens[0].tolist(), got.reveal_step[0].tolist(), float(got.log_prob[0]), int(got.nfe)


def test_remasking_sample_of_a_token_that_stops_fitting_takes_it_back_and_corrects_it():
    tokens, reveal_step, log_prob, nfe = hand_made()
    assert tokens == [0, 2, 0]
    assert reveal_step == [2, 1, 1]  # position 2 was written anew by call 2, but call 1 revealed it
    assert abs(log_prob - np.log([0.80, 0.6, 0.9]).sum()) < 1e-5
    assert nfe == 3


def test_remasking_sample_strict_of_a_token_that_stops_fitting_keeps_it():
    tokens, reveal_step, log_prob, nfe = hand_made(remask=False)
    assert tokens == [1, 2, 0]
    assert reveal_step == [0, 1, 2]
    assert abs(log_prob - np.log([0.90, 0.99, 0.9]).sum()) < 1e-5
    assert nfe == 3


@pytest.mark.parametrize("remask", [True, False])
def test_remasking_sample_of_tied_scores_reveals_the_lowest_index_first(remask):
    tokens, reveal_step, _, _ = hand_made(np.tile([0.2, 0.4, 0.4], (4, 3, 1)), remask=remask)
    assert tokens == [1, 1, 1]
    assert reveal_step == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.thinned(2)
@pytest.mark.parametrize(("anneal", "scale"), [(True, 2 / 3), (False, 1.0)])
def test_remasking_sample_with_noise_reveals_first_by_the_softmax_of_score_over_noise(anneal, scale):
    # The Gumbel-max trick. Step 1 of 3 leaves 2 of 3 masks, with noise 0.7 * 2/3 if annealed.
    probs = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.6, 0.2, 0.2]])
    got = mdm_jax.remasking_sample(
        counting_net,
        jnp.log(jnp.broadcast_to(jnp.asarray(probs, jnp.float32), (4, 3, 3))),
        KEY,
        np.full((10_000, 3), MASK, np.int32),
        mask_id=MASK,
        num_steps=3,
        oracle=oracles.top_prob,
        noise=0.7,
        anneal=anneal,
        remask=False,
    )
    weight = np.exp(probs.max(axis=-1) / (0.7 * scale))
    toy.assert_frequencies(np.argmin(got.reveal_step, axis=-1), weight / weight.sum())


def test_remasking_sample_calls_the_network_every_step_and_strict_only_to_reveal():
    x_init = np.ones(X_INIT.shape, np.int32)
    x_init[0, [0, 1, 5]] = x_init[4, [2, 3]] = MASK
    got = remasking_sample(KEY, x_init, num_steps=10, oracle=ORACLE)
    assert got.nfe == 10
    # Rows of 3 and 2 masks in 10 steps: floor(3 t/10) falls at steps 1, 4, 7 and floor(2 t/10) at steps 1, 6.
    got = remasking_sample(KEY, x_init, num_steps=10, oracle=ORACLE, remask=False)
    assert got.nfe == 4
    assert sorted(np.asarray(got.reveal_step[0, [0, 1, 5]]).tolist()) == [0, 1, 3]
    assert sorted(np.asarray(got.reveal_step[4, [2, 3]]).tolist()) == [0, 2]


@pytest.mark.parametrize("remask", [True, False])
def test_remasking_sample_of_a_batch_without_masks_calls_no_network(remask):
    x_init = np.ones(X_INIT.shape, np.int32)
    got = remasking_sample(KEY, x_init, num_steps=4, oracle=ORACLE, remask=remask)
    assert_same(got, (x_init, np.full(x_init.shape, -1), np.zeros(B), 0))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    masks=st.lists(st.lists(st.booleans(), min_size=L, max_size=L), min_size=B, max_size=B),
    seed=st.integers(0, 2**31 - 1),
    num_steps=st.integers(1, 12),
    noise=st.floats(0, 3),
    anneal=st.booleans(),
    remask=st.booleans(),
)
def test_remasking_sample_of_any_masks_leaves_prompts_untouched_and_no_mask(
    masks, seed, num_steps, noise, anneal, remask
):
    is_masked = np.array(masks)
    x_init = np.where(is_masked, MASK, np.random.default_rng(seed).integers(0, V, (B, L))).astype(np.int32)
    options = {"num_steps": num_steps, "noise": noise, "anneal": anneal, "remask": remask}
    got = remasking_sample(jax.random.key(seed), x_init, oracle=ORACLE, temperature=1.0, **options)
    tokens, reveal_step = np.asarray(got.tokens), np.asarray(got.reveal_step)
    np.testing.assert_array_equal(tokens[~is_masked], x_init[~is_masked])
    assert ((tokens >= 0) & (tokens < V)).all()
    np.testing.assert_array_equal(reveal_step == -1, ~is_masked)
    assert reveal_step.max() < max(int(got.nfe), 1)
    np.testing.assert_array_equal(np.asarray(got.log_prob) == 0, ~is_masked.any(axis=-1))


STOCHASTIC = {"oracle": ORACLE, "num_steps": 4, "temperature": 1.0}


@pytest.mark.slow
def test_remasking_sample_of_a_row_is_the_same_in_another_place_and_alone_with_padding():
    def run(keys, x_init):
        return jax.tree.map(np.asarray, remasking_sample(keys, x_init, **STOCHASTIC))

    x_init, keys = X_INIT[:8], row_keys(8)
    together = run(keys, x_init)
    permutation = np.array([3, 0, 2, 1, 7, 4, 6, 5])
    permuted = run(keys[permutation], x_init[permutation])
    np.testing.assert_array_equal(permuted.tokens, together.tokens[permutation])
    np.testing.assert_array_equal(permuted.reveal_step, together.reveal_step[permutation])
    alone = run(keys[2:3], np.pad(x_init[2:3], ((0, 0), (0, 4)), constant_values=toy.PAD))
    np.testing.assert_array_equal(alone.tokens[0, :L], together.tokens[2])
    np.testing.assert_array_equal(alone.tokens[0, L:], toy.PAD)
    np.testing.assert_array_equal(alone.reveal_step[0, :L], together.reveal_step[2])
    np.testing.assert_allclose(alone.log_prob[0], together.log_prob[2], atol=1e-5)


@pytest.mark.slow
def test_remasking_sample_sharded_over_eight_devices_equals_one_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x_init, keys = jnp.asarray(X_INIT[:8]), row_keys(8)
    one = remasking_sample(keys, x_init, **STOCHASTIC)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    eight = remasking_sample(jax.device_put(keys, rows), jax.device_put(x_init, rows), **STOCHASTIC)
    assert len(eight.tokens.sharding.device_set) == 8
    assert_same(eight, one)


@pytest.mark.slow
def test_remasking_sample_with_other_numbers_keys_and_parameters_is_traced_once():
    traces, results = [], set()

    def net(params, tokens):
        traces.append(tokens.shape)
        return toy.context_net(params, tokens)

    for i, num_steps in enumerate([1, 4, jnp.int32(4), np.int64(9)]):
        for noise, anneal in [(0.5, True), (0, np.False_), (jnp.float32(2), jnp.array(False))]:
            got = mdm_jax.remasking_sample(
                net,
                PARAMS if i % 2 else toy.net_params(7),
                jax.random.key(i),
                X_INIT,
                mask_id=MASK,
                num_steps=num_steps,
                noise=noise,
                anneal=anneal,
                temperature=0.5 + i,
            )
            results.add(np.asarray(got.tokens).tobytes())
    assert len(traces) == 1
    assert len(results) > 1


def test_remasking_sample_takes_traced_numbers():
    def inside(num_steps, noise, anneal, temperature):
        numbers = {"num_steps": num_steps, "noise": noise, "anneal": anneal, "temperature": temperature}
        return remasking_sample(KEY, X_INIT, **numbers)

    got = jax.eval_shape(inside, 4, 0.5, True, 1.0)
    assert [(x.shape, x.dtype.name) for x in got] == [
        ((B, L), "int32"),
        ((B, L), "int32"),
        ((B,), "float32"),
        ((), "int32"),
    ]


@pytest.mark.slow
def test_remasking_sample_under_the_key_reuse_checker_reuses_no_key():
    with jax.debug_key_reuse(True):
        remasking_sample(jax.random.key(0), X_INIT, **STOCHASTIC)


@pytest.mark.parametrize("remask", [True, False])
def test_remasking_sample_under_strict_dtype_promotion_promotes_nothing_implicitly(remask):
    for oracle in (oracles.top_log_prob, oracles.log_margin):
        options = STOCHASTIC | {"oracle": oracle, "remask": remask}
        with jax.numpy_dtype_promotion("strict"):  # raises while tracing
            jax.eval_shape(lambda key, options=options: remasking_sample(key, X_INIT, **options), KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": -1}, "num_steps"),
        ({"num_steps": 1.5}, "num_steps"),
        ({"num_steps": True}, "num_steps"),
        ({"num_steps": None}, "num_steps"),
        ({"num_steps": "4"}, "num_steps"),
        ({"num_steps": np.array([4, 4])}, "num_steps"),
        ({"num_steps": 1 << 40}, "num_steps"),
        ({"noise": -0.1}, "noise.*at least 0"),
        ({"noise": float("nan")}, "noise"),
        ({"noise": float("inf")}, "noise.*at most"),
        ({"noise": None}, "noise"),
        ({"noise": "0.5"}, "noise"),
        ({"noise": np.ones(2)}, "noise"),
        ({"noise": True}, "noise"),
        ({"anneal": 1}, "anneal"),
        ({"anneal": "linear"}, "anneal"),
        ({"anneal": None}, "anneal"),
        ({"remask": 1}, "remask"),
        ({"remask": jnp.array(True)}, "remask"),
        ({"temperature": -0.5}, "temperature"),
        ({"mask_id": -1}, "mask_id.*at least 0"),
        ({"x_init": X_INIT[0]}, "shape"),
        ({"x_init": X_INIT[:, :0]}, "at least one row of at least one position"),
        ({"key": 0}, "typed key"),
        ({"oracle": "margin"}, "oracle"),
        ({"oracle": lambda key, c: c.top_prob.sum()}, "oracle.*scores"),
        ({"denoiser": lambda params, tokens: jnp.zeros((B, L))}, "denoiser.*logits"),
    ],
)
def test_remasking_sample_with_unusable_input_is_refused_and_told_why(changes, message):
    arguments = {"denoiser": toy.context_net, "key": KEY, "x_init": X_INIT, "mask_id": MASK, "num_steps": 4} | changes
    denoiser, key, x_init = (arguments.pop(name) for name in ("denoiser", "key", "x_init"))
    with pytest.raises(mdm_jax.InputError, match=message) as caught:
        mdm_jax.remasking_sample(denoiser, PARAMS, key, x_init, **arguments)
    assert "\n" not in str(caught.value)
