"""Folders of other programs: read into shards, refused where they do not fit, and written back bit for bit."""

import dataclasses
import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hub import FAMILIES, GPT2, LLADA, LLADA_MOE, LLAMA, QWEN2, QWEN3, QWEN3_MOE, SMDM, V, random_tensors, read, write
from safetensors.numpy import save_file

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.loading import export
from mdm_jax.models.config import RopeScaling
from mdm_jax.models.pretrained.folder import read_folder, write_folder
from mdm_jax.models.pretrained.stream import Written, stored_tensors, write_tensors
from mdm_jax.sharding import make_mesh, shardings


def written(folder, name, dtype="float32", **options):
    """A family's folder; its fields and its tensors."""
    fields, shapes, _ = FAMILIES[name]
    tensors = random_tensors(shapes, dtype)
    write(folder, fields, tensors, **options)
    return fields, tensors


@pytest.mark.thinned(7)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_tensors_come_back_bit_for_bit_whatever_their_dtype_and_number_of_files(name, dtype, tmp_path):
    fields, _ = written(tmp_path / "theirs", name, dtype, parts=1 if dtype == "float32" else 3)
    fields = {**fields, "torch_dtype": dtype}
    config, params = read_folder(tmp_path / "theirs", fields)
    assert config.dtype == config.param_dtype == dtype
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {dtype}
    write_folder(tmp_path / "ours", config, params)
    assert read(tmp_path / "ours") == read(tmp_path / "theirs")
    again, _ = read_folder(tmp_path / "ours", json.loads((tmp_path / "ours" / "config.json").read_text()))
    assert again == config


def test_tensors_of_several_dtypes_keep_their_own(tmp_path):
    fields, shapes, _ = FAMILIES["llama"]
    high, low = random_tensors(shapes), random_tensors(shapes, "bfloat16")
    tensors = {name: (high if "norm" in name else low)[name] for name in shapes}
    write(tmp_path / "theirs", fields, tensors)
    config, params = read_folder(tmp_path / "theirs", {**fields, "torch_dtype": None})
    assert (config.dtype, config.param_dtype) == ("bfloat16", "bfloat16")
    assert params["final_norm"]["scale"].dtype == "float32"
    write_folder(tmp_path / "ours", config, params)
    assert read(tmp_path / "ours") == read(tmp_path / "theirs")


@pytest.mark.thinned(4)
@pytest.mark.eight_devices
@pytest.mark.parametrize("name", ["llada", "gpt2", "smdm", "llada_moe"])
def test_read_onto_a_mesh_puts_each_parameter_to_its_shards(name, tmp_path):
    fields, _ = written(tmp_path / "theirs", name)
    mesh = make_mesh(2, 2, 2)
    config, params = read_folder(tmp_path / "theirs", fields)
    _, split = read_folder(tmp_path / "theirs", fields, mesh=mesh)
    jax.tree.map(np.testing.assert_array_equal, split, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, split) == shardings(mesh, params)
    write_folder(tmp_path / "ours", config, split)
    assert read(tmp_path / "ours") == read(tmp_path / "theirs")


@pytest.mark.thinned(2)
@pytest.mark.parametrize("ways", [(1, 1, 1), pytest.param((1, 4, 2), marks=pytest.mark.eight_devices)])
def test_read_holds_less_than_twice_the_largest_tensor_in_memory(ways, tmp_path):
    wide = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 4096, "num_hidden_layers": 4}
    shapes = {"model.embed_tokens.weight": (4096, 256), "model.norm.weight": (256,), "lm_head.weight": (4096, 256)}
    for i in range(4):
        layer = {"self_attn.q_proj": (256, 256), "self_attn.k_proj": (128, 256), "self_attn.v_proj": (128, 256)}
        layer |= {"self_attn.o_proj": (256, 256), "mlp.gate_proj": (512, 256), "mlp.up_proj": (512, 256)}
        layer |= {"mlp.down_proj": (256, 512), "input_layernorm": (256,), "post_attention_layernorm": (256,)}
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    write(tmp_path, LLAMA | wide, random_tensors(shapes))
    mesh = make_mesh(*ways, devices=jax.devices()[: np.prod(ways)])
    read_folder(tmp_path, LLAMA | wide, mesh=mesh)  # compiles
    tracemalloc.start()
    try:
        read_folder(tmp_path, LLAMA | wide, mesh=mesh)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    largest = 4096 * 256 * 4
    assert largest < peak < 2 * largest


