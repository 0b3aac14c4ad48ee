import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.models.transformer import init_params, make_denoiser
from mdm_jax.training.checkpoint import Checkpointer, digest, read_config, write_config
from mdm_jax.training.metrics import MetricsWriter, read_metrics
from mdm_jax.training.state import OptimizerConfig, ema_update, init_state
from mdm_jax.training.step import make_train_step, masked_loss


def test_schedule_warms_up_peaks_and_decays_to_the_final_fraction():
    config = OptimizerConfig(learning_rate=0.5, num_steps=100, warmup_steps=10, final_fraction=0.1)
    rate = config.schedule()
    assert float(rate(0)) == pytest.approx(0.5 / 11)
    assert float(rate(10)) == pytest.approx(0.5)
    assert float(rate(55)) == pytest.approx(0.5 * (0.1 + 0.9 * 0.5), rel=1e-5)
    assert float(rate(100)) == pytest.approx(0.05)


def test_ema_follows_its_recurrence_and_starts_fast():
    ema = jnp.zeros(2)
    expected = np.zeros(2)
    for step in range(1, 200):
        params = jnp.full(2, float(step))
        ema = ema_update(ema, params, jnp.asarray(step), 0.9)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    np.testing.assert_allclose(ema, expected, rtol=1e-5)


def test_train_step_equals_a_plain_computation_of_the_same_update():
    """Against optax applied by hand to the gradient of the documented objective, without jit, mesh or donation."""
    optimizer = OptimizerConfig(num_steps=10, warmup_steps=2, ema_decay=0.9)
    mesh, denoiser = tiny.one_device(), make_denoiser(tiny.CONFIG)
    state = init_state(mesh, lambda key: init_params(tiny.CONFIG, key), 0, optimizer)
    batch = {name: jnp.asarray(array) for name, array in tiny.to_batch({"tokens": tiny.data()["tokens"][:8]}).items()}
    key_loss, _ = jax.random.split(jax.random.fold_in(state.key, 0))

    def objective(params):
        nll = mdm_jax.subset_loss(denoiser, params, key_loss, batch["tokens"], mask_id=0, is_prompt=batch["is_prompt"])
        return nll.sum() / (8 * 5)

    value, gradient = jax.value_and_grad(objective)(state.params)
    clipped = jax.tree.map(lambda g: g * jnp.minimum(1, 1 / optax.tree.norm(gradient)), gradient)
    first = 1e-3 / 3  # the learning rate of step 0
    expected = jax.tree.map(
        lambda p, g: p - first * (g / (jnp.abs(g) + 1e-8) + (0.01 * p if p.ndim > 1 else 0)), state.params, clipped
    )
    old = jax.tree.map(jnp.copy, state.params)
    new, metrics = make_train_step(denoiser, masked_loss(0), optimizer, mesh, state)(state, batch)
    assert float(metrics["loss_per_token"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["gradient_norm"]) == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
    assert float(metrics["learning_rate"]) == pytest.approx(first)
    chex.assert_trees_all_close(new.params, expected, atol=2e-6)
    chex.assert_trees_all_close(new.ema, jax.tree.map(lambda a, b: 2 / 11 * a + 9 / 11 * b, old, new.params), atol=1e-6)
    assert int(new.step) == 1


def test_training_learns_to_copy_and_its_model_then_samples_it(tmp_path):
    write_config(tmp_path, {"model": tiny.CONFIG.to_json()})
    tiny.train(tmp_path, steps=150, checkpoint_every=150)
    model = mdm_jax.load(tmp_path)
    assert model.config == tiny.CONFIG
    x_init = np.zeros((7, 6), np.int32)
    x_init[:, 0] = np.arange(1, 8)
    result = mdm_jax.sample(model.denoiser, model.params, jax.random.key(0), x_init, mask_id=0, temperature=0.0)
    np.testing.assert_array_equal(result.tokens, np.repeat(x_init[:, :1], 6, axis=1))


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


def test_training_finished_and_started_again_changes_nothing(tmp_path):
    first = tiny.train(tmp_path, steps=6)
    second = tiny.train(tmp_path, steps=6)
    chex.assert_trees_all_equal(digest(first), digest(second))


def test_checkpoint_flipped_bit_is_caught_and_the_one_before_is_used(tmp_path, capsys):
    tiny.train(tmp_path, steps=10)
    damage(tmp_path / "checkpoints" / "10" / "params")
    resumed = tiny.train(tmp_path, steps=10)
    assert int(resumed.step) == 10
    assert "checkpoint 10 is damaged and was passed over" in capsys.readouterr().out


def damage(folder):
    """Flips one bit in the middle of every data file."""
    for path in (p for p in folder.rglob("*") if p.is_file() and p.parent.name == "d"):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(bytes(raw))


def test_load_passes_over_a_damaged_checkpoint_and_names_it_if_it_was_asked_for(tmp_path):
    write_config(tmp_path, {"model": tiny.CONFIG.to_json()})
    tiny.train(tmp_path, steps=10)
    good = mdm_jax.load(tmp_path / "checkpoints" / "5").params
    damage(tmp_path / "checkpoints" / "10" / "ema")
    chex.assert_trees_all_equal(mdm_jax.load(tmp_path).params, good)
    with pytest.raises(InputError, match="step 10"):
        mdm_jax.load(tmp_path / "checkpoints" / "10")


def test_load_gives_the_average_where_the_run_kept_one_and_the_parameters_where_not(tmp_path):
    for name, ema in (("with", 0.9), ("without", 0.0)):
        write_config(tmp_path / name, {"model": tiny.CONFIG.to_json()})
        state = tiny.train(tmp_path / name, steps=4, ema=ema)
        chex.assert_trees_all_equal(mdm_jax.load(tmp_path / name).params, state.ema if ema else state.params)


def test_load_gives_low_precision_parameters_of_a_float32_average(tmp_path):
    config = dataclasses.replace(tiny.CONFIG, param_dtype="bfloat16")
    write_config(tmp_path, {"model": config.to_json()})
    state = tiny.train(tmp_path, steps=4, config=config)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.ema)} == {jnp.dtype("float32")}
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.ema)
    chex.assert_trees_all_equal(mdm_jax.load(tmp_path).params, rounded)


