"""The masking kernel: forward draws, prefixes of an order, the reverse transition, and that they agree."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mdm_jax

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

SCHEDULES = [mdm_jax.Linear(), mdm_jax.Cosine(), mdm_jax.Polynomial(2.5)]
MASK = 9


def mask_probability(schedule, t):
    """1 - alpha_t in float64, from DESIGN.md's formulas."""
    if isinstance(schedule, mdm_jax.Linear):
        return t
    return np.cos(np.pi * (1 - t) / 2) if isinstance(schedule, mdm_jax.Cosine) else t**2.5


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_forward_mask_frequencies_at_each_position_match_the_schedule(schedule):
    times, rows, length = np.array([0.05, 0.3, 0.5, 0.95]), 5000, 6
    t = jnp.asarray(np.repeat(times, rows), jnp.float32)
    x_0 = jnp.broadcast_to(jnp.arange(length), (t.size, length))
    x_t, is_masked = mdm_jax.forward_mask(jax.random.key(0), x_0, t, schedule=schedule, mask_id=MASK)
    np.testing.assert_array_equal(x_t, np.where(is_masked, MASK, x_0))
    prob = mask_probability(schedule, times)[:, None]
    mean = np.asarray(is_masked).reshape(len(times), rows, length).mean(axis=1)
    # 24 binomial means: 4.5 standard deviations, which a correct draw exceeds with probability below 2e-4.
    np.testing.assert_array_less(np.abs(mean - prob) / np.sqrt(prob * (1 - prob) / rows), 4.5)


def test_forward_mask_of_all_positions_jointly_is_independent():
    rows = 16_000
    _, is_masked = mdm_jax.forward_mask(
        jax.random.key(1), jnp.zeros((rows, 4), int), jnp.full(rows, 0.4), schedule=mdm_jax.Linear(), mask_id=MASK
    )
    index = np.asarray(is_masked) @ [8, 4, 2, 1]
    toy.assert_frequencies(index, [0.4 ** m.sum() * 0.6 ** (4 - m.sum()) for m in toy.subsets(4)])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_forward_mask_at_the_ends_of_time_is_exact(schedule):
    x_0 = jnp.arange(4000).reshape(2, 2000) % 7
    x_t, is_masked = mdm_jax.forward_mask(
        jax.random.key(2), x_0, jnp.array([0.0, 1.0]), schedule=schedule, mask_id=MASK
    )
    np.testing.assert_array_equal(is_masked, np.repeat([[False], [True]], 2000, axis=1))
    np.testing.assert_array_equal(x_t[0], x_0[0])
    assert (np.asarray(x_t[1]) == MASK).all()


def test_forward_mask_with_a_prompt_never_masks_it_and_leaves_the_rest_as_without():
    key, x_0, t = jax.random.key(3), jnp.arange(400).reshape(8, 50) % 7, jnp.linspace(0.2, 1, 8)
    is_prompt = jnp.asarray(np.random.default_rng(0).random((8, 50)) < 0.4)
    options = {"schedule": mdm_jax.Linear(), "mask_id": MASK}
    x_t, is_masked = mdm_jax.forward_mask(key, x_0, t, is_prompt=is_prompt, **options)
    _, without = mdm_jax.forward_mask(key, x_0, t, **options)
    np.testing.assert_array_equal(is_masked, np.asarray(without) & ~np.asarray(is_prompt))
    np.testing.assert_array_equal(x_t, np.where(is_masked, MASK, x_0))


def test_forward_mask_of_a_row_does_not_depend_on_batch_or_padding():
    key, t = jax.random.key(4), jnp.linspace(0.3, 0.7, 6)
    options = {"schedule": mdm_jax.Cosine(), "mask_id": MASK}
    x_0 = jnp.asarray(np.random.default_rng(1).integers(0, 7, (6, 20)))
    whole, _ = mdm_jax.forward_mask(key, x_0, t, **options)
    first, _ = mdm_jax.forward_mask(key, x_0[:2], t[:2], **options)
    np.testing.assert_array_equal(first, whole[:2])
    keys = jax.random.split(key, 6)
    rows, _ = mdm_jax.forward_mask(keys, x_0, t, **options)
    reverse, _ = mdm_jax.forward_mask(keys[::-1], x_0[::-1], t[::-1], **options)
    np.testing.assert_array_equal(reverse, rows[::-1])
    padded, _ = mdm_jax.forward_mask(keys, jnp.pad(x_0, ((0, 0), (0, 13))), t, **options)
    np.testing.assert_array_equal(padded[:, :20], rows)


