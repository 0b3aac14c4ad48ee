"""Folders that `transformers` writes and opens; run with the extra [parity]."""

import json

import jax
import numpy as np
import pytest
from hub import TOKENS, read
from test_pretrained_parity import assert_ours_agree

import mdm_jax
import mdm_jax.loading

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
    "rope_theta": 500.0,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "llama3": lambda: transformers.LlamaConfig(**SMALL, rope_parameters=LLAMA3),
    "linear": lambda: transformers.LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    ),
    "tied": lambda: transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "wide": lambda: transformers.LlamaConfig(**SMALL, head_dim=8),
    "qwen2": lambda: transformers.Qwen2Config(**SMALL),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL, head_dim=6),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **SMALL, moe_intermediate_size=12, num_experts=5, num_experts_per_tok=2, norm_topk_prob=True
    ),
    "bert": lambda: transformers.BertConfig(**{name: SMALL[name] for name in SMALL if name != "num_key_value_heads"}),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=64),
}


@pytest.fixture(params=CONFIGS)
def folder(request, tmp_path):
    """A random model as transformers writes it, with norms and biases that are not 1 and 0."""
    torch.manual_seed(0)
    auto = transformers.AutoModelForMaskedLM if request.param == "bert" else transformers.AutoModelForCausalLM
    model = auto.from_config(CONFIGS[request.param](), attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def opened(folder):
    """The model of a folder, as transformers opens it."""
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").eval()


def apart(tensors):
    """Stacked experts as the files have them: one tensor each."""
    found = {}
    for name, tensor in tensors.items():
        before, is_of_experts, kind = name.partition("mlp.experts.")
        for e, own in enumerate(tensor if is_of_experts else ()):
            kinds = ("gate_proj", "up_proj") if kind == "gate_up_proj" else (kind,)
            for part, rows in zip(kinds, np.split(own, len(kinds)), strict=True):
                found[f"{before}mlp.experts.{e}.{part}.weight"] = rows
        if not is_of_experts:
            found[name] = tensor
    return found


def test_logits_and_gradients_are_those_of_transformers(folder):
    model = opened(folder)
    logits = model(torch.tensor(np.asarray(TOKENS))).logits
    weights = torch.tensor(np.asarray(jax.random.normal(jax.random.key(2), logits.shape)))
    ((logits * weights).sum() / 20).backward()
    gradients = apart({name: parameter.grad.numpy() for name, parameter in model.named_parameters()})
    assert_ours_agree(folder, json.loads((folder / "config.json").read_text()), logits.detach().numpy(), gradients)


def test_exported_folder_is_opened_by_transformers_as_the_same_model(folder, tmp_path):
    model = mdm_jax.load(folder)
    mdm_jax.loading.export(model, tmp_path / "ours", format="huggingface")
    assert read(tmp_path / "ours") == read(folder)
    one, other = opened(folder), opened(tmp_path / "ours")
    tokens = torch.tensor(np.asarray(TOKENS))
    with torch.no_grad():
        assert torch.equal(one(tokens).logits, other(tokens).logits)
    auto = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert auto.vocab_size == model.config.vocab_size
