"""LLaDA, 8B Base, Instruct and 1.5, as its authors' code writes it (Nie et al. 2025, arXiv:2502.09992)."""

from typing import Any

from mdm_jax.errors import InputError
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.pretrained.family import Family, Fixed, Setting, Tensor, linear, whole


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    tokens, width = whole(fields, "vocab_size"), whole(fields, "d_model")
    if None in (tokens, width):
        raise InputError("vocab_size or d_model is missing: it is no config.json of a llada model")
    hidden, ratio = whole(fields, "mlp_hidden_size"), whole(fields, "mlp_ratio", 4)
    kv_heads, is_shared = whole(fields, "n_kv_heads"), fields.pop("multi_query_attention", None)
    return {
        "vocab_size": whole(fields, "embedding_size", tokens),
        "width": width,
        "mlp_width": width * ratio if hidden is None else hidden,
        "num_kv_heads": 1 if kv_heads is None and is_shared else kv_heads,
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "embedding_size": config.vocab_size,
        "d_model": config.width,
        "mlp_hidden_size": config.mlp_width,
        "n_kv_heads": config.kv_heads,
    }


LLADA = Family(
    name="llada",
    architecture="LLaDAModelLM",
    settings=(
        Setting("max_length", "max_sequence_length", 1024),
        Setting("num_layers", "n_layers"),
        Setting("num_heads", "n_heads"),
        Setting("norm_epsilon", "rms_norm_eps", 1e-5),
        Setting("rope_theta", "rope_theta", 10_000.0),
        Setting("qkv_bias", "include_qkv_bias", False),
        Setting("tie_head", "weight_tying", True),
    ),
    fixed={
        "block_type": Fixed(("llama",), default="sequential"),
        "activation_type": Fixed(("silu",), default="swiglu"),
        "layer_norm_type": Fixed(("rms",), default="default"),
        "layer_norm_with_affine": Fixed((True,)),
        "rope": Fixed((True,), default=False),
        "rope_full_precision": Fixed((True, False)),
        "alibi": Fixed((False,)),
        "attention_layer_norm": Fixed((False,)),
        "input_emb_norm": Fixed((False,)),
        "scale_logits": Fixed((False,)),
        "include_bias": Fixed((False,)),
        "bias_for_layer_norm": Fixed((False,)),
    },
    ours={"norm": "rms", "positions": "rope", "mlp": "swiglu"},
    read=_read,
    write=_write,
    passed_over="""
        alibi_bias_max attention_dropout attention_layer_norm_with_affine block_group_size embedding_dropout
        flash_attention init_cutoff_factor init_device init_fn init_std precision residual_dropout""",
    layer="model.transformer.blocks.{i}.",
    tensors={
        "token_embedding/embedding": Tensor("model.transformer.wte.weight"),
        "attention_norm/scale": Tensor("attn_norm.weight"),
        "attention/query/kernel": linear("q_proj.weight"),
        "attention/key/kernel": linear("k_proj.weight"),
        "attention/value/kernel": linear("v_proj.weight"),
        "attention/output/kernel": linear("attn_out.weight"),
        "mlp_norm/scale": Tensor("ff_norm.weight"),
        "mlp/gate/kernel": linear("ff_proj.weight"),
        "mlp/up/kernel": linear("up_proj.weight"),
        "mlp/down/kernel": linear("ff_out.weight"),
        "final_norm/scale": Tensor("model.transformer.ln_f.weight"),
        "head/kernel": linear("model.transformer.ff_out.weight"),
    },
)