def test_mask_last_for_all_orders_prefixes_and_prompts_of_length_four_matches_a_walk():
    cases = list(itertools.product(itertools.permutations(range(4)), range(5), toy.subsets(4)))
    orders, counts, prompts = (np.array(column) for column in zip(*cases, strict=True))
    x_0 = jnp.asarray(np.random.default_rng(2).integers(0, 7, orders.shape))
    x_t, is_masked = mdm_jax.mask_last(
        x_0, jnp.asarray(orders), jnp.asarray(counts), mask_id=MASK, is_prompt=jnp.asarray(prompts)
    )
    expected = np.zeros(orders.shape, bool)
    for row, (order, count, prompt) in enumerate(cases):
        expected[row, [position for position in order if not prompt[position]][count:]] = True
    np.testing.assert_array_equal(is_masked, expected)
    np.testing.assert_array_equal(x_t, np.where(expected, MASK, x_0))


def test_mask_last_without_a_prompt_counts_from_the_first_of_the_order():
    x_t, is_masked = mdm_jax.mask_last(
        jnp.array([[10, 11, 12, 13]] * 3), jnp.array([[2, 0, 3, 1]] * 3), jnp.array([0, 1, 3]), mask_id=5
    )
    np.testing.assert_array_equal(x_t, [[5, 5, 5, 5], [5, 5, 12, 5], [10, 5, 12, 13]])
    np.testing.assert_array_equal(is_masked, [[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 0, 0]])