def test_write_splits_large_models_into_files_that_an_index_names(tmp_path):
    tensors = random_tensors(dict.fromkeys("abcde", (8, 4)), "bfloat16")
    entries = {name: Written(x.shape, "bfloat16", lambda x=x: x) for name, x in tensors.items()}
    write_tensors(tmp_path, entries, most=2 * 8 * 4 * 2)
    files = [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 5 * 8 * 4 * 2}
    assert index["weight_map"] == dict(zip("abcde", [files[0]] * 2 + [files[1]] * 2 + [files[2]], strict=True))
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == files
    found = stored_tensors(tmp_path)
    rows = {name: x[1:5].tobytes() for name, x in tensors.items()}
    assert {name: found[name].rows(1, 5).tobytes() for name in found} == rows
    for most in (10**9, 128):  # whatever was there, what is read is what was written last
        tensors["a"] = tensors["a"] + 1
        write_tensors(tmp_path, entries | {"a": Written((8, 4), "bfloat16", lambda: tensors["a"])}, most=most)
        assert stored_tensors(tmp_path)["a"].rows(0, 8).tobytes() == tensors["a"].tobytes()
        assert (tmp_path / "model.safetensors").exists() == (most == 10**9)


def test_gpt2_as_its_files_on_the_hub_call_it_is_the_same_model(tmp_path):
    fields, tensors = written(tmp_path / "theirs", "gpt2")
    _, expected = read_folder(tmp_path / "theirs", fields)
    hub = {name.removeprefix("transformer."): x for name, x in tensors.items()}
    hub |= {"h.0.attn.bias": np.ones((1, 1, 64, 64), np.float32)}
    write(tmp_path / "hub", fields, hub)
    _, params = read_folder(tmp_path / "hub", fields)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_head_that_is_stored_though_it_is_tied_must_be_the_embedding(tmp_path):
    fields, tensors = written(tmp_path, "smollm2")
    _, expected = read_folder(tmp_path, fields)
    head = tensors["model.embed_tokens.weight"].copy()
    write(tmp_path, fields, tensors | {"lm_head.weight": head})
    jax.tree.map(np.testing.assert_array_equal, read_folder(tmp_path, fields)[1], expected)
    head[-1, -1] += 1
    write(tmp_path, fields, tensors | {"lm_head.weight": head})
    assert "another lm_head.weight than model.embed_tokens.weight" in refused(tmp_path, fields)


def test_rope_scaling_of_both_generations_of_config_json(tmp_path):
    _, _ = written(tmp_path, "llama")
    numbers = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    old = LLAMA | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, **numbers}}
    new = {name: value for name, value in LLAMA.items() if not name.startswith("rope")}
    new["rope_parameters"] = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500.0, **numbers}
    configs = [read_folder(tmp_path, fields)[0] for fields in (old, new)]
    assert configs[0] == configs[1]
    assert configs[0].rope_scaling == RopeScaling(factor=8.0, low=1.0, high=4.0, length=16)
    linear = LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    assert read_folder(tmp_path, linear)[0].rope_scaling == RopeScaling(factor=2.0)


