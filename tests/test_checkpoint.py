"""Checkpoints: whole, damaged, of other versions and other meshes; and what `load` makes of them."""

import dataclasses
import functools
import json
import resource
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import mdm_jax
from mdm_jax.draws import Skewed
from mdm_jax.errors import InputError
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import make_mesh
from mdm_jax.training.aligned import Aligned
from mdm_jax.training.checkpoint import Checkpointer
from mdm_jax.training.config import read_config, write_config
from mdm_jax.training.digest import digest
from mdm_jax.training.held_out import held_out_loss
from mdm_jax.training.metrics import read_metrics
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.own_answers import Filled
from mdm_jax.training.state import OptimizerConfig, abstract_state


@pytest.mark.slow
def test_checkpoint_flipped_bit_is_caught_and_the_one_before_is_used(tmp_path, finished, capsys):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    damage(folder / "checkpoints" / "10" / "params")
    resumed = tiny.train(folder, steps=10)
    assert int(resumed.step) == 10
    assert "checkpoint 10 is damaged and was passed over" in capsys.readouterr().err


def damage(folder):
    """Flips one bit in the middle of every data file."""
    for path in (p for p in folder.rglob("*") if p.is_file() and p.parent.name == "d"):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(bytes(raw))


@pytest.mark.slow
def test_load_passes_over_a_damaged_checkpoint_and_names_it_if_it_was_asked_for(tmp_path, finished):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    good = mdm_jax.load(folder / "checkpoints" / "5").params
    damage(folder / "checkpoints" / "10" / "ema")
    chex.assert_trees_all_equal(mdm_jax.load(folder).params, good)
    with pytest.raises(InputError, match="step 10"):
        mdm_jax.load(folder / "checkpoints" / "10")


@pytest.mark.slow
def test_load_gives_the_average_where_the_run_kept_one_and_the_parameters_where_not(tmp_path):
    for name, ema in (("with", 0.9), ("without", 0.0)):
        write_config(tmp_path / name, {"model": tiny.CONFIG.to_json()})
        state = tiny.train(tmp_path / name, steps=4, ema=ema)
        chex.assert_trees_all_equal(mdm_jax.load(tmp_path / name).params, state.ema if ema else state.params)


