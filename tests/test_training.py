import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import make_mesh, shardings
from mdm_jax.training.digest import digest
from mdm_jax.training.metrics import MetricsWriter, read_metrics
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.progress import Progress, Trace, peak_flops
from mdm_jax.training.state import OptimizerConfig, ema_update, init_state
from mdm_jax.training.step import make_train_step


def test_schedule_warms_up_peaks_and_decays_to_the_final_fraction():
    config = OptimizerConfig(learning_rate=0.5, num_steps=101, warmup_steps=10, final_fraction=0.1)
    rate = config.schedule()
    assert float(rate(0)) == pytest.approx(0.5 / 11)
    assert float(rate(10)) == pytest.approx(0.5)
    assert float(rate(55)) == pytest.approx(0.5 * (0.1 + 0.9 * 0.5), rel=1e-5)
    assert float(rate(100)) == pytest.approx(0.05)


@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(20, 3), (4, 3), (1, 0), (10, 0), (1000, 200)])
def test_schedule_gives_the_last_update_the_final_fraction_exactly(num_steps, warmup_steps):
    config = OptimizerConfig(num_steps=num_steps, warmup_steps=warmup_steps, learning_rate=1.0, final_fraction=0.25)
    rates = [float(config.schedule()(step)) for step in range(num_steps)]
    assert rates[-1] == 0.25
    assert num_steps == warmup_steps + 1 or rates[warmup_steps] == 1.0


def test_warm_up_that_is_not_given_fits_the_run():
    assert [OptimizerConfig(num_steps=n).warmup_steps for n in (1, 9, 100, 10**6)] == [0, 0, 10, 200]


def test_ema_follows_its_recurrence_and_starts_fast():
    ema = jnp.zeros(2)
    expected = np.zeros(2)
    for step in range(1, 200):
        params = jnp.full(2, float(step))
        ema = ema_update(ema, params, jnp.asarray(step), 0.9)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    np.testing.assert_allclose(ema, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("ema_decay", "is_placed"), [(0.9, False), (0.0, False), (0.9, True)])
def test_init_state_from_given_parameters_has_them_and_nothing_else_of_theirs(ema_decay, is_placed):
    optimizer, init = OptimizerConfig(num_steps=10, ema_decay=ema_decay), functools.partial(init_params, tiny.CONFIG)
    given = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), jax.jit(init)(jax.random.key(5)))
    mesh = make_mesh(2, 2, 2)
    given = jax.device_put(given, shardings(mesh, given)) if is_placed else given
    fresh, state = init_state(mesh, init, 0, optimizer), init_state(mesh, init, 0, optimizer, given)
    for tree in (state.params, state.ema) if ema_decay else (state.params,):
        jax.tree.map(
            lambda leaf, wanted: np.testing.assert_array_equal(leaf, np.asarray(wanted, np.float32)), tree, given
        )
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == jax.tree.map(lambda leaf: leaf.sharding, fresh)
    assert (jax.random.key_data(state.key) == jax.random.key_data(fresh.key)).all()
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))


def orthogonalised(matrix):
    """Five Newton-Schulz steps of Muon: about U Vᵀ, for the matrix U S Vᵀ."""
    x = np.asarray(matrix, np.float64) / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_train_step_equals_a_plain_computation_of_the_same_update(name):
    """Against the update by hand from the gradient of the documented objective, without mesh or donation."""
    optimizer = OptimizerConfig(name, num_steps=10, warmup_steps=2, ema_decay=0.9)
    mesh, denoiser = tiny.one_device(), make_denoiser(tiny.CONFIG)
    init = functools.partial(init_params, tiny.CONFIG)
    state = init_state(mesh, init, 0, optimizer)
    batch = {name: jnp.asarray(array) for name, array in tiny.to_batch({"tokens": tiny.data()["tokens"][:8]}).items()}
    key_loss, _ = jax.random.split(jax.random.fold_in(state.key, 0))

    def objective(params):
        nll = mdm_jax.subset_loss(denoiser, params, key_loss, batch["tokens"], mask_id=0, is_prompt=batch["is_prompt"])
        return nll.sum() / (8 * 5)

    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(objective))(state.params))
    norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in jax.tree.leaves(gradient)))
    clipped = jax.tree.map(lambda g: g * np.float32(min(1, 1 / norm)), gradient)
    first = 1e-3 / 3  # the learning rate of step 0

    def updated(path, p, g):
        top = path[0].key
        if name == "muon" and top.startswith("layers") and p.ndim == 2:
            return p - first * (0.2 * math.sqrt(max(p.shape)) * orthogonalised(g) + 0.01 * p)
        return p - first * (g / (np.abs(g) + 1e-8) + (0.01 * p if p.ndim > 1 else 0))

    old = jax.tree.map(np.array, state.params)
    expected = jax.tree_util.tree_map_with_path(updated, old, clipped)
    new, metrics = make_train_step(denoiser, init, masked_loss(0), optimizer, mesh)(state, batch)
    assert float(metrics["loss_per_token"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-4)
    assert float(metrics["learning_rate"]) == pytest.approx(first)
    chex.assert_trees_all_close(new.params, expected, atol=2e-6)
    new = jax.device_get(new._replace(key=None))
    chex.assert_trees_all_close(new.ema, jax.tree.map(lambda a, b: 2 / 11 * a + 9 / 11 * b, old, new.params), atol=1e-6)
    assert int(new.step) == 1


@pytest.mark.slow
def test_training_learns_to_copy_and_its_model_then_samples_it(tmp_path):
    tiny.train(tmp_path, steps=150, loop={"checkpoint_every": 150})
    model = mdm_jax.load(tmp_path)
    assert model.config == tiny.CONFIG
    x_init = np.zeros((7, 6), np.int32)
    x_init[:, 0] = np.arange(1, 8)
    result = mdm_jax.sample(model.denoiser, model.params, jax.random.key(0), x_init, mask_id=0, temperature=0.0)
    np.testing.assert_array_equal(result.tokens, np.repeat(x_init[:, :1], 6, axis=1))


@pytest.mark.slow
def test_training_crashed_and_started_again_ends_bit_for_bit_as_if_never_stopped(tmp_path):
    dropout = dataclasses.replace(tiny.CONFIG, dropout=0.1)
    whole = tiny.train(tmp_path / "whole", steps=12, config=dropout)
    for stop in (7, 4):
        with pytest.raises(tiny.CrashError):
            tiny.train(tmp_path / "broken", steps=12, stop=stop, config=dropout)
    resumed = tiny.train(tmp_path / "broken", steps=12, config=dropout)
    assert int(resumed.step) == 12
    chex.assert_trees_all_equal(digest(whole), digest(resumed))
    chex.assert_trees_all_equal(whole.params, resumed.params)
    first, second = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "broken")
    assert first == second, "each step stands once in the metrics, with the same values"


