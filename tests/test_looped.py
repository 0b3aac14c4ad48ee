"""A looped Transformer: one loop is the Transformer, more are a plain loop; the loss is the mean over loops."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saved
import tiny
import toy
from commands import assert_refused, rows, run
from test_training_objectives import as_drawn

import mdm_jax
from experiments.commands.losses import losses
from mdm_jax.draws import Focal, Skewed, Subset
from mdm_jax.errors import InputError
from mdm_jax.evaluation.replay import loops_of, trace_of
from mdm_jax.loading import export
from mdm_jax.logits import scored_nll
from mdm_jax.masking import mask_where
from mdm_jax.models import kinds
from mdm_jax.models.looped import with_loops
from mdm_jax.models.transformer import Transformer
from mdm_jax.sharding import place
from mdm_jax.training.every_loop import EveryLoop
from mdm_jax.training.held_out import held_out_loss
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import OptimizerConfig, init_state
from mdm_jax.training.step import make_train_step

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

CONFIGS = {r: kinds.adapted(tiny.CONFIG, {"kind": "looped_transformer", "num_loops": r}) for r in (1, 3)}
PARAMS = kinds.init_params(CONFIGS[3], jax.random.key(0))
MOVING = jax.tree.map(lambda leaf: 12 * leaf if leaf.ndim == 2 else leaf, PARAMS)
"""Weights so large that the states still change after many loops."""
RNG = np.random.default_rng(0)
TOKENS = jnp.asarray(RNG.integers(1, tiny.CONFIG.vocab_size, (2, 6)), jnp.int32)


def states(params, tokens):
    """The features of three loops, by plain calls of the Transformer."""
    found, state = [], jnp.zeros((*tokens.shape, tiny.CONFIG.width))
    for _ in range(3):
        found.append(Transformer(tiny.CONFIG).apply({"params": params}, tokens, state=state, method="features"))
        state = found[-1].hidden
    return found


def test_loops_are_calls_that_go_on_from_the_last_states_and_their_number_may_be_traced():
    looped, once = kinds.make_denoiser(CONFIGS[3]), kinds.make_denoiser(CONFIGS[1])
    want = states(PARAMS, TOKENS)
    np.testing.assert_allclose(once(PARAMS, TOKENS), kinds.make_denoiser(tiny.CONFIG)(PARAMS, TOKENS), atol=1e-6)
    assert not np.allclose(want[1].hidden, want[0].hidden, atol=0.01)
    every = looped.features(PARAMS, TOKENS, every_loop=True)
    np.testing.assert_allclose(every.hidden, [one.hidden for one in want], atol=1e-5)
    traces = []

    @jax.jit
    def of_loops(r):
        traces.append(r)
        return once.features(with_loops(PARAMS, r), TOKENS).hidden

    for r in (1, 2, 3):
        np.testing.assert_allclose(of_loops(r), want[r - 1].hidden, atol=1e-5)
    assert len(traces) == 1
    is_read = jnp.asarray(RNG.random(TOKENS.shape) < 0.2)
    read = looped.features(PARAMS, TOKENS, is_read).hidden
    np.testing.assert_allclose(read[is_read], want[2].hidden[is_read], atol=1e-5)


def settled_by_hand(params, tokens, most, settled, pad_id=None):
    """One row at a time, by plain calls of the Transformer: its last states, and how many loops it took."""
    config, found = kinds.adapted(tiny.CONFIG, {"pad_id": pad_id}), []
    network = jax.jit(functools.partial(Transformer(config).apply, {"params": params}, method="features"))
    for row in tokens:
        old = network(row[None], state=jnp.zeros((1, len(row), config.width))).hidden[0]
        loops, is_real = 1, np.asarray(row) != pad_id
        while loops < most:
            new = network(row[None], state=old[None]).hidden[0]
            share = np.linalg.norm(new - old, axis=-1) / np.linalg.norm(new, axis=-1)
            old, loops = new, loops + 1
            if share[is_real].max() <= settled:
                break
        found.append((old, loops))
    return found


def test_row_goes_through_no_more_loops_once_its_states_settle():
    denoiser, tokens = kinds.make_denoiser(CONFIGS[3]), jnp.asarray(RNG.integers(0, tiny.CONFIG.vocab_size, (8, 6)))
    changes = np.diff(denoiser.features(MOVING, tokens, every_loop=True).hidden, axis=0)
    assert np.linalg.norm(changes[-1], axis=-1).max() > 0.01, "the states move"
    took = set()
    features, count = jax.jit(denoiser.features), jax.jit(denoiser.loops)
    for settled in (0.0, 0.05, 0.1, 0.2, 0.5, 3.0):
        params = with_loops(MOVING, 12, settled)
        want = settled_by_hand(MOVING, tokens, 12, settled)
        np.testing.assert_array_equal(count(params, tokens), [loops for _, loops in want])
        found = features(params, tokens).hidden
        np.testing.assert_allclose(found, jnp.stack([state for state, _ in want]), atol=1e-5)
        np.testing.assert_allclose(features(params, tokens[3:4]).hidden[0], found[3], atol=1e-5)
        took |= {loops for _, loops in want}
    assert {2, 12} < took, "some settle at once, some never, some between"
    assert (features._cache_size(), count._cache_size()) == (2, 1), "another number compiles nothing"
    np.testing.assert_allclose(
        features(with_loops(MOVING, 3, 0.0), tokens).hidden, denoiser.features(MOVING, tokens).hidden, atol=1e-5
    )
    assert (denoiser.loops(MOVING, tokens) == 3).all()
    assert (denoiser.loops(with_loops(MOVING, 7), tokens) == 7).all()
    assert (denoiser.loops(with_loops(MOVING, 1, 0.1), tokens) == 1).all()


def test_padding_does_not_keep_a_row_from_settling():
    pad = 0
    denoiser = kinds.make_denoiser(kinds.adapted(CONFIGS[3], {"pad_id": pad}))
    tokens = TOKENS.at[:, 4:].set(pad)
    for settled in (0.05, 0.1, 0.2):
        want = settled_by_hand(MOVING, tokens, 9, settled, pad_id=pad)
        assert denoiser.loops(with_loops(MOVING, 9, settled), tokens).tolist() == [loops for _, loops in want]


def test_network_whose_states_are_not_finite_settles():
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), PARAMS)
    assert kinds.make_denoiser(CONFIGS[3]).loops(with_loops(broken, 1 << 20, 0.0), TOKENS).tolist() == [2, 2]


def test_sampler_of_settled_states_fills_in_each_row_as_if_it_were_alone():
    denoiser, params = kinds.make_denoiser(CONFIGS[3]), with_loops(MOVING, 9, 0.1)
    x_init = jnp.where(jnp.arange(6)[None] < jnp.array([[0], [2], [4]]), 1, tiny.MASK)
    keys = jax.random.split(jax.random.key(0), 3)
    decode = functools.partial(mdm_jax.sample, denoiser, params, mask_id=tiny.MASK)
    together = decode(keys, x_init)
    for i in range(3):
        alone = decode(keys[i : i + 1], x_init[i : i + 1])
        assert (alone.tokens[0] == together.tokens[i]).all()
        np.testing.assert_allclose(alone.log_prob[0], together.log_prob[i], rtol=1e-5)
    trace = trace_of(together.tokens, together.reveal_step, mask_id=tiny.MASK)
    by_hand = [
        denoiser.loops(params, shown[None])[0]
        for call in trace.tokens[:-1]
        for shown in call
        if (shown == tiny.MASK).any()
    ]
    assert len(by_hand) == 6 + 4 + 2
    assert loops_of(denoiser, params, trace) == pytest.approx(np.mean(by_hand))
    with pytest.raises(InputError, match="no row of the trace has a mask"):
        loops_of(denoiser, params, trace._replace(tokens=trace.tokens[-1:]))


@pytest.mark.thinned(6)
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("draw", [Subset(), Skewed(), Focal()], ids=["subset", "skewed", "reweighted"])
def test_loss_is_the_mean_over_loops_of_the_ordinary_one_and_its_gradient_flows_through_all(draw, paired):
    size = TOKENS.shape[1]
    is_masked = np.arange(size)[None] < np.array([[2], [size - 1 - 2]])  # as many as a pair has at most
    drawn = as_drawn(np.asarray(TOKENS), is_masked, np.array([1.0, 2.0]))
    looped, mask_id = kinds.make_denoiser(CONFIGS[3]), tiny.MASK

    def by_hand(params):
        x_t = mask_where(drawn.x_0, drawn.is_masked, mask_id)
        nats = [scored_nll(one, drawn.x_0, drawn.is_scored, mask_id=mask_id) for one in states(params, x_t)]
        each = jnp.stack([draw.token_loss(own) if isinstance(draw, Focal) else own for own in nats])
        return (drawn.weight[None] * each.sum(axis=-1)).mean(axis=0).sum()

    def loss(params):
        own = functools.partial(masked_loss(mask_id, EveryLoop(draw)).nll, looped.features, paired=paired)
        return own(params, drawn).sum()

    (value, gradient), want = jax.value_and_grad(loss)(PARAMS), jax.value_and_grad(by_hand)(PARAMS)
    np.testing.assert_allclose(value, want[0], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), gradient, want[1])
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_config_counts_the_loops_and_refuses_shifted_logits():
    plain, looped = tiny.CONFIG.forward_flops(6, 4), CONFIGS[3].forward_flops(6, 4)
    head = tiny.CONFIG.forward_flops(6, 4) - tiny.CONFIG.forward_flops(6, 0)
    assert looped - head == pytest.approx(3 * (plain - head))
    assert kinds.from_json(kinds.to_json(CONFIGS[3])) == CONFIGS[3]
    assert kinds.num_params(CONFIGS[3]) == kinds.num_params(tiny.CONFIG)
    with pytest.raises(InputError, match="shift_logits must be False"):
        kinds.adapted(CONFIGS[3], {"shift_logits": True})


@pytest.mark.slow
def test_sampler_takes_loops_from_the_parameters():
    x_init = jnp.full((2, 6), tiny.MASK)
    three, same, one = (
        mdm_jax.sample(
            kinds.make_denoiser(CONFIGS[r]), params, jax.random.key(0), x_init, mask_id=tiny.MASK, temperature=0
        )
        for r, params in ((3, PARAMS), (1, with_loops(PARAMS, 3)), (1, PARAMS))
    )
    np.testing.assert_allclose(three.log_prob, same.log_prob, rtol=1e-5)
    assert (three.tokens == same.tokens).all()
    assert (jnp.abs(three.log_prob - one.log_prob) > 1e-3).any()


def test_number_of_loops_that_is_none_is_refused_and_never_saved(tmp_path):
    for number in (0, -5, 2.5, "a", 2**40):
        with pytest.raises(InputError, match="num_loops must be a whole number"):
            with_loops(PARAMS, number)
    for share in (-0.1, float("nan"), float("inf"), "a"):
        with pytest.raises(InputError, match="settled must be a number"):
            with_loops(PARAMS, 2, share)
    model = mdm_jax.Model(CONFIGS[3], with_loops(PARAMS, 2), kinds.make_denoiser(CONFIGS[3]))
    with pytest.raises(InputError, match="hold a chosen num_loops"):
        export(model, tmp_path / "out")


def test_held_out_loss_of_every_loop_is_the_mean_over_loops():
    examples = tiny.to_batch({"tokens": np.asarray(TOKENS)})
    loss, mesh = masked_loss(tiny.MASK, EveryLoop()), tiny.one_device()
    found = held_out_loss(kinds.make_denoiser(CONFIGS[3]), loss, examples, mesh, batch_size=2)(PARAMS)
    drawn = loss.draw(jax.random.fold_in(jax.random.key(0), 0), place(mesh, examples))
    x_t = mask_where(drawn.x_0, drawn.is_masked, tiny.MASK)
    each = [scored_nll(one, drawn.x_0, drawn.is_scored, mask_id=tiny.MASK).sum(axis=-1) for one in states(PARAMS, x_t)]
    assert found == pytest.approx(float((drawn.weight * jnp.stack(each).mean(axis=0)).sum()) / 10, rel=1e-4)


def test_loss_of_every_loop_of_a_network_without_loops_is_one_line():
    init, optimizer = functools.partial(kinds.init_params, tiny.CONFIG), OptimizerConfig(num_steps=2)
    loss, mesh = masked_loss(tiny.MASK, EveryLoop()), tiny.one_device()
    step = make_train_step(kinds.make_denoiser(tiny.CONFIG), init, loss, optimizer, mesh)
    batch = tiny.to_batch({"tokens": tiny.data()["tokens"][:2]})
    with pytest.raises(InputError, match="asks the network for every_loop"):
        step(init_state(mesh, init, 0, optimizer), place(mesh, batch))
    evaluate = held_out_loss(kinds.make_denoiser(tiny.CONFIG), loss, batch, mesh, batch_size=2)
    with pytest.raises(InputError, match="asks the network for every_loop"):
        evaluate(PARAMS)


def test_loops_are_refused_with_another_loss_layout_or_an_autoregressive_model(tmp_path):
    for name, mask_id, words in (
        ("aligned", 0, "--loss aligned trains no loops"),
        ("plain", None, "is for masked models"),
    ):
        with pytest.raises(InputError, match=words):
            losses(name, mask_id, "it", num_loops=2)
    grouped = ["train", "--num-train", 8, "--num-test", 4, "--out", tmp_path / "out", "--data", tmp_path / "data"]
    words = "is for a plain Transformer, and this layout wants a grouped_transformer"
    assert_refused("zebra", [([*grouped, *flag], words) for flag in (["--num-loops", 2], ["--loss", "quality"])])
    assert not (tmp_path / "out" / "config.json").exists()


def test_evaluate_takes_several_numbers_of_loops_and_refuses_a_network_without(tmp_path):
    looped, plain = tmp_path / "looped", tmp_path / "plain"
    saved.write_sudoku(looped, kind="looped_transformer", num_loops=2)
    saved.write_sudoku(plain)
    flags = ["evaluate", "--limit", 4, "--out", tmp_path / "out", "--checkpoint"]
    run("sudoku", *flags, looped, "--num-loops", 1, 2, 5)
    run("sudoku", *flags, looped, "--num-loops", 2, "--proposals", 2, "--choose", "average", "--out", tmp_path / "two")
    assert [row["num_loops"] for row in rows(tmp_path / "out")] == [1, 2, 5]
    (row,) = rows(tmp_path / "two")
    assert (row["num_loops"], row["proposals"]) == (2, 2)
    run("sudoku", *flags, looped, "--out", tmp_path / "three")
    (row,) = rows(tmp_path / "three")
    assert (row["num_loops"], row["passes"]) == (2, 2 * row["nfe"])
    assert row["cells"] == rows(tmp_path / "out")[1]["cells"]
    run("sudoku", *flags, looped, "--num-loops", 5, "--settled", 0.3, "--out", tmp_path / "four")
    (row,) = rows(tmp_path / "four")
    assert (row["num_loops"], row["settled"]) == (5, 0.3)
    assert 2 <= row["loops"] <= 5
    assert row["passes"] == pytest.approx(row["loops"] * row["nfe"], abs=0.05 + 0.005 * row["nfe"])  # rounded
    settled = ["--settled", 0.3]
    run("sudoku", *flags, looped, "--num-loops", 5, *settled, "--remask-steps", 2, "--out", tmp_path / "five")
    assert not {"loops", "passes"} & set(rows(tmp_path / "five")[0])
    refused = [
        ([*flags, plain, "--num-loops", 2], "is for a looped network, and"),
        ([*flags, looped, *settled], "--settled ends the loops of --num-loops"),
    ]
    assert_refused("sudoku", refused)


@pytest.mark.slow
def test_smoke_trains_with_loops_and_without_and_counts_passes(tmp_path):
    run("loops", "reproduce", "--scale", "smoke", "--data", tmp_path / "data", "--out", tmp_path / "out")
    found = [row for row in rows(tmp_path / "out") if "passes" in row]
    assert [(row["network"], row["num_loops"]) for row in found] == [
        ("looped", 1),
        ("looped", 3),
        ("once, as many steps", 1),
        ("once, as much compute", 1),
    ]
    assert all(row["passes"] == row["num_loops"] * row["nfe"] for row in found)
    assert json.loads((tmp_path / "out" / "looped" / "config.json").read_text())["model"]["num_loops"] == 2
    assert (tmp_path / "out" / "loops.png").stat().st_size > 5000