@pytest.mark.slow
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
    with pytest.raises(InputError, match=r"holds no config.json; give a run's folder, or a Hugging Face folder"):
        mdm_jax.load(tmp_path)
    write_config(tmp_path, {"model": tiny.CONFIG.to_json()})
    with pytest.raises(InputError, match="holds no checkpoint"):
        mdm_jax.load(tmp_path)
    for text in ('{"format": 1}', '{"format": "x", "model": {}}', '{"format": 1, "model": 3}', "[]", "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match="cannot be read as a run's config"):
            mdm_jax.load(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(InputError, match="cannot be read as a run's config, and has no model_type as a Hugging Face"):
        mdm_jax.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for use in (read_config, lambda folder: write_config(folder, {"model": tiny.CONFIG.to_json()})):
        with pytest.raises(InputError, match="is of a Hugging Face model and not of a run; give another folder"):
            use(tmp_path)


def test_config_of_another_run_or_a_newer_version_is_named(tmp_path):
    write_config(tmp_path, {"model": {"width": 3}, "batch_size": 4})
    write_config(tmp_path, {"model": {"width": 3}, "batch_size": 4})
    with pytest.raises(InputError, match="width 3 -> 5"):
        write_config(tmp_path, {"model": {"width": 5}, "batch_size": 4})
    assert read_config(tmp_path)["model"] == {"kind": "transformer", "width": 3}
    (tmp_path / "config.json").write_text(json.dumps({"format": 99, "model": {}}))
    with pytest.raises(InputError, match="format 99"):
        read_config(tmp_path)


@pytest.mark.slow
def test_checkpoint_of_an_older_step_is_refused(tmp_path):
    state = tiny.train(tmp_path, steps=10)
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(RuntimeError, match="newest checkpoint is of step 10"):
        checkpointer.save(state, {})


def test_digest_shows_any_single_flipped_bit():
    tree = {"a": jnp.arange(6, dtype=jnp.bfloat16), "k": jax.random.key(1), "b": jnp.array([True, False])}
    assert digest(tree) == digest(jax.tree.map(lambda x: x, tree))
    flipped = jax.lax.bitcast_convert_type(tree["a"], jnp.uint16).at[3].set(1)
    assert digest(tree) != digest({**tree, "a": jax.lax.bitcast_convert_type(flipped, jnp.bfloat16)})
    assert digest(tree) != digest({**tree, "k": jax.random.key(2)})
    assert digest(tree) != digest({**tree, "b": jnp.array([True, True])})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 10 steps with checkpoints at 5 and 10, and its last state."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    write_config(folder, {"model": tiny.CONFIG.to_json()})
    state = tiny.train(folder, steps=10)
    return folder, digest(state)


def cut(path, keep=None):
    """Keeps the first bytes of a file, half of it unless told."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if keep is None else keep])


DAMAGES = {
    "params metadata cut": lambda step: cut(step / "params" / "_METADATA"),
    "optimizer metadata cut": lambda step: cut(step / "optimizer" / "_METADATA"),
    "manifest cut": lambda step: cut(step / "optimizer" / "manifest.ocdbt"),
    "manifest gone": lambda step: (step / "ema" / "manifest.ocdbt").unlink(),
    # not half: a data file may end in tree nodes that merging the processes' trees has left unused
    "data cut": lambda step: [cut(path, 16) for path in (step / "optimizer" / "ocdbt.process_0" / "d").iterdir()],
    "data gone": lambda step: [path.unlink() for path in (step / "params" / "ocdbt.process_0" / "d").iterdir()],
    "extra cut": lambda step: cut(step / "extra" / "metadata"),
    "extra gone": lambda step: (step / "extra" / "metadata").unlink(),
    "score cut": lambda step: cut(step / "metrics" / "metrics"),
    "score gone": lambda step: (step / "metrics" / "metrics").unlink(),
    "item gone": lambda step: shutil.rmtree(step / "optimizer"),
    "all gone": lambda step: [shutil.rmtree(step), step.mkdir()],
    "position changed": lambda step: (step / "extra" / "metadata").write_text(
        (step / "extra" / "metadata").read_text().replace('"next_index": 10', '"next_index": 11')
    ),
}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", DAMAGES)
def test_checkpoint_damaged_in_any_way_is_passed_over_and_the_run_ends_the_same(tmp_path, capsys, finished, name):
    folder, expected = finished
    shutil.copytree(folder, tmp_path / "run")
    DAMAGES[name](tmp_path / "run" / "checkpoints" / "10")
    state = tiny.train(tmp_path / "run", steps=10)
    assert digest(state) == expected
    said = [line for line in capsys.readouterr().err.splitlines() if "checkpoint" in line]
    assert len(said) == 1, f"one line for one damage: {said}"
    assert said[0].startswith("checkpoint 10 is damaged and was passed over: ")
    assert (tmp_path / "run" / "damaged" / "10").is_dir(), "nothing is thrown away"


def test_checkpoint_that_was_damaged_is_saved_anew(tmp_path, capsys, finished):
    folder, expected = finished
    shutil.copytree(folder, tmp_path / "run")
    DAMAGES["data gone"](tmp_path / "run" / "checkpoints" / "10")
    for _ in range(2):
        assert digest(tiny.train(tmp_path / "run", steps=10)) == expected
    assert capsys.readouterr().err.count("is damaged") == 1


@pytest.mark.parametrize("name", ["score cut", "manifest gone", "extra gone"])
def test_load_passes_over_a_checkpoint_that_is_damaged_in_another_way_too(tmp_path, finished, name):
    shutil.copytree(finished[0], tmp_path / "run")
    DAMAGES[name](tmp_path / "run" / "checkpoints" / "10")
    good = "10" if name == "score cut" else "5"  # a score says nothing of the parameters
    expected = mdm_jax.load(finished[0] / "checkpoints" / good).params
    chex.assert_trees_all_equal(mdm_jax.load(tmp_path / "run").params, expected)


@pytest.mark.parametrize("name", ["score cut", "params metadata cut"])
def test_checkpoints_all_damaged_stop_the_run_and_stay_where_they_are(tmp_path, finished, name):
    shutil.copytree(finished[0], tmp_path / "run")
    for step in (tmp_path / "run" / "checkpoints").iterdir():
        DAMAGES[name](step)
    with pytest.raises(InputError, match=r"none of the checkpoints \[\d+, \d+\] can be read"):
        tiny.train(tmp_path / "run", steps=10)
    assert {step.name for step in (tmp_path / "run" / "checkpoints").iterdir()} == {"5", "10"}


def test_checkpoint_from_a_newer_version_is_named_and_kept(tmp_path, finished):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "10" / "extra" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    for use in (lambda: tiny.train(tmp_path / "run", steps=10), lambda: mdm_jax.load(tmp_path / "run")):
        with pytest.raises(InputError, match=r"checkpoints/10 has format 99, this version reads up to \d; update"):
            use()
    assert path.exists()


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory):
    """The folder of a run on eight devices that was broken off after 5 of 8 steps, and its state on one."""
    folder = tmp_path_factory.mktemp("broken_off")
    with pytest.raises(tiny.CrashError):
        tiny.train(folder, steps=8, stop=5, mesh=make_mesh(2, 2, 2))
    return folder, tiny.final_state(folder)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 2, 4)])
def test_checkpoint_of_eight_devices_restores_onto_any_other_mesh(tmp_path, broken_off, sizes):
    tmp_path, saved = shutil.copytree(broken_off[0], tmp_path / "run"), broken_off[1]
    mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    with Checkpointer(tmp_path) as checkpointer:
        like = abstract_state(mesh, lambda key: init_params(tiny.CONFIG, key), OptimizerConfig())
        restored, _ = checkpointer.restore(like, print)
    assert {leaf.sharding.mesh.shape_tuple for leaf in jax.tree.leaves(restored)} == {mesh.shape_tuple}
    chex.assert_trees_all_equal(jax.device_get(restored.params), jax.device_get(saved.params))
    chex.assert_trees_all_equal(jax.device_get(restored.opt_state), jax.device_get(saved.opt_state))
    tiny.train(tmp_path, steps=8, mesh=mesh)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.slow
def test_load_of_a_run_on_eight_devices_gives_a_model_on_one(tmp_path):
    write_config(tmp_path, {"model": tiny.CONFIG.to_json()})
    tiny.train(tmp_path, steps=8, mesh=make_mesh(2, 2, 2))
    config, params, denoiser = mdm_jax.load(tmp_path)
    assert config == tiny.CONFIG
    assert {leaf.sharding.device_set == {jax.devices()[0]} for leaf in jax.tree.leaves(params)} == {True}
    assert jax.eval_shape(denoiser, params, jnp.zeros((1, 6), jnp.int32)).shape == (1, 6, 8)


def graded(values):
    """An evaluation that gives the next of `values`, for the steps 2, 4, 6, ..."""
    left = iter(values)
    return lambda params: {"grade": next(left), "other": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", [0.1, 0.9, 0.3, 0.2, 0.8, 0.7], 4),
        ("min", [0.5, 0.9, 0.2, 0.3, 0.8, 0.7], 6),
        ("max", [-0.5, float("nan"), -0.7, -0.9, -0.8, -0.6], 2),
    ],
)
def test_best_checkpoint_by_a_named_metric_stays_beside_the_newest(tmp_path, mode, values, best):
    write_config(tmp_path, {"model": tiny.CONFIG.to_json()})
    loop = {"checkpoint_every": 5, "evaluate_every": 2, "keep": 2, "best_metric": "grade", "best_mode": mode}
    tiny.train(tmp_path, steps=12, evaluate=graded(values), loop=loop)
    steps = {int(step.name) for step in (tmp_path / "checkpoints").iterdir()}
    assert steps == {best, 10, 12}
    chex.assert_trees_all_equal(
        mdm_jax.load(tmp_path / "checkpoints" / "best").params,
        mdm_jax.load(tmp_path / "checkpoints" / str(best)).params,
    )
    newest = mdm_jax.load(tmp_path / "checkpoints" / "12").params
    chex.assert_trees_all_equal(mdm_jax.load(tmp_path).params, newest)


@pytest.mark.slow
def test_best_checkpoint_is_remembered_when_the_run_goes_on(tmp_path):
    loop = {"checkpoint_every": 3, "evaluate_every": 2, "keep": 1, "best_metric": "grade"}
    with pytest.raises(tiny.CrashError):
        tiny.train(tmp_path, steps=10, stop=7, evaluate=graded([0.1, 0.9, 0.2]), loop=loop)
    tiny.train(tmp_path, steps=10, evaluate=graded([0.5, 0.4]), loop=loop)
    assert {step.name for step in (tmp_path / "checkpoints").iterdir()} == {"4", "10"}


@pytest.mark.slow
def test_best_checkpoint_that_is_damaged_makes_room_for_the_next_best(tmp_path):
    loop = {"checkpoint_every": 2, "evaluate_every": 2, "keep": 1, "best_metric": "grade"}
    with pytest.raises(tiny.CrashError):
        tiny.train(tmp_path, steps=10, stop=4, evaluate=graded([0.1, 0.9]), loop=loop | {"keep": 2})
    cut(tmp_path / "checkpoints" / "4" / "optimizer" / "manifest.ocdbt")
    tiny.train(tmp_path, steps=10, evaluate=graded([0.9, 0.5, 0.4, 0.3]), loop=loop)
    assert {step.name for step in (tmp_path / "checkpoints").iterdir()} == {"4", "10"}


@pytest.mark.slow
def test_best_of_one_metric_does_not_count_for_another(tmp_path):
    write_config(tmp_path, {"model": tiny.CONFIG.to_json()})
    loop = {"checkpoint_every": 100, "evaluate_every": 2, "keep": 1, "best_metric": "grade"}
    with pytest.raises(tiny.CrashError):
        tiny.train(tmp_path, steps=8, stop=3, evaluate=graded([0.9]), loop=loop)
    tiny.train(tmp_path, steps=8, evaluate=graded([0.5, 0.3, 0.4]), loop=loop | {"best_mode": "min"})
    assert {step.name for step in (tmp_path / "checkpoints").iterdir()} == {"6", "8"}
    best, sixth = (mdm_jax.load(tmp_path / "checkpoints" / name).params for name in ("best", "6"))
    chex.assert_trees_all_equal(best, sixth)


@pytest.mark.slow
def test_best_of_a_metric_that_the_evaluation_does_not_give_is_named(tmp_path):
    with pytest.raises(InputError, match="gives no 'accuracy'; choose one of grade, other"):
        tiny.train(tmp_path, steps=4, evaluate=graded([0.5]), loop={"evaluate_every": 2, "best_metric": "accuracy"})


def test_load_of_the_best_where_no_metric_was_named_says_so(tmp_path, finished):
    with pytest.raises(InputError, match="no checkpoint with a score"):
        mdm_jax.load(finished[0] / "checkpoints" / "best")


@pytest.mark.slow
def test_held_out_loss_is_that_of_the_documented_objective_and_falls_with_training(tmp_path):
    mesh, denoiser, examples = make_mesh(2, 2, 2), make_denoiser(tiny.CONFIG), tiny.examples()
    evaluate = held_out_loss(denoiser, masked_loss(tiny.MASK), examples, mesh, batch_size=8)
    params = init_params(tiny.CONFIG, jax.random.key(0))
    assert evaluate(params) == evaluate(params)
    padded = {name: np.concatenate([x, np.full((1, 6), name == "is_prompt", x.dtype)]) for name, x in examples.items()}
    key = jax.random.fold_in(jax.random.key(0), 0)
    objective = functools.partial(mdm_jax.subset_loss, denoiser, mask_id=tiny.MASK)
    nll = jax.jit(objective)(params, key, padded["tokens"], is_prompt=padded["is_prompt"])
    assert evaluate(params) == pytest.approx(float(nll.sum()) / (7 * 5), rel=1e-5)
    state = tiny.train(tmp_path, steps=40, mesh=mesh, loop={"checkpoint_every": 100})
    assert evaluate(state.params) < 0.5 * evaluate(params)


def test_equal_losses_of_equal_networks_share_a_compilation_and_others_do_not():
    traces = []

    def denoiser(params, tokens):
        traces.append(tokens)
        return jnp.broadcast_to(params, (*tokens.shape, 8))

    def traced(mask_id, draw):
        before = len(traces)
        loss = masked_loss(mask_id, draw)
        held_out_loss(denoiser, loss, tiny.examples(), tiny.one_device(), batch_size=8)(jnp.zeros(8))
        return len(traces) > before

    for draw in (Skewed(2.0), Filled()):
        assert (traced(tiny.MASK, draw), traced(tiny.MASK, dataclasses.replace(draw))) == (True, False)
    assert (traced(tiny.MASK, Skewed(3.0)), traced(8, Skewed(2.0))) == (True, True)
    assert masked_loss(0, Aligned(3)) == masked_loss(0, Aligned(3)) != masked_loss(0, Aligned(4))


@pytest.mark.slow
def test_held_out_loss_does_not_depend_on_a_batch_larger_than_the_examples():
    # A batch filled up with padding would give the examples a part of the numbers of masks only.
    mesh, denoiser = make_mesh(2, 2, 2), make_denoiser(tiny.CONFIG)
    params = init_params(tiny.CONFIG, jax.random.key(0))
    losses = {
        size: held_out_loss(denoiser, masked_loss(tiny.MASK), tiny.examples(), mesh, batch_size=size)(params)
        for size in (8, 16, 1024)
    }
    assert len(set(losses.values())) == 1, losses


@pytest.mark.slow
def test_disk_that_is_full_stops_the_run_in_one_line_and_the_last_checkpoint_is_good(tmp_path):
    """A limit on the size of files stands for the disk: writing fails in the same place."""
    folder = tmp_path / "run"
    tiny.finish(tiny.run(tmp_path / "whole", "--steps", "20", "--checkpoint-every", "10"))
    first = tiny.run(folder, "--steps", "20", "--checkpoint-every", "10", "--delay", "0.05")
    while not (folder / "checkpoints" / "10").exists():
        assert first.poll() is None, first.stderr.read()
    resource.prlimit(first.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    said = tiny.finish(first, code=1)
    assert len(said) == 1, said
    assert said[0].startswith("error: a checkpoint could not be written to ")
    assert "; checkpoint 10 is good: make room" in said[0]
    tiny.finish(tiny.run(folder, "--steps", "20", "--checkpoint-every", "10"))
    chex.assert_trees_all_equal(tiny.final_state(folder), tiny.final_state(tmp_path / "whole"))
