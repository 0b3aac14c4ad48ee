"""The jitted update: in parts, in low precision, and in the face of what is not finite."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from mdm_jax import sample
from mdm_jax.errors import InputError, RunError
from mdm_jax.evaluation.puzzles import fill_in
from mdm_jax.models import kinds, presets
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import make_mesh
from mdm_jax.training.digest import digest
from mdm_jax.training.loop import LoopConfig
from mdm_jax.training.metrics import read_metrics
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import OptimizerConfig, abstract_state, init_state
from mdm_jax.training.step import make_train_step

BATCH = {name: jnp.asarray(x) for name, x in tiny.to_batch({"tokens": tiny.data()["tokens"][:24]}).items()}


def steps(number, *, config=tiny.CONFIG, mesh=None, accumulate=1, learning_rate=1e-2):
    """State and metrics after some steps on the same batch."""
    optimizer = OptimizerConfig(num_steps=100, warmup_steps=2, ema_decay=0.9, learning_rate=learning_rate)
    mesh, init = mesh or tiny.one_device(), tiny.init(config)
    step = tiny.make_train_step(make_denoiser(config), init, tiny.LOSS, optimizer, mesh, accumulate=accumulate)
    state, all_metrics = init_state(mesh, init, 0, optimizer), []
    for _ in range(number):
        state, metrics = step(state, BATCH)
        all_metrics.append({name: float(value) for name, value in metrics.items()})
    return state, all_metrics


@functools.cache
def three_steps():
    """On one device, of the whole batch."""
    return steps(3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accumulate", "sizes"),
    [
        pytest.param(2, (1, 1, 1), marks=pytest.mark.slow),
        (3, (1, 1, 1)),
        pytest.param(2, (2, 2, 2), marks=[pytest.mark.slow, pytest.mark.eight_devices]),
        pytest.param(3, (2, 2, 2), marks=[pytest.mark.slow, pytest.mark.eight_devices]),
    ],
)
def test_batch_worked_off_in_parts_trains_as_the_whole_batch(accumulate, sizes):
    mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    whole, expected = three_steps()
    parts, got = steps(3, mesh=mesh, accumulate=accumulate)
    for one, other in zip(expected, got, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    chex.assert_trees_all_close(jax.device_get(parts.params), jax.device_get(whole.params), atol=2e-4)


@pytest.mark.slow
def test_batch_in_parts_gives_each_part_its_own_dropout():
    # The same dropout mask in every part would be the mask of a batch of a third of the size.
    config = dataclasses.replace(tiny.CONFIG, dropout=0.5)
    seen = []

    def apply(params, tokens, *, dropout_key=None):
        seen.append(dropout_key)
        output = make_denoiser(config)(params, tokens, dropout_key=dropout_key)
        return output + 0 * jax.random.uniform(dropout_key)

    keys = []

    def loss_nll(denoiser, params, drawn, *, paired):
        nll = masked_loss(tiny.MASK).nll(denoiser, params, drawn, paired=paired)
        jax.debug.callback(lambda bits: keys.append(tuple(np.asarray(bits).tolist())), jax.random.key_data(seen[-1]))
        return nll

    loss = masked_loss(tiny.MASK)._replace(nll=loss_nll)
    optimizer, init = OptimizerConfig(num_steps=2), functools.partial(init_params, config)
    step = make_train_step(apply, init, loss, optimizer, tiny.one_device(), accumulate=3)
    jax.block_until_ready(step(init_state(tiny.one_device(), init, 0, optimizer), BATCH))
    jax.effects_barrier()
    assert len(set(keys)) == 3


def test_batch_that_does_not_split_into_the_parts_is_named():
    with pytest.raises(InputError, match="batch size 24 does not split into 5 parts"):
        steps(1, accumulate=5)


@pytest.mark.slow
def test_recomputation_trains_the_same():
    first, second = three_steps()[0], steps(3, config=dataclasses.replace(tiny.CONFIG, remat=True))[0]
    chex.assert_trees_all_close(first.params, second.params, atol=1e-5)


@pytest.mark.slow
def test_low_precision_parameters_learn_from_steps_too_small_for_them():
    """bfloat16 near 0.02 has steps of 1e-4, so that updates of 1e-6 would all be lost without float32 masters."""
    config = dataclasses.replace(tiny.CONFIG, param_dtype="bfloat16")
    state, _ = steps(40, config=config, learning_rate=3e-6)
    start, _ = steps(0, config=config)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    kernel = ("layers_0", "mlp", "up", "kernel")
    moved, before = (functools.reduce(dict.__getitem__, kernel, tree.params) for tree in (state, start))
    assert 2e-5 < float(jnp.abs(moved - before).mean()) < 4e-4
    low = moved.astype(jnp.bfloat16)
    naive = before.astype(jnp.bfloat16)
    for _ in range(40):  # what plain bfloat16 makes of the same updates
        naive = naive + ((moved - before) / 40).astype(jnp.bfloat16)
    lost = (naive == before.astype(jnp.bfloat16)) & (low != before.astype(jnp.bfloat16))
    assert float(lost.mean()) > 0.05, "and the masters keep what plain bfloat16 loses"


def test_low_precision_parameters_are_what_the_network_and_its_gradient_see():
    config = dataclasses.replace(tiny.CONFIG, param_dtype="bfloat16")
    seen = []

    def apply(params, tokens, *, dropout_key=None):
        seen.extend(leaf.dtype for leaf in jax.tree.leaves(params))
        return make_denoiser(config)(params, tokens)

    optimizer, init = OptimizerConfig(num_steps=2), functools.partial(init_params, config)
    step = make_train_step(apply, init, masked_loss(0), optimizer, tiny.one_device())
    step.lower(abstract_state(tiny.one_device(), init, optimizer), BATCH)
    assert set(seen) == {jnp.dtype("bfloat16")}


@functools.cache
def poisoned(kind):
    """A loss that is NaN, or whose gradient is, in chosen steps: those whose batch holds the token 7."""

    def nll(denoiser, params, drawn, *, paired):
        value = tiny.LOSS.nll(denoiser, params, drawn, paired=paired)
        is_bad = (drawn.x_0 == 7).any()
        if kind == "loss":
            return jnp.where(is_bad, jnp.inf, value)
        norm = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))
        # 0, but the slope of the root there is infinite, and times 0 that is NaN.
        return value + jax.lax.cond(is_bad, lambda x: jnp.sqrt(0 * x), jnp.zeros_like, norm)

    return tiny.LOSS._replace(nll=nll)


class Chosen:
    """Batches of 8 equal sequences: the token of step k is 7 where `is_bad(k)`, from 1 to 6 elsewhere."""

    def __init__(self, is_bad):
        self.is_bad, self.step = is_bad, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.step += 1
        token = 7 if self.is_bad(self.step) else 1 + self.step % 6
        return {"tokens": np.full((8, 6), token, np.int32)}

    def get_state(self):
        return {"step": self.step}

    def set_state(self, state):
        self.step = state["step"]


@pytest.mark.thinned(2)
@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path, kind):
    state = tiny.train(tmp_path, steps=9, loss=poisoned(kind), batches=Chosen(lambda step: step in (3, 4)))
    lines = read_metrics(tmp_path)
    assert [line["skipped_steps"] for line in lines] == [0, 0, 1] + [2] * 6
    assert [line["skipped_in_a_row"] for line in lines] == [0, 0, 1, 2] + [0] * 5
    name = {"loss": "loss_per_token", "gradient": "gradient_norm"}[kind]
    assert [line[name] is None for line in lines] == [step in (3, 4) for step in range(1, 10)]
    assert [line["learning_rate"] for line in lines][2:5] == [lines[2]["learning_rate"]] * 3, "the schedule waits too"
    assert int(state.step) == 9
    assert int(state.skipped) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.ema)))


@pytest.mark.slow
def test_step_that_is_not_finite_leaves_parameters_average_and_optimizer_bit_for_bit():
    optimizer, init = OptimizerConfig(num_steps=9, ema_decay=0.9), functools.partial(init_params, tiny.CONFIG)
    step = make_train_step(
        make_denoiser(tiny.CONFIG), init, poisoned("gradient"), optimizer, tiny.one_device(), accumulate=2
    )
    batches = Chosen(lambda step: step == 3)
    state = init_state(tiny.one_device(), init, 0, optimizer)
    digests = []
    for _ in range(4):
        state, _ = step(state, {name: jnp.asarray(x) for name, x in tiny.to_batch(next(batches)).items()})
        digests.append(digest((state.params, state.ema, state.opt_state)))
    assert digests[1] == digests[2]
    assert digests[2] != digests[3]


@pytest.mark.slow
def test_steps_that_are_not_finite_one_after_the_other_stop_the_run_with_good_checkpoints(tmp_path):
    options = {"loss": poisoned("loss"), "loop": {"checkpoint_every": 2, "max_skipped": 3}}
    with pytest.raises(RunError, match=r"3 steps in a row, up to step 8.*lower learning rate"):
        tiny.train(tmp_path, steps=9, batches=Chosen(lambda step: step >= 6), **options)
    good = tiny.train(tmp_path / "good", steps=9, batches=Chosen(lambda step: False), **options)
    saved = tiny.final_state(tmp_path)
    assert int(saved.step) == 4, "none was saved among the skipped steps"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.params))
    assert int(good.skipped) == 0
    whole = tiny.train(tmp_path, steps=9, batches=Chosen(lambda step: False), **options)
    assert int(whole.step) == 9, "with the data mended, the run goes on"


def overflowing(at):
    """An optimizer whose update is infinite from the given one on, though loss and gradient are finite."""

    def make(rate):
        steps = optax.scale_by_schedule(lambda count: jnp.where(count < at, -1e-3, -jnp.inf))
        return optax.chain(optax.sgd(1.0), steps)

    return OptimizerConfig(num_steps=20, ema_decay=0.9, transformation=make)


@pytest.mark.slow
def test_update_that_is_not_finite_is_skipped_and_ends_the_run_before_anything_is_evaluated_or_saved(tmp_path):
    seen = []

    def evaluate(params):
        seen.append(all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)))
        return {"grade": 1.0}

    loop = {"checkpoint_every": 1, "evaluate_every": 1, "keep": 1, "max_skipped": 3}
    with pytest.raises(RunError, match=r"3 steps in a row, up to step 8.*the checkpoints are good"):
        tiny.train(tmp_path, steps=20, optimizer=overflowing(5), evaluate=evaluate, loop=loop)
    assert [step.name for step in (tmp_path / "checkpoints").iterdir()] == ["5"]
    assert seen == [True] * 7
    assert [line["skipped_steps"] for line in read_metrics(tmp_path) if "grade" not in line] == [0] * 5 + [1, 2, 3]


@pytest.mark.slow
def test_evaluation_whose_predictions_are_not_finite_ends_the_run_as_such_steps_do(tmp_path):
    denoiser, rows = make_denoiser(tiny.CONFIG), np.zeros((2, 6), np.int32)

    def evaluate(params):
        broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
        fill_in(functools.partial(sample, denoiser, broken, mask_id=tiny.MASK), rows, padding=np.ones(6, np.int32))
        return {"grade": 1.0}

    with pytest.raises(RunError, match=r"evaluation at step 2 are not finite; the checkpoints are good: .*lower learn"):
        tiny.train(tmp_path, steps=9, evaluate=evaluate, loop={"checkpoint_every": 1, "evaluate_every": 2})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    assert int(tiny.final_state(tmp_path).step) == 1


@pytest.mark.slow
def test_run_of_which_most_steps_were_skipped_says_so_however_often_it_is_started(tmp_path):
    for _ in range(2):
        with pytest.raises(RunError, match=r"6 of 9 steps were skipped.*no trained model"):
            tiny.train(tmp_path, steps=9, loss=poisoned("loss"), batches=Chosen(lambda step: step % 3))
    with pytest.raises(RunError, match="5 of 9 steps were skipped"):
        tiny.train(tmp_path / "end", steps=9, loss=poisoned("loss"), batches=Chosen(lambda step: step > 4))
    assert not (tmp_path / "end" / "checkpoints" / "9").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be a whole number, at least 1"),
        ({"max_skipped": 0}, "max_skipped"),
        ({"batch_size": 10**30}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"keep": 0}, "keep"),
        ({"best_mode": "up"}, "highest, max, or the lowest, min"),
    ],
)
def test_loop_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        LoopConfig(**options)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sudoku_6m", {}),
        ("smdm_19m", {"head_dim": 128}),
        ("arm_42m", {}),
        ("sudoku_6m", {"num_groups": 16, "group_length": 13, "pad_id": 0}),
        ("sudoku_6m", {"num_groups": 4, "group_length": 13, "causal": True}),
    ],
)
def test_forward_flops_are_those_that_xla_counts_in_products(name, change):
    config = dataclasses.replace(presets.get(name), max_length=256, dropout=0.0, num_layers=2)
    config = tiny.grouped(config, **change) if "num_groups" in change else dataclasses.replace(config, **change)
    params = kinds.param_shapes(config)
    tokens = jax.ShapeDtypeStruct((1, 256), jnp.int32)
    counted = jax.jit(kinds.make_denoiser(config)).lower(params, tokens).compile().cost_analysis()["flops"]
    flops = config.forward_flops(256, num_logits=256)
    if config.causal:  # XLA multiplies what the mask then hides
        flops += 2 * config.num_layers * config.num_vectors(256) ** 2 * config.width
    assert flops == pytest.approx(counted, rel=0.05)
    assert flops < counted, "XLA counts norms and activations too"
