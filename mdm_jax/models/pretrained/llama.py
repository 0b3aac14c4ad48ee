"""Llama 2 and 3, SmolLM2, and what else transformers opens as `LlamaForCausalLM`."""

from typing import Any

from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.pretrained.family import Family, Fixed, Setting, Tensor, linear, whole
from mdm_jax.models.pretrained.rotary import read_rope, write_rope

SETTINGS = (
    Setting("vocab_size", "vocab_size"),
    Setting("max_length", "max_position_embeddings", 2048),
    Setting("num_layers", "num_hidden_layers"),
    Setting("num_heads", "num_attention_heads"),
    Setting("width", "hidden_size"),
    Setting("mlp_width", "intermediate_size"),
    Setting("norm_epsilon", "rms_norm_eps", 1e-6),
    Setting("tie_head", "tie_word_embeddings", False),
)
TENSORS = {
    "token_embedding/embedding": Tensor("model.embed_tokens.weight"),
    "attention_norm/scale": Tensor("input_layernorm.weight"),
    "attention/query/kernel": linear("self_attn.q_proj.weight"),
    "attention/key/kernel": linear("self_attn.k_proj.weight"),
    "attention/value/kernel": linear("self_attn.v_proj.weight"),
    "attention/output/kernel": linear("self_attn.o_proj.weight"),
    "mlp_norm/scale": Tensor("post_attention_layernorm.weight"),
    "mlp/gate/kernel": linear("mlp.gate_proj.weight"),
    "mlp/up/kernel": linear("mlp.up_proj.weight"),
    "mlp/down/kernel": linear("mlp.down_proj.weight"),
    "final_norm/scale": Tensor("model.norm.weight"),
    "head/kernel": linear("lm_head.weight"),
}
OURS = {"norm": "rms", "positions": "rope", "mlp": "swiglu"}


def read(fields: dict[str, Any]) -> dict[str, Any]:
    """What is no plain setting: the heads of keys and values, their width, and RoPE."""
    heads = {"num_kv_heads": whole(fields, "num_key_value_heads"), "head_dim": whole(fields, "head_dim")}
    return heads | read_rope(fields)


def write(config: TransformerConfig) -> dict[str, Any]:
    """The inverse of `read`."""
    width = {} if config.head_dim is None else {"head_dim": config.head_dim}
    return {"num_key_value_heads": config.kv_heads} | width | write_rope(config)


LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    settings=SETTINGS,
    fixed={
        "hidden_act": Fixed(("silu",)),
        "attention_bias": Fixed((False,)),
        "mlp_bias": Fixed((False,)),
        "rope_interleaved": Fixed((False,)),
    },
    ours=OURS | {"causal": True},
    read=read,
    write=write,
    passed_over="attention_dropout pretraining_tp is_llama_config transformers.js_config",
    layer="model.layers.{i}.",
    tensors=TENSORS,
    skipped=r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)
