"""Order-aligned training: a pool that the network itself unmasks, carried, sharded and restored with the state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy
from commands import rows, run
from scipy import stats

from experiments.aligned_table import compared
from mdm_jax import oracles
from mdm_jax.confidence import confidence_from_logits
from mdm_jax.evaluation.intervals import paired_interval
from mdm_jax.models.kinds import init_params, make_denoiser
from mdm_jax.sharding import make_mesh, place
from mdm_jax.training.aligned import Aligned, Pool
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import OptimizerConfig, init_state
from mdm_jax.training.step import make_train_step

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

B, L, K, V = 64, 12, 4, 5
X_0 = jnp.asarray(np.random.default_rng(0).integers(0, V, (B, L)), jnp.int32)
IS_PROMPT = jnp.asarray(np.random.default_rng(1).random((B, L)) < np.linspace(0, 0.6, B)[:, None])
DRAW = Aligned(num_phases=K)


def shares(pool):
    is_free = ~np.asarray(pool.is_prompt)
    return (is_free & ~np.asarray(pool.is_masked)).sum(axis=1) / is_free.sum(axis=1)


def test_pool_begins_in_all_phases_with_as_much_revealed_as_the_phase_says():
    masked, pool = jax.jit(DRAW)(jax.random.key(0), X_0, IS_PROMPT, DRAW.init(X_0 * 0, IS_PROMPT))
    assert set(np.asarray(pool.phase)) == set(range(K))
    np.testing.assert_array_equal(pool.x_0, X_0)
    assert not (np.asarray(pool.is_masked) & np.asarray(IS_PROMPT)).any()
    rounding = 0.5 / (~np.asarray(IS_PROMPT)).sum(axis=1)
    phase, share = np.asarray(pool.phase), shares(pool)
    assert (share >= phase / K - rounding).all()
    assert (share <= (phase + 1) / K + rounding).all()
    assert pool.is_masked.any(axis=1).all()
    num_free = (~IS_PROMPT).sum(axis=1)
    np.testing.assert_allclose(masked.weight * masked.is_masked.sum(axis=1), num_free, rtol=1e-6)
    np.testing.assert_array_equal(masked.is_masked, masked.is_scored)


def test_sequences_are_unmasked_where_the_oracle_says_until_fresh_ones_take_their_places():
    key, logits = jax.random.key(2), jax.random.normal(jax.random.key(3), (B, L, V))
    confidence = confidence_from_logits(key, logits, temperature=0.0)
    scores = np.asarray(oracles.margin(key, confidence))
    draw = Aligned(num_phases=K, oracle=oracles.margin)
    _, pool = draw(key, X_0, IS_PROMPT, draw.init(X_0 * 0, IS_PROMPT))
    for step in range(2 * K):
        before = pool
        pool = draw.advance(jax.random.fold_in(key, step), before, confidence)
        np.testing.assert_array_equal(pool.phase, before.phase + 1)
        chosen = np.asarray(before.is_masked & ~pool.is_masked)
        assert not np.asarray(pool.is_masked & ~before.is_masked).any()
        for row in range(B):
            left = np.asarray(pool.is_masked)[row]
            if chosen[row].any():
                assert scores[row][chosen[row]].min() >= scores[row][left].max(initial=-np.inf)
        other = (X_0 + 1 + step) % V
        is_done = np.asarray(pool.phase) >= K
        after = draw(jax.random.fold_in(key, 100 + step), other, IS_PROMPT, pool)[1]
        np.testing.assert_array_equal(after.x_0, np.where(is_done[:, None], other, pool.x_0))
        np.testing.assert_array_equal(np.asarray(after.phase)[is_done], 0)
        for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(pool), strict=True):
            np.testing.assert_array_equal(np.asarray(new)[~is_done], np.asarray(old)[~is_done])
        pool = after
    assert is_done.any()


def test_scores_that_are_no_numbers_are_taken_last():
    pool = Pool(X_0, IS_PROMPT & False, jnp.ones((B, L), bool), jnp.zeros(B, jnp.int32))
    confidence = confidence_from_logits(jax.random.key(0), jnp.zeros((B, L, V)).at[:, ::2].set(jnp.nan), temperature=0)
    after = jax.jit(DRAW.advance)(jax.random.key(1), pool, confidence._replace(top_prob=confidence.entropy))
    chosen = ~np.asarray(after.is_masked)
    assert chosen.sum(axis=1).min() >= 1
    assert not chosen[:, ::2].any()


def test_step_of_training_calls_the_network_as_often_as_the_plain_loss_does():
    """Tracing the step calls the denoiser, so that its calls can be counted: none is added for the pool."""
    batch = tiny.to_batch({"tokens": tiny.data()["tokens"][:4]})
    network, calls = make_denoiser(tiny.CONFIG), []

    def counted(params, tokens):
        calls.append(tokens.shape)
        return network(params, tokens)

    params = init_params(tiny.CONFIG, jax.random.key(0))

    def value(params, loss, drawn):
        nats = loss.nll(counted, params, drawn)
        return (nats if loss.init is None else nats[0]).sum()

    seen = []
    for loss in (masked_loss(tiny.MASK), masked_loss(tiny.MASK, Aligned())):
        pools = () if loss.init is None else (loss.init(batch),)
        drawn = loss.draw(jax.random.key(1), batch, *pools)
        jax.eval_shape(jax.grad(lambda p, loss=loss, d=drawn[0] if pools else drawn: value(p, loss, d)), params)
        seen.append(list(calls))
        calls.clear()
    plain, aligned = seen
    assert plain == aligned == [(4, 6)], "one call, of as many tokens"


def steps(mesh, accumulate=1, number=6):
    optimizer = OptimizerConfig(num_steps=40, warmup_steps=2, learning_rate=1e-2)
    loss, init = masked_loss(tiny.MASK, Aligned(num_phases=2)), functools.partial(init_params, tiny.CONFIG)
    batch = tiny.to_batch({"tokens": tiny.data()["tokens"][:32]})
    like = {name: jnp.zeros(x.shape, x.dtype) for name, x in batch.items()}
    state = init_state(mesh, init, 0, optimizer, init_pool=lambda: loss.init(like))
    step = make_train_step(make_denoiser(tiny.CONFIG), init, loss, optimizer, mesh, accumulate=accumulate)
    losses, pools = [], []
    for _ in range(number):
        state, metrics = step(state, place(mesh, batch))
        losses.append(float(metrics["loss_per_token"]))
        pools.append(jax.tree.map(np.asarray, state.pool))
    return losses, pools


@pytest.mark.slow
@pytest.mark.eight_devices
def test_the_pool_is_the_same_over_a_mesh_and_in_parts():
    want, want_pools = steps(tiny.one_device())
    for mesh, accumulate in ((make_mesh(2, 2, 2), 1), (tiny.one_device(), 4), (make_mesh(4, 2, 1), 2)):
        got, pools = steps(mesh, accumulate)
        np.testing.assert_allclose(got, want, rtol=1e-4)  # of the order of the optimizer's steps on rounding
        jax.tree.map(np.testing.assert_array_equal, pools[0], want_pools[0])
        assert (pools[-1].phase == want_pools[-1].phase).all()


@pytest.mark.slow
def test_training_learns_and_a_crashed_run_ends_bit_for_bit_as_if_never_stopped(tmp_path):
    options = {"loss": masked_loss(tiny.MASK, Aligned(num_phases=3)), "steps": 60}
    whole = tiny.train(tmp_path / "whole", **options)
    with pytest.raises(tiny.CrashError):
        tiny.train(tmp_path / "crashed", stop=33, **options)
    again = tiny.train(tmp_path / "crashed", **options)
    assert int(whole.pool.phase.max()) <= 3
    assert (np.asarray(whole.pool.x_0) == np.asarray(whole.pool.x_0)[:, :1]).all(), "sequences of the data"
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)
    logits = make_denoiser(tiny.CONFIG)(whole.params, jnp.asarray([[3, 0, 0, 0, 0, 0]], jnp.int32))
    assert (logits[0, 1:, 1:].argmax(axis=-1) == 2).all(), "the digit that is given, throughout"


@pytest.mark.slow
def test_smoke_compares_both_losses_puzzle_by_puzzle(tmp_path):
    run("aligned", "reproduce", "--scale", "smoke", "--data", tmp_path / "data", "--out", tmp_path / "out")
    found = [row for row in rows(tmp_path / "out") if "is_solved" in row and "guesses" not in row]
    assert [(row["loss"], row["dataset"]) for row in found] == [
        (loss, name) for loss in ("plain", "aligned") for name in ("6x6-normal", "6x6-hard")
    ]
    for row in found:  # as if the aligned one had solved half of them
        row["is_solved"] = list(range(row["n"] // 2)) if row["loss"] == "aligned" else []
    for line in compared(found):
        assert (line["plain"], line["aligned"], line["minus_plain"]) == (0, 0.5, 0.5)
        assert line["puzzles_ci"][0] < 0.5 < line["puzzles_ci"][1]
        assert "minus_plain_ci" not in line, "one seed"


def test_comparison_has_an_interval_over_trainings_and_one_over_puzzles():
    way = {"dataset": "hard", "oracle": "margin", "tokens_per_step": 1, "n": 10}
    solved = {("plain", 0): 5, ("aligned", 0): 7, ("aligned", 2): 9, ("aligned", 1): 5, ("plain", 1): 5}
    solved |= {("plain", 2): 5}
    found = [{**way, "loss": loss, "repeat": i, "is_solved": [*range(n)]} for (loss, i), n in solved.items()]
    (line,) = compared(found)
    want = stats.ttest_rel([0.7, 0.5, 0.9], [0.5, 0.5, 0.5]).confidence_interval(0.95)
    np.testing.assert_allclose(line["minus_plain_ci"], want)
    assert (line["plain"], line["minus_plain"]) == (0.5, pytest.approx(0.2))
    assert line["puzzles_ci"] == paired_interval([0] * 5 + [2 / 3] * 2 + [1 / 3] * 2 + [0])