@pytest.mark.slow
def test_training_finished_and_started_again_changes_nothing(tmp_path):
    first = tiny.train(tmp_path, steps=6)
    second = tiny.train(tmp_path, steps=6)
    chex.assert_trees_all_equal(digest(first), digest(second))


def test_metrics_resumed_drop_later_and_torn_lines_and_write_event_files(tmp_path):
    with MetricsWriter(tmp_path, resume_step=0) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": step / 2})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with MetricsWriter(tmp_path, resume_step=2) as writer:
        writer.write(3, {"loss": 9.0})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 9.0}]
    assert len(list((tmp_path / "tensorboard").iterdir())) >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be a whole number, at least 1"),
        ({"num_steps": 10**30}, "num_steps"),
        ({"learning_rate": 0.0}, "learning_rate must be a number, above 0"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"beta1": 1}, "beta1 must be a number, at least 0 and below 1; got 1"),
        ({"beta2": 1.5}, "beta2"),
        ({"weight_decay": -100}, "weight_decay"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"clip_norm": -1}, "clip_norm"),
        ({"final_fraction": 1.1}, "final_fraction"),
        ({"warmup_steps": 1000}, "the number of warm-up steps, 1000, must be below that of all steps, 1000"),
        ({"optimizer": "sgd"}, "adamw or muon; got 'sgd'"),
    ],
)
def test_optimizer_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        OptimizerConfig(**options)


@pytest.mark.slow
def test_profile_writes_a_trace_that_tensorboard_reads(tmp_path):
    tiny.train(tmp_path, steps=3, loop={"profile": True})
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"train_step" in trace.read_bytes()


def test_trace_takes_five_steps_from_the_tenth_on_and_what_there_is_of_a_short_run():
    assert list(Trace(None, start=100, total=1000).steps) == [110, 111, 112, 113, 114]
    assert list(Trace(None, start=0, total=8).steps) == [4, 5, 6, 7, 8]
    assert list(Trace(None, start=0, total=3).steps) == [2, 3]
    assert list(Trace(None, start=0, total=1).steps) == [1]


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("cpu", None),
        ("NVIDIA GeForce RTX 3090", None),
    ],
)
def test_peak_of_a_device_is_found_by_its_kind_and_unknown_ones_have_none(kind, peak):
    assert peak_flops(kind) == peak


def test_progress_shows_rates_of_training_time_alone(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = Progress(0, 10, examples=8, flops=5e9, is_shown=False)
    shown = []
    monkeypatch.setattr(progress._bar, "set_postfix_str", shown.append)
    for step in range(1, 5):
        now[0] += 60.0 if step == 1 else 0.5  # the first step compiles
        progress.advance(6)
        with progress.paused():
            now[0] += 7.0  # an evaluation
    progress.show(1.25, 0)
    monkeypatch.setattr("mdm_jax.training.progress.peak_flops", lambda kind: 1e12)
    now[0] += 2.0
    progress.advance(6)
    progress.show(0.5, 3)
    assert shown[0] == "loss 1.250 nats/token, 16 examples/s, 96 tokens/s, 0.08 TFLOP/s"
    assert shown[1] == ("loss 0.500 nats/token, 4 examples/s, 24 tokens/s, 0.02 TFLOP/s, MFU 0.2%, 3 steps skipped")
