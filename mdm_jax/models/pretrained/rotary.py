"""What config.json says of RoPE: in one place since transformers 5, in two before."""

from typing import Any

from mdm_jax.errors import InputError, shown
from mdm_jax.models.config import RopeScaling, TransformerConfig

_LLAMA3 = {
    "factor": "factor",
    "low": "low_freq_factor",
    "high": "high_freq_factor",
    "length": "original_max_position_embeddings",
}


def read_rope(fields: dict[str, Any]) -> dict[str, Any]:
    """Takes it out of the fields; `rope_theta` and `rope_scaling` of the config.

    Raises:
      InputError: the wavelengths are scaled in a way that is not computed here.
    """
    given: dict[str, Any] = {"rope_theta": fields.pop("rope_theta", 10_000.0)}
    for name in ("rope_scaling", "rope_parameters"):
        found = fields.pop(name, None) or {}
        if not isinstance(found, dict):
            raise InputError(f"{name} = {shown(found)} is not supported: parameters by name are wanted")
        given |= found
    theta, old_kind = given.pop("rope_theta"), given.pop("type", "default")
    kind = given.pop("rope_type", old_kind)
    names = {"default": {}, "linear": {"factor": "factor"}, "llama3": _LLAMA3}.get(str(kind))
    if names is None or set(given) != set(names.values()):
        raise InputError(f"rope_scaling of type {shown(kind)} with {shown(given)} is not supported")
    scaling = {ours: given[theirs] for ours, theirs in names.items()}
    return {"rope_theta": theta, "rope_scaling": RopeScaling(**scaling) if scaling else None}


def write_rope(config: TransformerConfig) -> dict[str, Any]:
    """The inverse, which every version of transformers reads."""
    scaling = config.rope_scaling
    if scaling is None:
        named = None
    elif scaling.length:
        named = {"rope_type": "llama3"} | {theirs: getattr(scaling, ours) for ours, theirs in _LLAMA3.items()}
    else:
        named = {"rope_type": "linear", "factor": scaling.factor}
    return {"rope_theta": config.rope_theta, "rope_scaling": named}
