"""Qwen3, whose heads have a width of their own, and normalise queries and keys."""

from typing import Any

from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.pretrained import llama, qwen2
from mdm_jax.models.pretrained.family import Family, Fixed, Tensor

FIXED = qwen2.FIXED | {"attention_bias": Fixed((False,))}
TENSORS = llama.TENSORS | {
    "attention/query_norm/scale": Tensor("self_attn.q_norm.weight"),
    "attention/key_norm/scale": Tensor("self_attn.k_norm.weight"),
}
OURS = llama.OURS | {"causal": True, "qk_norm": True}


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    fields.setdefault("head_dim", 128)
    return qwen2.read(fields)


def _write(config: TransformerConfig) -> dict[str, Any]:
    return llama.write(config) | {"head_dim": config.head_width}


QWEN3 = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    settings=llama.SETTINGS,
    fixed=FIXED,
    ours=OURS,
    read=_read,
    write=_write,
    passed_over=qwen2.PASSED_OVER,
    layer="model.layers.{i}.",
    tensors=TENSORS,
)