@pytest.mark.thinned(3)
@pytest.mark.parametrize("mask_id", [1, 4, 6], ids=["below V", "equal to V", "above V"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_reverse_posterior_matches_a_plain_numpy_walk(schedule, mask_id):
    rng, vocab_size = np.random.default_rng(3), 4
    t, s = np.array([1.0, 0.8, 0.5, 0.3]), np.array([0.6, 0.0, 0.5, 0.1])
    x_t = np.where(rng.random((4, 5)) < 0.6, mask_id, rng.integers(2, 4, (4, 5)))
    logits = rng.normal(size=(4, 5, vocab_size)).astype(np.float32)  # unnormalised on purpose
    probs = mdm_jax.reverse_posterior(
        jnp.asarray(logits),
        jnp.asarray(x_t),
        jnp.asarray(t, jnp.float32),
        jnp.asarray(s, jnp.float32),
        schedule=schedule,
        mask_id=mask_id,
    )
    p_theta = np.exp(toy.log_softmax(logits, mask_id))
    expected = np.zeros((4, 5, vocab_size + 1))
    for b, i in np.ndindex(4, 5):
        if x_t[b, i] != mask_id:
            expected[b, i, x_t[b, i]] = 1
            continue
        stay = mask_probability(schedule, s[b]) / mask_probability(schedule, t[b])
        expected[b, i, :vocab_size] = (1 - stay) * p_theta[b, i]
        expected[b, i, vocab_size] = stay
    assert probs.dtype == jnp.float32
    np.testing.assert_allclose(probs, expected, atol=5e-7)
    np.testing.assert_allclose(np.asarray(probs, np.float64).sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(probs)[1, :, vocab_size], 0)  # s = 0: nothing stays masked
    np.testing.assert_array_equal(np.asarray(probs)[x_t != mask_id], expected[x_t != mask_id])
    if mask_id < vocab_size:
        np.testing.assert_array_equal(np.asarray(probs)[x_t == mask_id][:, mask_id], 0)


def test_reverse_posterior_of_bfloat16_predictions_is_normalised_in_float32():
    log_p = jax.random.normal(jax.random.key(0), (2, 3, 1000)).astype(jnp.bfloat16)
    x_t, t = jnp.full((2, 3), 1000), jnp.ones(2)
    probs = mdm_jax.reverse_posterior(log_p, x_t, t, 0 * t, schedule=mdm_jax.Linear(), mask_id=1000)
    np.testing.assert_allclose(np.asarray(probs)[..., :1000], np.exp(toy.log_softmax(log_p)), rtol=1e-5)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_forward_then_reverse_with_the_truth_known_gives_the_forward_law_at_the_earlier_time(schedule):
    # q(x_s | x_0) = sum over x_t of q(x_t | x_0) q(x_s | x_t, x_0), over all 2^3 masked states of length 3.
    x_0, mask_id, vocab_size = np.array([2, 0, 1]), 3, 3
    t, s = 0.83, 0.37
    states = np.where(toy.subsets(3), mask_id, x_0)
    known = jnp.log(jnp.broadcast_to(jax.nn.one_hot(x_0, vocab_size), (8, 3, vocab_size)))
    probs = np.asarray(
        mdm_jax.reverse_posterior(known, jnp.asarray(states), t, s, schedule=schedule, mask_id=mask_id), np.float64
    )
    masked_t, masked_s = mask_probability(schedule, t), mask_probability(schedule, s)
    for target in states:
        reached = 0.0
        for state, row in zip(states, probs, strict=True):
            q_t = np.prod(np.where(state == mask_id, masked_t, 1 - masked_t))
            reached += q_t * np.prod(row[np.arange(3), target])  # the last class is mask_id = V
        expected = np.prod(np.where(target == mask_id, masked_s, 1 - masked_s))
        np.testing.assert_allclose(reached, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_0": jnp.zeros(4, int)}, "x_0"),
        ({"x_0": jnp.zeros((2, 4))}, "integer"),
        ({"t": jnp.zeros(3)}, "t must"),
        ({"mask_id": -1}, "mask_id"),
        ({"mask_id": 1.5}, "mask_id"),
        ({"is_prompt": jnp.zeros((2, 3), bool)}, "is_prompt"),
        ({"is_prompt": jnp.zeros((2, 4), int)}, "is_prompt"),
        ({"key": jax.random.split(jax.random.key(0), 3)}, "key"),
    ],
)
def test_forward_mask_with_unusable_input_is_refused(changes, message):
    arguments = {"key": jax.random.key(0), "x_0": jnp.zeros((2, 4), int), "t": jnp.ones(2), "mask_id": 9} | changes
    key, x_0, t = (arguments.pop(name) for name in ("key", "x_0", "t"))
    with pytest.raises(mdm_jax.InputError, match=message):
        mdm_jax.forward_mask(key, x_0, t, schedule=mdm_jax.Linear(), **arguments)


def test_mask_last_and_reverse_posterior_with_wrong_shapes_are_refused():
    x_0 = jnp.zeros((2, 4), int)
    with pytest.raises(mdm_jax.InputError, match="order"):
        mdm_jax.mask_last(x_0, mdm_jax.identity_order(2, 3), jnp.zeros(2, int), mask_id=9)
    with pytest.raises(mdm_jax.InputError, match="num_revealed"):
        mdm_jax.mask_last(x_0, mdm_jax.identity_order(2, 4), jnp.zeros(3, int), mask_id=9)
    with pytest.raises(mdm_jax.InputError, match="num_revealed must hold whole numbers, got float32"):
        mdm_jax.mask_last(x_0, mdm_jax.identity_order(2, 4), 1.5, mask_id=9)
    with pytest.raises(mdm_jax.InputError, match="log_p"):
        mdm_jax.reverse_posterior(jnp.zeros((2, 3, 5)), x_0, 1.0, 0.5, schedule=mdm_jax.Linear(), mask_id=9)
    times = jnp.array([0.5, 0.5]), jnp.array([0.2, 0.6])
    with pytest.raises(mdm_jax.InputError, match="s must be at most t"):
        mdm_jax.reverse_posterior(jnp.zeros((2, 4, 5)), x_0, *times, schedule=mdm_jax.Linear(), mask_id=9)
