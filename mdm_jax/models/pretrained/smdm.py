"""SMDM's masked diffusion models (Nie et al. 2024, arXiv:2410.18514), as its code, lit-gpt's, writes them.

Their folders have no config.json. It takes the fields of `lit_gpt.Config`, and "model_type": "smdm".
"""

from typing import Any

from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.pretrained.family import Family, Fixed, Setting, Tensor, linear, whole


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    tokens, multiple = whole(fields, "vocab_size", 50_254), whole(fields, "padding_multiple", 512)
    return {
        "vocab_size": whole(fields, "padded_vocab_size", -(-tokens // multiple) * multiple),
        "num_kv_heads": whole(fields, "n_query_groups"),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    rows = dict.fromkeys(("vocab_size", "padded_vocab_size"), config.vocab_size)
    return rows | {"n_query_groups": config.kv_heads}


SMDM = Family(
    name="smdm",
    architecture="TransEncoder",
    settings=(
        Setting("max_length", "block_size"),
        Setting("num_layers", "n_layer"),
        Setting("num_heads", "n_head"),
        Setting("width", "n_embd"),
        Setting("mlp_width", "intermediate_size"),
        Setting("norm_epsilon", "norm_eps", 1e-5),
    ),
    fixed={
        "_norm_class": Fixed(("FusedRMSNorm", "RMSNorm"), default="LayerNorm"),
        "_mlp_class": Fixed(("LLaMAMLP",), default="GptNeoxMLP"),
        "bias": Fixed((False,), default=True),
        "parallel_residual": Fixed((False,), default=True),
        "rotary_percentage": Fixed((1.0,), default=0.25),
        "condense_ratio": Fixed((1,)),
        "shared_attention_norm": Fixed((False,)),
    },
    ours={"norm": "rms", "positions": "rope", "mlp": "swiglu", "num_extra_tokens": 1},
    read=_read,
    write=_write,
    passed_over="name org",
    layer="transformer.h.{i}.",
    tensors={
        "token_embedding/embedding": Tensor("transformer.wte.weight"),
        "attention_norm/scale": Tensor("norm_1.weight"),
        "attention/query/kernel": linear("attn.attn.weight", part=0),
        "attention/key/kernel": linear("attn.attn.weight", part=1),
        "attention/value/kernel": linear("attn.attn.weight", part=2),
        "attention/output/kernel": linear("attn.proj.weight"),
        "mlp_norm/scale": Tensor("norm_2.weight"),
        "mlp/gate/kernel": linear("mlp.swiglu.w1.weight"),
        "mlp/up/kernel": linear("mlp.swiglu.w2.weight"),
        "mlp/down/kernel": linear("mlp.swiglu.w3.weight"),
        "final_norm/scale": Tensor("transformer.ln_f.weight"),
        "head/kernel": linear("lm_head.weight"),
    },
    interleaved=True,
)
