"""LLaDA-MoE, 7B-A1B Base and Instruct (Zhu et al. 2025, arXiv:2509.24389). Its config.json says `llada`, too."""

from typing import Any

from mdm_jax.errors import InputError, shown
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.pretrained import llama, qwen3_moe
from mdm_jax.models.pretrained.family import Family, Fixed, Setting
from mdm_jax.models.routed import RoutedTransformerConfig


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    found = fields.pop("moe_layer_freq", None)
    if found not in (None, 1, [1] * len(found) if isinstance(found, list) else 1):
        raise InputError(f"moe_layer_freq = {shown(found)} is not supported, only experts in each layer")
    fields.setdefault("rope_theta", 50_000.0)
    return llama.read(fields)


def _write(config: TransformerConfig) -> dict[str, Any]:
    return llama.write(config) | {"moe_layer_freq": [1] * config.num_layers}


LLADA_MOE = Family(
    name="llada",
    mark="num_experts",
    architecture="LLaDAMoEModelLM",
    make=RoutedTransformerConfig,
    settings=(
        *qwen3_moe.settings("expert_intermediate_size"),
        Setting("num_experts", "num_experts"),
        Setting("qk_norm", "qk_layernorm", True),
    ),
    fixed={
        "hidden_act": Fixed(("silu",)),
        "attention_bias": Fixed((False,)),
        "moe_router_score_function": Fixed(("softmax",)),
        "moe_router_enable_expert_bias": Fixed((False,)),
        "norm_topk_prob": Fixed((False,)),
        "routed_scaling_factor": Fixed((1,)),
        "partial_rotary_factor": Fixed((1,)),
    },
    ours=llama.OURS,
    read=_read,
    write=_write,
    passed_over="attention_dropout dense_intermediate_size output_router_logits router_aux_loss_coef",
    layer="model.layers.{i}.",
    tensors=qwen3_moe.TENSORS,
)
