"""The kinds of network: the name of a kind in `config.json` says how a network is made of its config.

A config is plain data; a kind holds the functions that make parameters and a denoiser of it. Commands, `load` and
`fit` make every network through this module, so a new kind is one file and one call of `register`. No module is
imported by a name from a file: the program registers a kind before it reads a run of that kind.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from mdm_jax.errors import InputError, shown
from mdm_jax.models import bert, decoder, denoiser, grouped, judged, looped, routed, transformer
from mdm_jax.models.config import ModelConfig, TransformerConfig
from mdm_jax.typing import Array, Denoiser, Params

EMBEDDINGS = ("token_embedding", "position_embedding", "group_embedding", "type_embedding", "head")
"""Parameters of this library's networks that scaling laws do not count."""


class Kind(NamedTuple):
    """How a network is made of a config."""

    config: type[ModelConfig]
    """its class: a frozen dataclass"""
    init_params: Callable[[Any, Array], Params]
    """(config, key) -> fresh parameters, nested dicts of arrays"""
    make_denoiser: Callable[[Any], Denoiser]
    """config -> denoiser, hashable; equal for equal configs, so that jit compiles it once"""
    make_decoder: Callable[[Any], Any] | None = None
    """config -> decoder with a cache of keys and values; None if the network has no decoder"""
    param_shapes: Callable[[Any], Params] | None = None
    """config -> the shapes of `init_params`; None uses `jax.eval_shape`, which is slow for many layers"""


KINDS: dict[str, Kind] = {
    "transformer": Kind(
        TransformerConfig,
        transformer.init_params,
        denoiser.make_denoiser,
        decoder.make_decoder,
        transformer.param_shapes,
    ),
    "grouped_transformer": Kind(
        grouped.GroupedTransformerConfig,
        grouped.init_params,
        grouped.GroupedDenoiser,
        grouped.make_decoder,
        functools.partial(transformer.param_shapes, init=grouped.init_params),
    ),
    "routed_transformer": Kind(
        routed.RoutedTransformerConfig,
        routed.init_params,
        routed.RoutedDenoiser,
        routed.make_decoder,
        functools.partial(transformer.param_shapes, init=routed.init_params),
    ),
    "judged_transformer": Kind(
        judged.JudgedTransformerConfig,
        judged.init_params,
        judged.JudgedDenoiser,
        decoder.make_decoder,
        functools.partial(transformer.param_shapes, init=judged.init_params),
    ),
    "looped_transformer": Kind(
        looped.LoopedTransformerConfig,
        transformer.init_params,
        looped.LoopedDenoiser,
        param_shapes=transformer.param_shapes,
    ),
    "bert": Kind(
        bert.BertConfig,
        bert.init_params,
        bert.BertDenoiser,
        param_shapes=functools.partial(transformer.param_shapes, init=bert.init_params),
    ),
}

OURS = tuple(KINDS)


def register(name: str, kind: Kind) -> None:
    """Adds a kind of network for the rest of the process. A kind of the same name is replaced.

    Args:
      name: of the kind in `config.json`.
      kind: its config class and its functions.

    Raises:
      InputError: the config is not a frozen dataclass derived from ModelConfig, or the name is one of the library's.
    """
    config = kind.config
    is_config = isinstance(config, type) and issubclass(config, ModelConfig) and "__dataclass_fields__" in vars(config)
    if not is_config or not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise InputError(f"the config of {shown(name)} must be a frozen dataclass derived from ModelConfig")
    if name in OURS:
        raise InputError(f"the kind {name} is the library's own; choose another name")
    KINDS[name] = kind


def is_known(config: Any) -> bool:
    """Whether an object is a config of a registered kind."""
    return any(type(config) is kind.config for kind in KINDS.values())


def name_of(config: ModelConfig) -> str:
    """The name of a config's kind; InputError if its class is not registered."""
    for name, kind in KINDS.items():
        if type(config) is kind.config:
            return name
    raise InputError(f"a {type(config).__name__} is of no kind that is registered; see mdm_jax.models.kinds.register")


def to_json(config: ModelConfig) -> dict[str, Any]:
    """The kind and every field of a config, as JSON values."""
    return {"kind": name_of(config), **config.to_json()}


def from_json(fields: Mapping[str, Any]) -> Any:
    """The inverse of `to_json`.

    Raises:
      InputError: the kind is not registered, or its fields do not fit.
    """
    fields = dict(fields)
    name = fields.pop("kind", None)
    if not isinstance(name, str) or name not in KINDS:
        raise InputError(
            f"the network is of the kind {shown(name)}, and known are {', '.join(KINDS)}: register it "
            "(mdm_jax.models.kinds.register), or name the module that does with --plugin"
        )
    return KINDS[name].config.from_json(fields)


def adapted(config: ModelConfig, fields: Mapping[str, Any]) -> Any:
    """A config with some fields changed; with a "kind" among them, a config of that kind.

    A field that the kind does not have is ignored if its value is TransformerConfig's default, and refused otherwise.

    Raises:
      InputError: the kind has no such field, or a value does not fit.
    """
    values = {**to_json(config), **fields}
    known = {field.name for field in dataclasses.fields(KINDS[values["kind"]].config)} | {"kind"}
    neutral = {field.name: field.default for field in dataclasses.fields(TransformerConfig)}
    return from_json({k: v for k, v in values.items() if k in known or neutral.get(k, dataclasses.MISSING) != v})


def init_params(config: ModelConfig, key: Array) -> Params:
    """Freshly drawn parameters of a config of any kind. The key is consumed."""
    return KINDS[name_of(config)].init_params(config, key)


def make_denoiser(config: ModelConfig) -> Any:
    """The denoiser of a config of any kind."""
    return KINDS[name_of(config)].make_denoiser(config)


def make_decoder(config: ModelConfig) -> Any:
    """The decoder of a config of any kind; InputError if it has none."""
    name = name_of(config)
    if (make := KINDS[name].make_decoder) is None:
        raise InputError(f"a network of the kind {name} reads whole sequences: it cannot go on from a cache")
    return make(config)


def param_shapes(config: ModelConfig) -> Params:
    """The shapes and dtypes of what `init_params` gives, without making any."""
    kind = KINDS[name_of(config)]
    if kind.param_shapes is not None:
        return kind.param_shapes(config)
    return jax.eval_shape(functools.partial(kind.init_params, config), jax.random.key(0))


def num_params(params_or_config: Params | ModelConfig, *, embedding: bool = True) -> int:
    """Number of parameters, exact; for a configuration without making any.

    Args:
      params_or_config: parameters as from `init_params`, or the configuration.
      embedding: whether to count the embeddings and the untied head of this library's networks.
    """
    params = params_or_config
    if isinstance(params, ModelConfig):
        params = param_shapes(params)
    counted = {name: subtree for name, subtree in params.items() if embedding or name not in EMBEDDINGS}
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(counted))


def without_padding(config: Any) -> Any:
    """The config of a network that hides no token, whatever its `pad_id` is, if it has one."""
    return dataclasses.replace(config, pad_id=None) if getattr(config, "pad_id", None) is not None else config