def test_load_of_what_is_no_run_says_so(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        mdm_jax.load(tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds no config.json"):
        mdm_jax.load(tmp_path)
    write_config(tmp_path, {"model": tiny.CONFIG.to_json()})
    with pytest.raises(InputError, match="holds no checkpoint"):
        mdm_jax.load(tmp_path)
    for text in ('{"format": 1}', '{"format": "x", "model": {}}', '{"format": 1, "model": 3}', "[]", "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match="cannot be read as a run's config"):
            mdm_jax.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a run's config"):
        mdm_jax.load(tmp_path)


def test_config_of_another_run_or_a_newer_version_is_named(tmp_path):
    write_config(tmp_path, {"model": {"width": 3}, "batch_size": 4})
    write_config(tmp_path, {"model": {"width": 3}, "batch_size": 4})
    with pytest.raises(InputError, match="width 3 -> 5"):
        write_config(tmp_path, {"model": {"width": 5}, "batch_size": 4})
    assert read_config(tmp_path)["model"] == {"width": 3}
    (tmp_path / "config.json").write_text(json.dumps({"format": 99, "model": {}}))
    with pytest.raises(InputError, match="format 99"):
        read_config(tmp_path)


def test_checkpoint_of_an_older_step_is_refused(tmp_path):
    state = tiny.train(tmp_path, steps=5)
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(RuntimeError, match="newest checkpoint is of step 5"):
        checkpointer.save(state, {})


def test_digest_shows_any_single_flipped_bit():
    tree = {"a": jnp.arange(6, dtype=jnp.bfloat16), "k": jax.random.key(1), "b": jnp.array([True, False])}
    assert digest(tree) == digest(jax.tree.map(lambda x: x, tree))
    flipped = jax.lax.bitcast_convert_type(tree["a"], jnp.uint16).at[3].set(1)
    assert digest(tree) != digest({**tree, "a": jax.lax.bitcast_convert_type(flipped, jnp.bfloat16)})
    assert digest(tree) != digest({**tree, "k": jax.random.key(2)})
    assert digest(tree) != digest({**tree, "b": jnp.array([True, True])})


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
        ({"num_steps": 0}, "number of training steps"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_optimizer_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        OptimizerConfig(**options)
