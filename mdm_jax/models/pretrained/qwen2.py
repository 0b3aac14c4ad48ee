"""Qwen2 and Qwen2.5."""

from typing import Any

from mdm_jax.errors import InputError, shown
from mdm_jax.models.pretrained import llama
from mdm_jax.models.pretrained.family import Family, Fixed

FIXED = {"hidden_act": Fixed(("silu",)), "use_sliding_window": Fixed((False,)), "use_mrope": Fixed((False,))}
PASSED_OVER = "attention_dropout sliding_window max_window_layers"


def read(fields: dict[str, Any]) -> dict[str, Any]:
    """As for Llama, where no layer has a window."""
    kinds = fields.pop("layer_types", None) or []
    if any(kind != "full_attention" for kind in kinds):
        raise InputError(f"layer_types = {shown(kinds)} is not supported, only 'full_attention' in each layer")
    return llama.read(fields)


QWEN2 = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    settings=llama.SETTINGS,
    fixed=FIXED,
    ours=llama.OURS | {"causal": True, "qkv_bias": True},
    read=read,
    write=llama.write,
    passed_over=PASSED_OVER,
    layer="model.layers.{i}.",
    tensors=llama.TENSORS,
)
