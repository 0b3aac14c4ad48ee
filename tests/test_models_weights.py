"""Weights as files: what stands in them, read back, and what is wrong with them."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tiny

import mdm_jax
from mdm_jax import InputError, loading
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.models.weights import DIGESTS, WEIGHTS, read_weights, save_weights
from mdm_jax.sharding import make_mesh, shardings
from mdm_jax.training.checkpoint import Checkpointer
from mdm_jax.training.config import read_config, write_config

TASK = {"name": "digits", "size": 6}
NUMPY = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 8, (5, 6)), jnp.int32)


def params_of(config=tiny.CONFIG, seed=0):
    return init_params(config, jax.random.key(seed))


def shapes():
    return jax.eval_shape(params_of)


def parts_of(file):
    """The header of a safetensors file and its arrays by name, as the format's description has them."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    kinds = {"F32": NUMPY["float32"], "BF16": NUMPY["bfloat16"]}
    return {
        name: np.frombuffer(data[start:][slice(*array["data_offsets"])], kinds[array["dtype"]]).reshape(array["shape"])
        for name, array in header.items()
        if name != "__metadata__"
    }


def rounded(params, dtype):
    """Float32 parameters as they are behind a file of that dtype, by NumPy."""
    return jax.tree.map(lambda x: np.asarray(x).astype(NUMPY[dtype]).astype(np.float32), params)


def assert_equal(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_save_weights_file_holds_every_parameter_under_its_path(tmp_path, dtype):
    params = params_of()
    path = save_weights(tmp_path / "new" / "folder", params, dtype=dtype)
    assert path == tmp_path / "new" / "folder" / "model.safetensors"
    found = parts_of(path)
    layer = ["attention/query", "attention/key", "attention/value", "attention/output", "mlp/up", "mlp/down"]
    names = {f"layers_0/{name}/kernel" for name in layer}
    names |= {f"{name}/scale" for name in ("final_norm", "layers_0/attention_norm", "layers_0/mlp_norm")}
    names |= {"token_embedding/embedding", "position_embedding/embedding", "head/kernel"}
    assert set(found) == names
    for name, array in found.items():
        expected = params
        for key in name.split("/"):
            expected = expected[key]
        assert array.dtype == NUMPY[dtype]
        np.testing.assert_array_equal(array, np.asarray(expected).astype(NUMPY[dtype]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_read_weights_are_those_saved_in_the_dtypes_that_are_wanted(tmp_path, dtype):
    params = params_of(dataclasses.replace(tiny.CONFIG, num_layers=12))  # layers_10 sorts before layers_2
    save_weights(tmp_path, params, dtype=dtype)
    like = jax.eval_shape(lambda: params)
    assert_equal(read_weights(tmp_path, like), rounded(params, dtype))
    low = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), like)
    assert_equal(read_weights(tmp_path, low), jax.tree.map(lambda x: np.asarray(x).astype(NUMPY["bfloat16"]), params))


def test_read_weights_that_another_program_wrote_in_another_order_and_dtype(tmp_path):
    params = rounded(params_of(), "bfloat16")
    save_weights(tmp_path, params, dtype="float32")
    header, data = {}, b""
    for i, (name, array) in enumerate(reversed(parts_of(tmp_path / WEIGHTS).items())):
        part = array.astype(NUMPY["bfloat16"] if i % 2 else array.dtype).tobytes()
        offsets = [len(data), len(data) + len(part)]
        header[name] = {"dtype": ["F32", "BF16"][i % 2], "shape": array.shape, "data_offsets": offsets}
        data += part
    text = json.dumps(header).encode()
    (tmp_path / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data)
    assert_equal(read_weights(tmp_path, shapes()), params)


def test_read_weights_file_that_is_missing_or_damaged_is_one_line(tmp_path):
    def read(words):
        with pytest.raises(InputError, match=words) as caught:
            read_weights(tmp_path, shapes())
        assert "\n" not in str(caught.value)

    read(r"model\.safetensors cannot be read: No such file")
    path = save_weights(tmp_path, params_of())
    whole = path.read_bytes()
    for length in (0, 5, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        read(r"model\.safetensors cannot be read")
    path.write_bytes(b"\xff" * 4000)
    read(r"model\.safetensors cannot be read")
    path.write_bytes(whole)
    assert_equal(read_weights(tmp_path, shapes()), rounded(params_of(), "bfloat16"))


def written(folder, header, data):
    """A file as the format's description has it."""
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data)


def header_and_data(file):
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:start]), data[start:]