def refused(folder, fields):
    """The one line with which a folder is refused."""
    with pytest.raises(InputError) as caught:
        read_folder(folder, fields)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "model_type = None is not supported, only llada, Dream"),
        (LLAMA | {"model_type": "mamba"}, "model_type = 'mamba' is not supported"),
        (QWEN3 | {"model_type": "sdar"}, "model_type = 'sdar' is block-causal, which is not computed here"),
        (LLAMA | {"hidden_size": None}, "hidden_size is missing"),
        (LLAMA | {"attention_bias": True}, "attention_bias = True is not supported for llama models, only False"),
        (LLAMA | {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported for llama models, only 'silu'"),
        (LLAMA | {"head_dim": 7}, "head_dim must be even: RoPE turns pairs; got 7"),
        (QWEN3 | {"attention_bias": True}, "attention_bias = True is not supported for qwen3 models"),
        (LLADA | {"head_dim": 8}, "head_dim = 8 is not supported for llada models"),
        (LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling of type 'yarn'"),
        (LLAMA | {"rope_scaling": {"type": "linear"}}, "rope_scaling of type 'linear' with {}"),
        (LLAMA | {"rope_scaling": [1]}, "rope_scaling = [1]"),
        (LLAMA | {"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4} is not supported"),
        (LLAMA | {"num_hidden_layers": "2"}, "num_layers must be a whole number"),
        (LLAMA | {"num_key_value_heads": 3}, "num_kv_heads must be a divisor"),
        (LLAMA | {"torch_dtype": "float64"}, "dtype = 'float64' is not supported"),
        (LLAMA | {"torch_dtype": ["x"]}, "dtype = ['x'] is not supported"),
        (QWEN2 | {"use_sliding_window": True}, "use_sliding_window = True"),
        (QWEN2 | {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types = "),
        (LLADA | {"block_type": "sequential"}, "block_type = 'sequential'"),
        ({name: value for name, value in LLADA.items() if name != "block_type"}, "block_type = 'sequential'"),
        (LLADA | {"alibi": True}, "alibi = True"),
        (QWEN3_MOE | {"mlp_only_layers": [1]}, "mlp_only_layers = [1] is not supported"),
        (QWEN3_MOE | {"num_local_experts": 4}, "num_experts and num_local_experts are [5, 4]"),
        (QWEN3_MOE | {"num_experts": None}, "num_experts and num_local_experts are [None, None]"),
        (LLADA_MOE | {"moe_layer_freq": [0, 1]}, "moe_layer_freq = [0, 1] is not supported"),
        (LLADA_MOE | {"moe_layer_freq": 2}, "moe_layer_freq = 2 is not supported"),
        (LLADA_MOE | {"shared_expert_intermediate_size": 8}, "shared_expert_intermediate_size = 8 is not supported"),
        (LLADA_MOE | {"num_experts_per_tok": 6}, "num_experts_per_token must be at most num_experts = 5; got 6"),
        (LLADA | {"d_model": None}, "d_model is missing"),
        (LLADA | {"d_model": "16"}, "d_model must be a whole number"),
        (GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        (GPT2 | {"embd_pdrop": 0.2}, "resid_pdrop and embd_pdrop are [0.1, 0.2]"),
        (SMDM | {"parallel_residual": True}, "parallel_residual = True"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_config_json_that_says_what_is_not_supported_is_refused_by_name(fields, words, tmp_path):
    message = refused(tmp_path, fields)
    assert words in message
    assert message.startswith(f"{tmp_path}/config.json: ")


def without(tensors, name):
    return {other: x for other, x in tensors.items() if other != name}


EMBEDDING, NAME = "model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: without(t, NAME), f"{NAME} is missing there and (24, 16) by the config"),
        (lambda t: t | {"model.layers.2.mlp.up_proj.weight": t[NAME]}, "model.layers.2.mlp.up_proj.weight is (24, 16)"),
        (lambda t: t | {NAME: t[NAME].T.copy()}, f"{NAME} is (16, 24) there and (24, 16) by the config"),
        (lambda t: t | {NAME: t[NAME].astype(np.int8)}, f"holds {NAME} as I8"),
        (lambda t: t | {NAME: t[NAME].astype(np.float64)}, f"holds {NAME} as F64"),
        (lambda t: t | {NAME: np.where(t[NAME] == t[NAME].max(), np.inf, t[NAME])}, f"{NAME} is not finite"),
        (
            lambda t: t | {"model.embed_tokens.weight": np.zeros((V + 1, 16), np.float32)},
            "is (41, 16) there and (40, 16)",
        ),
    ],
    ids=["missing", "additional", "transposed", "int8", "float64", "infinite", "larger"],
)
@pytest.mark.parametrize("parts", [1, 3])
def test_tensors_that_do_not_fit_are_refused_by_name(change, words, parts, tmp_path):
    fields, tensors = written(tmp_path / "whole", "llama")
    write(tmp_path / "changed", fields, change(tensors), parts=parts)
    assert words in refused(tmp_path / "changed", fields)


@pytest.mark.parametrize("parts", [1, 2])
def test_file_that_is_truncated_is_refused_by_name(parts, tmp_path):
    fields, _ = written(tmp_path, "llama", parts=parts)
    path = max(tmp_path.glob("*.safetensors"))
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert f"{path} cannot be read" in refused(tmp_path, fields)
    path.unlink()
    assert "safetensors" in refused(tmp_path, fields)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{", "cannot be read as an index"),
        ("[]", "names None, no file of the folder"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "names '../model.safetensors', no file"),
        ('{"weight_map": {"a": 3}}', "names 3, no file"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors cannot be read: No such file"),
        ('{"weight_map": {"a": "config.json"}}', "config.json cannot be read"),
        ('{"weight_map": {"a": "model.safetensors", "b": "copy.safetensors"}}', "as another file of"),
    ],
)
def test_index_that_names_no_files_of_the_model_is_refused(index, words, tmp_path):
    fields, tensors = written(tmp_path, "llama")
    save_file(tensors, tmp_path / "copy.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert words in refused(tmp_path, fields)


def test_folder_without_safetensors_says_what_to_do(tmp_path):
    assert "holds no safetensors file: download it again" in refused(tmp_path, LLAMA)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "holds no safetensors file: convert its pickles" in refused(tmp_path, LLAMA)
    for name in ("one", "two"):
        save_file({"a": np.zeros(1, np.float32)}, tmp_path / f"{name}.safetensors")
    assert "holds 2 safetensors files and no" in refused(tmp_path, LLAMA)


def test_single_file_of_another_name_is_the_model(tmp_path):
    fields, _ = written(tmp_path, "smdm")
    _, expected = read_folder(tmp_path, fields)
    (tmp_path / "model.safetensors").rename(tmp_path / "mdm-170M-100e18.safetensors")
    jax.tree.map(np.testing.assert_array_equal, read_folder(tmp_path, fields)[1], expected)


def test_write_into_the_folder_of_another_model_or_of_a_model_without_family_is_refused(tmp_path):
    fields, _ = written(tmp_path / "theirs", "llama")
    model = mdm_jax.load(tmp_path / "theirs")
    before = read(tmp_path / "theirs")
    write(tmp_path / "other", fields | {"rms_norm_eps": 1e-6}, {})
    with pytest.raises(InputError, match="holds a model of another config"):
        export(model, tmp_path / "other", format="huggingface")
    config = dataclasses.replace(model.config, positions="learned")
    with pytest.raises(InputError, match=r"llada, Dream, .*, bert have no such models"):
        export(mdm_jax.Model(config, model.params, model.denoiser), tmp_path / "own", format="huggingface")
    assert not (tmp_path / "own").exists()
    with pytest.raises(InputError, match="format='gguf' is unknown"):
        export(model, tmp_path / "own", format="gguf")
    assert read(tmp_path / "theirs") == before


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ["llada", "bert"])
def test_load_and_export_take_such_folders_as_they_take_ours(name, tmp_path):
    fields, _ = written(tmp_path / "theirs", name, "bfloat16")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(fields | {"torch_dtype": "bfloat16"}))
    model = mdm_jax.load(tmp_path / "theirs")
    ids = {key: value for key, value in fields.items() if key in ("eos_token_id", "mask_token_id", "pad_token_id")}
    assert model.task == ids
    path = export(model, tmp_path / "ours")
    assert path == tmp_path / "ours" / "model.safetensors"
    again = mdm_jax.load(tmp_path / "ours")
    assert (again.config, again.task) == (model.config, model.task)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    for source in (model, again, tmp_path / "ours", tmp_path / "theirs"):
        folder = tmp_path / f"back-{len(list(tmp_path.iterdir()))}"
        assert export(source, folder, format="huggingface") == folder / "model.safetensors"
        assert read(folder) == read(tmp_path / "theirs")
        assert ids.items() <= json.loads((folder / "config.json").read_text()).items()
    large = jax.tree.map(lambda leaf: leaf * 1e6, model.params)
    with pytest.raises(InputError, match=r"the parameters in float16: .* is not finite"):
        export(mdm_jax.Model(model.config, large, None), tmp_path / "low", format="huggingface", dtype="float16")
    export(model, tmp_path / "high", format="huggingface", dtype="float32")
    assert {dtype for dtype, _, _ in read(tmp_path / "high").values()} == {"float32"}


def test_loaded_masked_model_is_sampled_and_changes_no_given_token(tmp_path):
    written(tmp_path, "llada")
    model = mdm_jax.load(tmp_path)
    mask_id = model.task["mask_token_id"]
    x_init = jnp.full((2, 8), mask_id).at[:, :3].set(jnp.array([[5, 6, 7], [1, 2, 3]]))
    found = mdm_jax.sample(model.denoiser, model.params, jax.random.key(0), x_init, mask_id=mask_id)
    assert (found.tokens[:, :3] == x_init[:, :3]).all()
    assert (found.tokens != mask_id).all()
    assert (found.tokens < V).all()
