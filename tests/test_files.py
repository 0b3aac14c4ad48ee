"""Files that somebody names: what is no local, regular file of bounded size is one line, soon."""

import json
import os
import pathlib
import re
import socket

import pytest
import tiny

import mdm_jax
from mdm_jax import InputError, files, loading
from mdm_jax.data import builders
from mdm_jax.training.config import read_config, write_config

CONFIG = {"format": 2, "model": tiny.CONFIG.to_json(), "task": {"name": "digits"}, "batch_size": 8}


def message(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) <= 1000
    return text


@pytest.mark.parametrize("place", ["gs://bucket/run", "gs:/bucket/run", "s3://a", "https://b/c.csv", "hf://a/b"])
@pytest.mark.parametrize("read", [mdm_jax.load, files.regular_file, files.make_folder, loading.run_folder])
def test_place_outside_the_file_system_is_refused_with_what_to_mount(tmp_path, monkeypatch, place, read):
    monkeypatch.chdir(tmp_path)
    given = re.sub("^gs:/(?!/)", "gs://", place)
    for path in (place, pathlib.Path(place)):
        said = message(read, path)
        assert said.startswith(f"{given} is not a path in the file system")
        assert "gcsfuse" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["a:b", "run:1/x", "x/gs:/y", "./gs:/y", "c:/x", "weights"])
def test_local_path_with_a_colon_is_a_path(path):
    assert str(files.local_path(path)) == path.removeprefix("./")


@pytest.mark.parametrize("path", [None, 3, b"a", ["a"], float("nan")])
def test_path_of_another_type_is_refused(path):
    assert "a path is wanted" in message(files.local_path, path)
    assert "a path is wanted" in message(mdm_jax.load, path)


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a\0b", "", "x/" * 3000, "\udc80", "~", "best", "checkpoints/best", "\n\x1b[2J"]
)
def test_folder_that_is_none_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for read in (mdm_jax.load, loading.run_folder, lambda path: loading.export(path, "out"), read_split):
        if name or read is not loading.run_folder:  # that is the folder which one is in
            message(read, name)
    assert not (tmp_path / "out").exists()


def read_split(path):
    return builders.read_split(path, "train")