def refused(folder):
    with pytest.raises(InputError) as caught:
        read_weights(folder, shapes())
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_read_weights_file_with_one_flipped_bit_is_refused_wherever_it_is(tmp_path):
    params = params_of()
    path = save_weights(tmp_path, params)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in [*rng.integers(start, len(whole), 60), *rng.integers(0, start, 60)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        message = refused(tmp_path)
        assert place < start or "is not what was written" in message


def test_read_weights_of_another_dtype_than_the_label_are_refused(tmp_path):
    header, data = header_and_data(save_weights(tmp_path, params_of()))
    header["head/kernel"]["dtype"] = "F16"
    written(tmp_path, header, data)
    assert "head/kernel is not what was written" in refused(tmp_path)
    header["head/kernel"] |= {"dtype": "BF16", "shape": [8, 16]}
    written(tmp_path, header, data)
    assert "head/kernel is (8, 16) there" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["F32", "I8", "F8_E4M3", "U64", "F4"])
@pytest.mark.parametrize("has_digests", [True, False])
def test_read_weights_whose_label_is_of_another_width_name_the_array(tmp_path, kind, has_digests):
    header, data = header_and_data(save_weights(tmp_path, params_of()))
    header["head/kernel"]["dtype"] = kind
    written(tmp_path, header if has_digests else {name: header[name] for name in header if name[0] != "_"}, data)
    assert f"head/kernel is labelled {kind}, but has 256 bytes for 128 numbers" in refused(tmp_path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_read_weights_of_another_program_that_are_not_finite_name_the_array(tmp_path, value, metadata):
    header, data = header_and_data(save_weights(tmp_path, params_of(), dtype="float32"))
    header["__metadata__"] = metadata
    header = {name: entry for name, entry in header.items() if entry is not None}
    written(tmp_path, header, data)
    assert_equal(read_weights(tmp_path, shapes()), params_of())
    place = header["layers_0/mlp/up/kernel"]["data_offsets"][0] + 40
    written(tmp_path, header, data[:place] + np.float32(value).tobytes() + data[place + 4 :])
    assert "layers_0/mlp/up/kernel is not finite throughout" in refused(tmp_path)


@pytest.mark.parametrize(("kind", "width"), [("I32", 4), ("U8", 1), ("I8", 1), ("F8_E4M3", 1), ("BOOL", 1), ("I64", 8)])
def test_read_weights_that_are_integers_or_quantised_name_the_array(tmp_path, kind, width):
    header, data = header_and_data(save_weights(tmp_path, params_of(), dtype="float32"))
    del header["__metadata__"]
    data, moved = b"", {}
    for name, entry in header.items():
        own = {"dtype": kind, "shape": entry["shape"]} if name == "head/kernel" else entry
        size = int(np.prod(entry["shape"])) * (width if name == "head/kernel" else 4)
        moved[name] = own | {"data_offsets": [len(data), len(data) + size]}
        data += bytes(size)
    written(tmp_path, moved, data)
    assert f"holds head/kernel as {kind}, not as floating-point numbers" in refused(tmp_path)


@pytest.mark.parametrize(
    "digests", ["", "[]", "{}", "null", "{" * 5000, '{"head/kernel": "1"}', '{"head/kernel": NaN}']
)
def test_read_weights_whose_digests_are_damaged_is_one_line(tmp_path, digests):
    header, data = header_and_data(save_weights(tmp_path, params_of()))
    written(tmp_path, header | {"__metadata__": {DIGESTS: digests}}, data)
    assert "is damaged" in refused(tmp_path)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo], ids=["folder", "pipe"])
