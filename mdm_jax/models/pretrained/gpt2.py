"""GPT-2. Its files on the hub call `h.0...` what others call `transformer.h.0...`."""

from typing import Any

from mdm_jax.errors import InputError, shown
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.pretrained.family import Family, Fixed, Setting, Tensor, whole


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    width = whole(fields, "n_embd", 768)
    rates = [fields.pop(name, 0.1) for name in ("resid_pdrop", "embd_pdrop")]
    if rates[0] != rates[1]:
        raise InputError(f"resid_pdrop and embd_pdrop are {shown(rates)}; they are supported where they are equal")
    return {"width": width, "mlp_width": whole(fields, "n_inner", 4 * width), "dropout": rates[0]}


def _write(config: TransformerConfig) -> dict[str, Any]:
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop"), config.dropout)
    return {"n_embd": config.width, "n_inner": config.mlp_width} | rates


GPT2 = Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    settings=(
        Setting("vocab_size", "vocab_size", 50_257),
        Setting("max_length", "n_positions", 1024),
        Setting("num_layers", "n_layer", 12),
        Setting("num_heads", "n_head", 12),
        Setting("norm_epsilon", "layer_norm_epsilon", 1e-5),
        Setting("tie_head", "tie_word_embeddings", True),
    ),
    fixed={
        "activation_function": Fixed(("gelu_new", "gelu_pytorch_tanh")),
        "scale_attn_weights": Fixed((True,)),
        "scale_attn_by_inverse_layer_idx": Fixed((False,)),
        "add_cross_attention": Fixed((False,)),
    },
    ours={"norm": "layer", "positions": "learned", "mlp": "gelu", "use_bias": True, "causal": True},
    read=_read,
    write=_write,
    passed_over="""
        attn_pdrop n_ctx n_special predict_special_tokens reorder_and_upcast_attn summary_activation
        summary_first_dropout summary_proj_to_labels summary_type summary_use_proj""",
    layer="transformer.h.{i}.",
    tensors={
        "token_embedding/embedding": Tensor("transformer.wte.weight"),
        "position_embedding/embedding": Tensor("transformer.wpe.weight"),
        "attention_norm/scale": Tensor("ln_1.weight"),
        "attention/query/kernel": Tensor("attn.c_attn.weight", part=0),
        "attention/key/kernel": Tensor("attn.c_attn.weight", part=1),
        "attention/value/kernel": Tensor("attn.c_attn.weight", part=2),
        "attention/output/kernel": Tensor("attn.c_proj.weight"),
        "mlp_norm/scale": Tensor("ln_2.weight"),
        "mlp/up/kernel": Tensor("mlp.c_fc.weight"),
        "mlp/down/kernel": Tensor("mlp.c_proj.weight"),
        "final_norm/scale": Tensor("transformer.ln_f.weight"),
        "head/kernel": Tensor("lm_head.weight", turned=True),
    },
    skipped=r"transformer\.h\.\d+\.attn\.(masked_)?bias",
    canonical=lambda name: name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}",
)
