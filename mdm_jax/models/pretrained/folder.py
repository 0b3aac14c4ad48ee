"""A folder as Hugging Face's transformers writes it: config.json and safetensors files, read and written."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from mdm_jax.errors import InputError, shown
from mdm_jax.files import read_json, write_whole
from mdm_jax.models import kinds
from mdm_jax.models.config import DType, ModelConfig, TransformerConfig
from mdm_jax.models.pretrained.bert import BERT
from mdm_jax.models.pretrained.dream import DREAM
from mdm_jax.models.pretrained.family import Family, Tensor
from mdm_jax.models.pretrained.fused import fused
from mdm_jax.models.pretrained.gpt2 import GPT2
from mdm_jax.models.pretrained.llada import LLADA
from mdm_jax.models.pretrained.llada_moe import LLADA_MOE
from mdm_jax.models.pretrained.llama import LLAMA
from mdm_jax.models.pretrained.qwen2 import QWEN2
from mdm_jax.models.pretrained.qwen3 import QWEN3
from mdm_jax.models.pretrained.qwen3_moe import QWEN3_MOE
from mdm_jax.models.pretrained.smdm import SMDM
from mdm_jax.models.pretrained.stream import DTYPES, Stack, Stored, Written, stored_tensors, write_tensors
from mdm_jax.models.weights import by_name, check_finite
from mdm_jax.sharding import fetch, shardings
from mdm_jax.typing import Params

FAMILIES = (LLADA_MOE, LLADA, DREAM, QWEN2, QWEN3, QWEN3_MOE, LLAMA, GPT2, SMDM, BERT)
CONFIG = "config.json"

_NAMES = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
_BLOCK_CAUSAL = ("sdar", "sdar_moe", "llada2_moe")
"""Families in which a token sees the blocks up to its own."""
_OURS_ALONE = ("dtype", "param_dtype", "pad_id", "dropout", "remat", "init_std")
"""Fields of a config that say nothing of the function of parameters and tokens."""
_ROWS = 1 << 12
"""Rows of a tensor that are compared at once."""


def read_foreign_config(folder: pathlib.Path) -> dict[str, Any] | None:
    """What config.json says where another program wrote it; None where it is ours, or there is none to read."""
    with contextlib.suppress(InputError):
        found = read_json(folder / CONFIG, "a model's config")
        if isinstance(found, dict) and "model_type" in found and "format" not in found:
            return found
    return None


def token_ids(foreign: Mapping[str, Any]) -> dict[str, Any]:
    """The special tokens that a config.json names."""
    names = ("bos_token_id", "eos_token_id", "mask_token_id", "pad_token_id")
    return {name: foreign[name] for name in names if foreign.get(name) is not None}


def read_folder(
    folder: pathlib.Path, fields: Mapping[str, Any], *, mesh: Mesh | None = None
) -> tuple[TransformerConfig, Params]:
    """Reads a model tensor by tensor, of each only what lies on this process's devices.

    Parameters keep the dtype of the file. Products are in the one that config.json names, or else the embedding's.

    Args:
      folder: of config.json and the safetensors files.
      fields: what config.json says.
      mesh: where the parameters go, by `sharding.RULES`; None is the first device.

    Returns:
      The config and the parameters.

    Raises:
      InputError: the model is of no known family, or config.json says what is not supported; or a file cannot be read;
        or a tensor is missing, not of the model, of another shape, not floating-point or not finite.
    """
    try:
        family = _family(fields)
        config = family.config(fields)
        dtype = _dtype(fields)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from None
    shapes = kinds.param_shapes(config)
    wanted = by_name(shapes)
    device = SingleDeviceSharding(jax.devices()[0])
    places = by_name(jax.tree.map(lambda _: device, shapes) if mesh is None else shardings(mesh, shapes))
    stored = {family.canonical(name): tensor for name, tensor in stored_tensors(folder).items()}
    rows = {name: family.tensor(name) for name in wanted}
    theirs = {name: rows[name].names(wanted[name].shape) for name in wanted}
    shapes_there = {one: _shape(rows[name], wanted[name].shape, config) for name in wanted for one in theirs[name]}
    _check(folder, family, config, stored, shapes_there)
    order = {name: place for place, name in enumerate(stored)}
    params = {}
    for name in sorted(wanted, key=lambda name: order[theirs[name][0]]):
        row, shape, place = rows[name], wanted[name].shape, places[name]
        tensors = tuple(stored[one] for one in theirs[name])
        if len({tensor.dtype for tensor in tensors}) > 1:
            raise InputError(f"{folder} holds {row.theirs} in several dtypes: take weights that are of one")
        source = Stack(tensors) if row.is_stacked else tensors[0]
        params[name] = _placed(row, source, shape, place, config, interleaved=family.interleaved)
        check_finite(folder, {row.theirs: params[name]})
    embedding: Any = stored[rows["token_embedding/embedding"].theirs].dtype
    config = dataclasses.replace(config, dtype=dtype or embedding, param_dtype=embedding)
    return config, jax.tree.unflatten(jax.tree.structure(shapes), [params[name] for name in wanted])


def write_folder(
    folder: pathlib.Path, config: ModelConfig, params: Params, tokens: Mapping[str, Any] = types.MappingProxyType({})
) -> pathlib.Path:
    """Writes config.json and safetensors files, as `read_folder` and transformers read them.

    Args:
      folder: made if it is not there.
      config: of the model.
      params: its parameters.
      tokens: the ids of its special tokens, by what config.json calls them.

    Returns:
      The file, or the first of several.

    Raises:
      InputError: no family has such models, or the folder holds another one, or it cannot be written.
    """
    if not isinstance(config, TransformerConfig):
        raise InputError(f"no family has networks of a {type(config).__name__}")
    family = family_of(config)
    foreign = {**family.fields(config), **tokens, "torch_dtype": config.dtype}
    if (folder / CONFIG).exists() and read_json(folder / CONFIG, "a model's config") != foreign:
        raise InputError(f"{folder} holds a model of another config: give another folder")
    tensors: dict[str, list[str]] = {}  # theirs -> ours
    named = by_name(params)
    for name in named:
        tensors.setdefault(family.tensor(name).theirs, []).append(name)
    written = {}
    for names in tensors.values():
        row, leaf = family.tensor(names[0]), named[names[0]]
        parts = [named[name] for name in sorted(names, key=lambda name: family.tensor(name).part or 0)]
        for number, theirs in enumerate(row.names(leaf.shape)):
            read = functools.partial(_theirs, row, parts, number, config, interleaved=family.interleaved)
            written[theirs] = Written(_shape(row, leaf.shape, config), leaf.dtype.name, read)
    path = write_tensors(folder, written)
    write_whole(folder / CONFIG, json.dumps(foreign, indent=2) + "\n")
    return path


def family_of(config: TransformerConfig) -> Family:
    """The family whose config.json can say what `config` does; InputError where there is none."""
    same = {name: getattr(config, name) for name in _OURS_ALONE}
    for family in FAMILIES:
        if family.make is type(config):
            with contextlib.suppress(InputError):
                found = dataclasses.replace(family.config(family.fields(config)), **same)
                if _explicit(found) == _explicit(config):
                    return family
    raise InputError(f"{_NAMES} have no such models: {config}")


def _explicit(config: TransformerConfig) -> TransformerConfig:
    """The same, without a None that stands for what follows from other fields."""
    return dataclasses.replace(config, num_kv_heads=config.kv_heads, head_dim=config.head_width)


def _family(fields: Mapping[str, Any]) -> Family:
    name = fields.get("model_type")
    for family in FAMILIES:
        if family.name == name and (family.mark is None or family.mark in fields):
            return family
    if name in _BLOCK_CAUSAL:
        raise InputError(f"model_type = {shown(name)} is block-causal, which is not computed here")
    raise InputError(f"model_type = {shown(name)} is not supported, only {_NAMES}")


def _dtype(fields: Mapping[str, Any]) -> DType | None:
    """What config.json calls the dtype, or None."""
    found: Any = fields.get("dtype") or fields.get("torch_dtype") or "auto"
    if found not in ("auto", *DTYPES):
        raise InputError(f"dtype = {shown(found)} is not supported, only {', '.join(DTYPES)}")
    return None if found == "auto" else found


def _check(
    folder: pathlib.Path,
    family: Family,
    config: TransformerConfig,
    stored: dict[str, Stored],
    wanted: dict[str, tuple[int, ...]],
) -> None:
    """InputError unless the files hold the tensors that are wanted, in their shapes, and no others."""
    head = family.tensor("head/kernel").theirs
    copies = {head: family.tensor("token_embedding/embedding").theirs} if config.tie_head else {}
    for name in wanted | stored:
        if name in copies or re.fullmatch(family.skipped, name):
            continue
        here = str(stored[name].shape) if name in stored else "missing"
        there = str(wanted[name]) if name in wanted else "missing"
        if here != there:
            raise InputError(f"{folder} does not fit its config.json: {name} is {here} there and {there} by the config")
        if stored[name].dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise InputError(f"{folder} holds {name} as {stored[name].dtype}: take weights that are {known}")
    for copy, name in copies.items():
        if copy in stored and not _is_equal(stored[copy], stored[name]):
            raise InputError(f"{folder} holds another {copy} than {name}, though config.json says that they are one")


def _is_equal(one: Stored, other: Stored) -> bool:
    """Whether two matrices hold the same numbers; few rows are in memory at once."""
    if one.shape != other.shape:
        return False
    pieces = [(start, min(start + _ROWS, one.shape[0])) for start in range(0, one.shape[0], _ROWS)]
    return all(np.array_equal(one.rows(*piece), other.rows(*piece)) for piece in pieces)


def _axis(row: Tensor, ndim: int) -> int:
    """That of theirs along which queries, keys and values lie."""
    return 0 if row.turned else ndim - 1


def _shape(row: Tensor, shape: tuple[int, ...], config: TransformerConfig) -> tuple[int, ...]:
    """Of theirs, for ours."""
    shape = shape[1:] if row.is_stacked else shape
    found = list(shape[::-1] if row.turned else shape)
    if row.part is not None:
        found[_axis(row, len(found))] = sum(fused(config, interleaved=False).sizes)
    return tuple(found)


def _placed(
    row: Tensor,
    stored: Stored | Stack,
    shape: tuple[int, ...],
    place: Sharding,
    config: TransformerConfig,
    *,
    interleaved: bool,
) -> jax.Array:
    """A parameter where it shall lie, turned on its devices: they do it in no time, and the host's memory is spared."""
    rows = functools.cache(stored.rows)  # what one device takes, another may take too

    def read(index: Any) -> np.ndarray:
        first, last, _ = index[0].indices(stored.shape[0])
        if row.part is None:
            return rows(first, last)[:, *index[1:]]
        axis = _axis(row, len(stored.shape))
        return fused(config, interleaved=interleaved).split(rows(0, stored.shape[0]), axis)[row.part][index]

    if not row.turned:
        return jax.make_array_from_callback(shape, place, read)
    turned = (*shape[:-2], shape[-1], shape[-2])
    array = jax.make_array_from_callback(turned, _turned(place, len(shape)), read)
    return jax.jit(jnp.matrix_transpose, out_shardings=place)(array)


def _turned(place: Sharding, ndim: int) -> Sharding:
    """Where the transposed matrices lie, so that no device has to send anything to another."""
    if isinstance(place, NamedSharding):
        *before, rows, columns = (*place.spec, *[None] * ndim)[:ndim]
        return NamedSharding(place.mesh, PartitionSpec(*before, columns, rows))
    return place


def _theirs(
    row: Tensor, parts: list[jax.Array], number: int, config: TransformerConfig, *, interleaved: bool
) -> np.ndarray:
    """What is written for a parameter, or one of a stack, or for the three that are one tensor of theirs."""
    parts = [part[number] for part in parts] if row.is_stacked else parts
    arrays = [array.T if row.turned else array for array in map(fetch, parts)]
    if row.part is None:
        return arrays[0]
    return fused(config, interleaved=interleaved).join(arrays, _axis(row, arrays[0].ndim))