def test_read_weights_where_no_file_is_ends_with_one_line(tmp_path, make):
    make(tmp_path / WEIGHTS)
    assert "give a regular file" in refused(tmp_path)


def test_save_weights_that_are_not_finite_or_too_large_for_the_dtype_are_refused(tmp_path):
    params = params_of()
    params["head"]["kernel"] = params["head"]["kernel"].at[3, 2].set(1e6)
    with pytest.raises(InputError, match="parameters in float16: head/kernel is not finite"):
        save_weights(tmp_path, params, dtype="float16")
    assert not (tmp_path / WEIGHTS).exists()
    save_weights(tmp_path, params, dtype="float32")
    assert_equal(read_weights(tmp_path, shapes()), params)


def without_head(params):
    return {name: leaf for name, leaf in params.items() if name != "head"}


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (lambda: without_head(params_of()), r"head/kernel is missing there and \(16, 8\) in the config"),
        (lambda: params_of() | {"bias": jnp.zeros(3)}, r"bias is \(3,\) there and missing in the config"),
        (
            lambda: params_of(dataclasses.replace(tiny.CONFIG, mlp_width=24)),
            r"layers_0/mlp/(up|down)/kernel is \((16, 24|24, 16)\) there and \((16, 32|32, 16)\) in the config",
        ),
        (
            lambda: params_of() | {"head": {"kernel": params_of()["head"]["kernel"].T}},
            r"head/kernel is \(8, 16\) there and \(16, 8\) in the config",
        ),
    ],
    ids=["missing", "additional", "wider", "transposed"],
)
def test_read_weights_of_another_model_name_the_array_in_one_line(tmp_path, params, words):
    save_weights(tmp_path, params())
    with pytest.raises(InputError, match=f"not of this model: {words}") as caught:
        read_weights(tmp_path, shapes())
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of a few steps, with what commands say of their task."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    tiny.train(folder, steps=6, loop={"checkpoint_every": 3}, task=TASK)
    return folder


@pytest.mark.slow
@pytest.mark.eight_devices
def test_load_onto_a_mesh_puts_each_parameter_to_its_shards(run_folder, tmp_path):
    mesh = make_mesh(2, 2, 2)
    loading.export(run_folder, tmp_path, dtype="float32")
    for folder in (run_folder, tmp_path):
        alone, split = mdm_jax.load(folder), mdm_jax.load(folder, mesh=mesh)
        assert_equal(split.params, alone.params)
        placed = jax.tree.map(lambda leaf: leaf.sharding, split.params)
        assert placed == shardings(mesh, alone.params)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_of_a_run_loads_as_the_run_with_its_parameters_rounded(run_folder, tmp_path, dtype):
    run = mdm_jax.load(run_folder)
    head = run.params["head"]["kernel"]
    assert (head != rounded(head, "bfloat16")).any(), "so that rounding shows"
    path = loading.export(run_folder, tmp_path / "export", dtype=dtype)
    assert path == tmp_path / "export" / WEIGHTS
    model = mdm_jax.load(tmp_path / "export")
    assert model.config == tiny.CONFIG
    assert model.task == run.task == TASK
    assert tuple(model) == (model.config, model.params, model.denoiser)
    expected = rounded(run.params, dtype)
    assert_equal(model.params, expected)
    assert {device for leaf in jax.tree.leaves(model.params) for device in leaf.devices()} == {jax.devices()[0]}
    logits = make_denoiser(tiny.CONFIG)(expected, TOKENS)
    np.testing.assert_array_equal(model.denoiser(model.params, TOKENS), logits)
    if dtype == "float32":
        np.testing.assert_array_equal(logits, run.denoiser(run.params, TOKENS))
    config = read_config(tmp_path / "export")
    assert (config["task"], set(config)) == (TASK, {"format", "model", "task"})


