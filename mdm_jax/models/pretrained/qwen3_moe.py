"""Qwen3 with routed experts in each layer, such as 30B-A3B."""

from typing import Any

from mdm_jax.errors import InputError, shown
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.pretrained import llama, qwen2, qwen3
from mdm_jax.models.pretrained.family import Family, Fixed, Setting, linear, whole
from mdm_jax.models.routed import RoutedTransformerConfig

TENSORS = {
    **{name: tensor for name, tensor in qwen3.TENSORS.items() if not name.startswith("mlp/")},
    "mlp/router/kernel": linear("mlp.gate.weight"),
    "mlp/gate/kernel": linear("mlp.experts.{e}.gate_proj.weight"),
    "mlp/up/kernel": linear("mlp.experts.{e}.up_proj.weight"),
    "mlp/down/kernel": linear("mlp.experts.{e}.down_proj.weight"),
}


def settings(mlp_width: str) -> tuple[Setting, ...]:
    """Those of Llama, with the name that config.json gives the width of an expert."""
    own = Setting("num_experts_per_token", "num_experts_per_tok"), Setting("mlp_width", mlp_width)
    return (*(setting for setting in llama.SETTINGS if setting.ours != "mlp_width"), *own)


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    found = [whole(fields, name) for name in ("num_experts", "num_local_experts")]  # the second by transformers 5
    given = [number for number in found if number is not None]
    if len(set(given)) != 1:
        raise InputError(f"num_experts and num_local_experts are {shown(found)}: one number is wanted")
    return qwen2.read(fields) | {"num_experts": given[0]}


def _write(config: TransformerConfig) -> dict[str, Any]:
    assert isinstance(config, RoutedTransformerConfig)
    return llama.write(config) | {"num_experts": config.num_experts}


QWEN3_MOE = Family(
    name="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    make=RoutedTransformerConfig,
    settings=(*settings("moe_intermediate_size"), Setting("is_normalised", "norm_topk_prob", False)),
    fixed=qwen3.FIXED | {"decoder_sparse_step": Fixed((1,)), "mlp_only_layers": Fixed(([],))},
    ours=qwen3.OURS,
    read=_read,
    write=_write,
    passed_over=qwen2.PASSED_OVER + " intermediate_size output_router_logits router_aux_loss_coef",
    layer="model.layers.{i}.",
    tensors=TENSORS,
)