def special_files(folder):
    """What stands in the place of a file, by name."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    return [*(folder / name for name in ("pipe", "folder", "loop", "socket", "none", "a\0b", "n" * 5000)), "/dev/zero"]


@pytest.mark.parametrize("read", [files.read_bytes, lambda path: files.read_json(path, "JSON")])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path, read):
    for path in special_files(tmp_path):
        assert str(path)[:20].replace("\0", "\\x00") in message(read, path)


def test_file_larger_than_it_may_be_is_not_read_whole(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert "more than 1,000 bytes" in message(lambda: files.read_bytes(path, most=1000))
    assert "more than" in message(files.read_json, path, "JSON")


def test_write_whole_leaves_what_was_there_when_it_fails(tmp_path):
    (tmp_path / "results.json").mkdir()
    assert "results.json cannot be written" in message(files.write_whole, tmp_path / "results.json", "text")
    files.write_whole(tmp_path / "a", "older")
    files.write_whole(tmp_path / "a", b"newer")
    assert (tmp_path / "a").read_text() == "newer"


def changed(*path, to):
    """The config with another value at a path."""
    config = json.loads(json.dumps(CONFIG))
    inner = config
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return json.dumps(config)


NO_CONFIG = {
    "empty": "",
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "a text": '"x"',
    "half": json.dumps(CONFIG)[:80],
    "two": json.dumps(CONFIG) * 2,
    "not UTF-8": b"\xff\xfe" + json.dumps(CONFIG).encode(),
    "binary": bytes(range(256)),
    "digits": "9" * 5000,
    "digits within": changed("model", "width", to=0).replace(": 0", ": " + "9" * 5000),
    "brackets": "[" * 100_000,
    "closed brackets": "[" * 900 + "]" * 900,
    "objects": '{"a":' * 100_000,
    "deep task": changed("task", to=json.loads("[" * 60 + "]" * 60)),
    "NaN": changed("model", "dropout", to=float("nan")),
    "infinity": changed("model", "norm_epsilon", to=float("inf")),
    "no format": json.dumps({"model": CONFIG["model"]}),
    "no model": json.dumps({"format": 2}),
    "text format": changed("format", to="2"),
    "null format": changed("format", to=None),
    "model list": changed("model", to=[]),
    "model null": changed("model", to=None),
    "task list": changed("task", to=[1]),
    "task text": changed("task", to="sudoku"),
    "optimizer null": changed("optimizer", to=None),
    "newer": changed("format", to=3),
    "older": changed("format", to=-(10**4000)),
}


@pytest.mark.parametrize("content", NO_CONFIG.values(), ids=NO_CONFIG)
def test_config_json_that_is_none_is_one_line(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(path) in message(read_config, tmp_path)
    assert str(path) in message(write_config, tmp_path, CONFIG)
    assert str(path) in message(mdm_jax.load, tmp_path)


MODEL = {
    "vocab_size": [0, -1, 2**31, 10**4000, 1.5, "8", None, [8], {}, True, 2**31 - 1],
    "num_extra_tokens": [-1, 2**31 - 4, None],
    "max_length": [0, 2**31, 10**18, "6", 1 << 24],
    "num_layers": [0, 10**6, 1000, None, "1"],
    "num_heads": [0, 3, 16.0, "2", 2**31],
    "width": [0, 2**31, 2**30, None, "16"],
    "mlp_width": [0, 2**31 - 1, 1e308],
    "kind": ["mlp", "grouped_transformer", None, 3, ["transformer"], "os:system"],
    "num_groups": [-1, 2**31, 10, 5],
    "num_kv_heads": [0, 3, "x", 1],
    "head_dim": [0, 4, "x", 2.0],
    "pad_id": [-1, 8, "0", 1.0, False],
    "dropout": [1, -0.1, "0", None, 10**400],
    "norm_epsilon": [0, 1e39, -1, "x"],
    "rope_theta": [0, 1e39, None],
    "init_std": [0, -1, [], 1e39],
    "norm": ["batch", None, 3, []],
    "positions": ["none", {}],
    "mlp": ["relu", 1],
    "dtype": ["int8", "float64", None, ["float32"]],
    "param_dtype": ["int8", 32],
    "causal": [1, "true", None],
    "use_bias": [0, True],
    "qk_norm": [0, True],
    "tie_head": ["no", True],
    "shift_logits": [None, 2],
    "remat": [1, "x"],
    "depth": [3],
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run's folder and its export, whose config.json tests change."""
    run, weights = (tmp_path_factory.mktemp("runs") / name for name in ("run", "weights"))
    tiny.train(run, steps=6, loop={"checkpoint_every": 6})
    (run / "config.json").write_text(json.dumps(CONFIG))
    loading.export(run, weights)
    return run, weights


@pytest.mark.thinned(6)
@pytest.mark.parametrize("name", MODEL)
def test_model_that_is_none_or_not_the_weights_is_one_line_before_anything_is_made(exported, name):
    for folder in exported:
        for value in MODEL[name]:
            (folder / "config.json").write_text(changed("model", name, to=value))
            message(mdm_jax.load, folder)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        mdm_jax.load(folder)


def test_config_json_that_is_no_file_is_one_line(tmp_path):
    path = tmp_path / "config.json"
    os.mkfifo(path)
    assert "is a pipe" in message(read_config, tmp_path)
    path.unlink()
    path.mkdir()
    assert "is a folder" in message(write_config, tmp_path, CONFIG)
    path.rmdir()
    path.symlink_to("/dev/zero")
    assert "is a device" in message(mdm_jax.load, tmp_path)
    path.unlink()
    assert "holds no config.json" in message(read_config, tmp_path)