@pytest.mark.slow
def test_export_of_one_checkpoint_is_of_that_one_and_of_an_export_the_same_file(run_folder, tmp_path):
    loading.export(run_folder / "checkpoints" / "3", tmp_path / "third", dtype="float32")
    third = mdm_jax.load(tmp_path / "third")
    assert_equal(third.params, mdm_jax.load(run_folder / "checkpoints" / "3").params)
    assert (third.params["head"]["kernel"] != mdm_jax.load(run_folder).params["head"]["kernel"]).any()
    again = loading.export(tmp_path / "third", tmp_path / "again", dtype="float32")
    assert again.read_bytes() == (tmp_path / "third" / WEIGHTS).read_bytes()
    assert read_config(tmp_path / "again") == read_config(tmp_path / "third")


def test_export_into_the_folder_of_another_model_or_of_a_run_is_refused(run_folder, tmp_path):
    write_config(tmp_path, {"model": dataclasses.replace(tiny.CONFIG, width=32).to_json(), "task": TASK})
    with pytest.raises(InputError, match="width 32 -> 16"):
        loading.export(run_folder, tmp_path)
    with pytest.raises(InputError, match="batch_size"):
        loading.export(run_folder, run_folder)
    assert not (tmp_path / WEIGHTS).exists()
    assert not (run_folder / WEIGHTS).exists(), "or the run would load as its export from then on"


def test_export_that_fails_leaves_no_folder_that_looks_like_a_run(run_folder, tmp_path):
    model = mdm_jax.load(run_folder)
    large = model._replace(params=jax.tree.map(lambda leaf: leaf * 1e30, model.params))
    with pytest.raises(InputError, match="float16"):
        loading.export(large, tmp_path / "out", dtype="float16")
    assert not list((tmp_path / "out").glob("*"))


def test_load_finds_shipped_weights_by_name_unless_a_folder_has_it(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "weights")
    loading.export(run_folder, tmp_path / "weights" / "digits-3k", dtype="float32")
    loading.export(run_folder, tmp_path / "weights" / "another", dtype="float32")
    (tmp_path / "weights" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert_equal(mdm_jax.load("digits-3k").params, mdm_jax.load(run_folder).params)
    with pytest.raises(InputError, match=r"no folder digits; .* shipped weights \(another, digits-3k\)") as caught:
        mdm_jax.load("digits")
    assert "\n" not in str(caught.value)
    loading.export(run_folder / "checkpoints" / "3", tmp_path / "digits-3k", dtype="float32")
    assert_equal(mdm_jax.load("digits-3k").params, mdm_jax.load(run_folder / "checkpoints" / "3").params)
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "none")
    with pytest.raises(InputError, match=r"shipped weights \(none\)"):
        mdm_jax.load("another")


def test_load_of_a_checkpoint_whose_parameters_are_not_finite_names_the_array(tmp_path):
    state = tiny.train(tmp_path, steps=6, loop={"checkpoint_every": 3})
    state.ema["head"]["kernel"] = state.ema["head"]["kernel"].at[0, 0].set(jnp.nan)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state._replace(step=state.step + 1), {})
    with pytest.raises(InputError, match="head/kernel is not finite throughout"):
        mdm_jax.load(tmp_path)
    mdm_jax.load(tmp_path / "checkpoints" / "6")


def test_shipped_weights_carry_digests_of_all_their_arrays():
    header, _ = header_and_data(loading.SHIPPED / "sudoku-6m" / WEIGHTS)
    assert set(json.loads(header.pop("__metadata__")[DIGESTS])) == set(header)


def test_model_prints_its_size_and_its_network_but_no_weights(run_folder):
    text = repr(mdm_jax.load(str(run_folder)))
    assert text.startswith("Model(2,448 parameters")
    assert "num_layers=1" in text
    assert len(text) < 300


def test_export_takes_text_and_refuses_an_unknown_dtype(run_folder, tmp_path):
    path = loading.export(str(run_folder), str(tmp_path / "text"))
    assert path == tmp_path / "text" / WEIGHTS
    with pytest.raises(InputError, match="dtype='int8' is unknown"):
        loading.export(run_folder, tmp_path / "other", dtype="int8")
    assert not (tmp_path / "other").exists()
