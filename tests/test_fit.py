"""`fit` from a user's own program: networks, optimizers and rules that are not ours, and one run in one folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from commands import ENV
from jax.sharding import PartitionSpec

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.sharding import make_mesh, shardings, without_rule
from mdm_jax.training.checkpoint import Checkpointer, restore_params, trained_seconds
from mdm_jax.training.config import read_config
from mdm_jax.training.digest import digest
from mdm_jax.training.lock import locked
from mdm_jax.training.metrics import read_metrics
from mdm_jax.training.state import OptimizerConfig


def plain(params, tokens):
    """A network that knows of no dropout, and of none of our names."""
    return params["table"][tokens].mean(axis=1, keepdims=True) @ params["mix"] + 0 * params["table"][tokens]


def init_plain(key):
    return {"table": 0.1 * jax.random.normal(key, (8, 8)), "mix": jnp.eye(8)}


def sgd(rate):
    return optax.sgd(rate, momentum=0.9)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of three steps, which no test changes, and its last state."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, tiny.train(folder, steps=3)


@pytest.fixture
def run(finished, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "run"), finished[1]


def test_folder_of_a_run_given_as_text_loads_without_another_word(finished):
    folder, state = finished
    model = mdm_jax.load(str(folder))
    assert model.config == tiny.CONFIG
    jax.tree.map(np.testing.assert_array_equal, model.params, state.ema)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 4}, "optimizer: num_steps 3 -> 4"),
        ({"ema": 0.5}, "optimizer: ema_decay 0.9 -> 0.5"),
        ({"loop": {"batch_size": 4}}, "batch_size: 8 -> 4"),
        ({"config": tiny.CONFIG.__class__(**tiny.CONFIG.to_json() | {"width": 32})}, "model: width 16 -> 32"),
        ({"apply": plain, "init_params": init_plain}, "model: "),
    ],
)
def test_folder_of_another_run_is_refused(finished, change, words):
    with pytest.raises(InputError, match=f"holds a run with another config .{words}"):
        tiny.train(str(finished[0]), **{"steps": 3} | change)


def test_plain_denoiser_with_an_optimizer_of_its_own_trains_and_its_parameters_are_read_back(tmp_path):
    told = []
    optimizer = OptimizerConfig(num_steps=40, learning_rate=1.0, ema_decay=0.0, transformation=sgd)
    network = {"apply": plain, "init_params": init_plain, "optimizer": optimizer}
    state = tiny.train(tmp_path, steps=40, on_metrics=lambda *entry: told.append(entry), **network)
    lines = read_metrics(tmp_path)
    assert lines[-1]["loss_per_token"] < 0.5 * lines[0]["loss_per_token"]
    assert [{"step": step, **values} for step, values in told] == lines
    assert read_config(tmp_path)["optimizer"]["transformation"] == f"{__name__}.sgd"
    with pytest.raises(InputError, match=r"the network of .* is of no registered kind.*restore_params"):
        mdm_jax.load(tmp_path)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state.params)
    jax.tree.map(np.testing.assert_array_equal, restore_params(tmp_path, like), state.params)
    with pytest.raises(InputError, match=r"transformation test_fit\.sgd -> None"):
        tiny.train(tmp_path, steps=40, **network | {"optimizer": OptimizerConfig(num_steps=40, ema_decay=0.0)})


@pytest.mark.slow
def test_optax_transformation_that_is_made_already_does_what_it_does_alone(tmp_path):
    optimizer = OptimizerConfig(num_steps=2, ema_decay=0.0, clip_norm=1e9, transformation=optax.scale(0.0))
    first = tiny.train(tmp_path, steps=2, optimizer=optimizer)
    fresh = tiny.train(tmp_path / "other", steps=2, optimizer=optimizer)
    jax.tree.map(np.testing.assert_array_equal, first.params, fresh.params)


def test_network_of_other_shapes_or_names_is_refused_and_nothing_is_touched(tmp_path, capfd):
    tiny.train(tmp_path, steps=3, apply=plain, init_params=init_plain)
    capfd.readouterr()
    larger = {"apply": plain, "init_params": lambda key: {"table": jnp.ones((9, 8)), "mix": jnp.eye(8)}}
    with pytest.raises(InputError, match=r"checkpoints/3 is of another network: table is 8 x 8 there and 9 x 8 here"):
        tiny.train(tmp_path, steps=3, **larger)
    renamed = {"apply": plain, "init_params": lambda key: {"tables": jnp.ones((8, 8)), "mix": jnp.eye(8)}}
    with pytest.raises(InputError, match=r"another network: tables is not there and 8 x 8 here"):
        tiny.train(tmp_path, steps=3, **renamed)
    assert not (tmp_path / "damaged").exists()
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert "damaged" not in printed.err + printed.out
    optimizer = OptimizerConfig(num_steps=3, warmup_steps=2, learning_rate=1e-2, ema_decay=0.9, transformation=sgd)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"optimizer": optimizer.to_json()}))
    with pytest.raises(InputError, match="checkpoints/3 is of another optimizer: "):
        tiny.train(tmp_path, steps=3, apply=plain, init_params=init_plain, optimizer=optimizer)


def test_digest_sees_numbers_that_change_places():
    x = jnp.arange(12.0).reshape(3, 4)
    assert digest(x) != digest(x.at[0].set(x[1]).at[1].set(x[0]))
    assert digest(x) != digest(x[:, ::-1])
    assert digest(x) == digest(
        jax.device_put(x, jax.sharding.NamedSharding(make_mesh(2, 4), PartitionSpec(None, "fsdp")))
    )


@pytest.mark.slow
def test_rules_split_the_parameters_of_another_network_and_without_them_a_line_says_what_is_not(tmp_path, capsys):
    mesh, network = make_mesh(2, 4), {"apply": plain, "init_params": init_plain}
    expected = tiny.train(tmp_path / "one", steps=3, **network)
    whole = tiny.train(tmp_path / "whole", steps=3, mesh=mesh, **network)
    said = [line for line in capsys.readouterr().err.splitlines() if "of the parameters" in line]
    assert len(said) == 1
    assert re.match(r"100% of the parameters, such as mix, lie whole on every device, since no rule", said[0])
    assert whole.params["table"].sharding.is_fully_replicated
    rules = [("table$", PartitionSpec(None, ("fsdp",))), ("mix$", PartitionSpec("fsdp", None))]
    split = tiny.train(tmp_path / "split", steps=3, mesh=mesh, rules=rules, **network)
    assert "of the parameters" not in capsys.readouterr().err
    assert split.params["table"].sharding.shard_shape((8, 8)) == (8, 2)
    assert split.opt_state[1][0].mu["mix"].sharding.shard_shape((8, 8)) == (2, 8)
    for name, leaf in split.params.items():
        # of three updates of numbers below 1, whose sums are in another order, at most 8 roundings: 8 * 2^-24 = 4.8e-7
        np.testing.assert_allclose(leaf, expected.params[name], rtol=0, atol=5e-7)
    with pytest.raises(InputError, match="a rule names the axis 'model'; the mesh has data, fsdp, tensor"):
        shardings(mesh, init_plain(jax.random.key(0)), [("table$", PartitionSpec("model", None))])


def test_share_without_a_rule_is_small_for_our_own_networks():
    params = jax.eval_shape(lambda: mdm_jax.load("sudoku-6m").params)
    share, name = without_rule(params)
    assert share < 0.01
    assert "norm" in name or "scale" in name


def test_metric_that_nothing_measures_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing measures the metric 'grade': give fit an `evaluate`"):
        tiny.train(tmp_path, steps=3, loop={"best_metric": "grade"})
    assert not any(tmp_path.iterdir())


def test_folder_in_use_is_refused_to_another_thread_and_free_to_the_one_that_holds_it(tmp_path):
    refused = []

    def other():
        try:
            tiny.train(tmp_path, steps=2)
        except InputError as error:
            refused.append(str(error))

    with locked(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        tiny.train(tmp_path, steps=2)
    assert len(refused) == 1
    assert "is in use by process" in refused[0]
    tiny.train(tmp_path, steps=2)


DAMAGED = ["[]", "null", '{"step": "x"}', '{"step": 2, "loss": "y"}', "[" * 100_000, "\x00\xff"]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_metrics_with_a_damaged_line_are_read_without_it(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("\n".join(['{"step": 1, "loss": 2.5}', line, '{"step": 2, "loss": null}', ""]).encode("latin1"))
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": None}]


@pytest.mark.slow
def test_run_whose_metrics_have_damaged_lines_goes_on(tmp_path):
    with pytest.raises(tiny.CrashError):
        tiny.train(tmp_path, steps=8, stop=6)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_bytes("\n".join([*lines[:2], *DAMAGED, *lines[2:], ""]).encode("latin1"))
    assert [entry["step"] for entry in read_metrics(tmp_path)] == list(range(1, len(lines) + 1))
    tiny.train(tmp_path, steps=8)
    assert [entry["step"] for entry in read_metrics(tmp_path)] == list(range(1, 9))


def test_folder_that_is_named_by_no_number_is_no_checkpoint(run):
    folder, _ = run
    for name in ("²", "٣", "4x"):
        (folder / "checkpoints" / name).mkdir()
    tiny.train(folder, steps=3)
    assert mdm_jax.load(folder).config == tiny.CONFIG


@pytest.mark.slow
def test_pipe_or_device_in_a_checkpoint_is_damage_and_nothing_waits_for_it(run):
    folder, _ = run
    files = [path for path in (folder / "checkpoints" / "3").rglob("*") if path.is_file()]
    assert files
    program = "import sys, mdm_jax\ntry:\n    mdm_jax.load(sys.argv[1])\nexcept mdm_jax.InputError as e:\n    print(e)"
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        files[0].unlink()
        make(files[0])
        done = subprocess.run(  # a thread that waits would hold up the end of the process
            [sys.executable, "-c", program, str(folder)],
            env=ENV,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert f"{files[0].name} in it is no regular file" in done.stdout, done


@pytest.mark.slow
def test_seconds_of_all_calls_add_up(tmp_path):
    assert trained_seconds(tmp_path) == 0
    with pytest.raises(tiny.CrashError):
        tiny.train(tmp_path, steps=10, stop=5)
    first = trained_seconds(tmp_path)
    assert first > 0
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.seconds == 0
    tiny.train(tmp_path, steps=10)
    assert trained_seconds(tmp_path) > first


@pytest.mark.slow
def test_what_happens_is_said_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mdm_jax.progress.SECONDS", 0.0)
    with pytest.raises(tiny.CrashError):
        tiny.train(tmp_path, steps=10, stop=6, evaluate=lambda params: {"grade": 0.25}, loop={"evaluate_every": 4})
    tiny.train(tmp_path, steps=10, evaluate=lambda params: {"grade": 0.5}, loop={"evaluate_every": 4})
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert [line for line in lines if line.startswith(("step", "goes"))] == [
        "step 4: grade 0.25",
        "goes on from step 5 of 10",
        "step 8: grade 0.5",
        "step 10: grade 0.5",
    ]
    bars = [line for line in lines if "/10" in line]
    assert len(bars) >= 10
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+% \d+/10 \[", line) for line in bars), bars


def test_muon_leaves_embeddings_and_the_head_to_adamw_with_its_decay():
    config = OptimizerConfig("muon", num_steps=10, warmup_steps=0, learning_rate=1.0, weight_decay=0.5)
    params = {"embedding": jnp.ones((3, 2)), "head/kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)}
    optimizer = config.make()
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(still, optimizer.init(params), params)
    np.testing.assert_allclose(updates["embedding"], -0.5)
    np.testing.assert_allclose(updates["head/kernel"], -0.5)
    np.testing.assert_allclose(updates["scale"], 0.0)
