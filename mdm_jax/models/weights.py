"""Weights as safetensors files, which programs without JAX read too."""

import contextlib
import functools
import json
import math
import operator
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError
from mdm_jax.files import MOST_JSON, make_folder, parse_json, regular_file
from mdm_jax.models.pretrained.stream import Written, write_file
from mdm_jax.sharding import fetch
from mdm_jax.typing import Params

WEIGHTS = "model.safetensors"
DIGESTS = "mdm_jax.crc32"
"""In the file's metadata: JSON, for each array's name what `digest` says of it."""

_FLOATS = ("F64", "F32", "F16", "BF16")


def save_weights(folder: pathlib.Path, params: Params, *, dtype: str = "bfloat16") -> pathlib.Path:
    """Writes parameters to `folder/model.safetensors`, with a digest of each; leaf `b` of `a` is called `a/b`.

    Of the parameters one at a time is on the host.

    Args:
      folder: made if it is not there.
      params: nested dicts of arrays.
      dtype: what the file holds.

    Returns:
      The file.

    Raises:
      InputError: a parameter is not finite in that dtype, or the file cannot be written.
    """
    digests, tensors = {}, {}
    for name, leaf in by_name(params).items():
        read = functools.partial(_in_dtype, leaf, dtype)
        array = read()
        check_finite(f"the parameters in {dtype}", {name: array})
        digests[name], tensors[name] = digest(array), Written(array.shape, dtype, read)
    path = make_folder(folder) / WEIGHTS
    write_file(path, tensors, {DIGESTS: json.dumps(digests)})
    return path


def _in_dtype(leaf: Any, dtype: str) -> np.ndarray:
    """A parameter as it stands in a file, whole on the host."""
    return np.asarray(fetch(jnp.asarray(leaf, dtype)))


def read_weights(folder: pathlib.Path, like: Params) -> Params:
    """Reads `folder/model.safetensors`, one array after the other, each to where it shall lie.

    Args:
      folder: of the file.
      like: the shapes, dtypes and shardings that are wanted; the first device where there is no sharding.

    Returns:
      The parameters, in the structure and the dtypes of `like`.

    Raises:
      InputError: the file cannot be read, or holds other arrays than are wanted, or such as are not what was written,
        or not finite.
    """
    path = regular_file(folder / WEIGHTS)
    values = dict(_read(path, by_name(like)))
    return jax.tree.unflatten(jax.tree.structure(like), [values[name] for name in by_name(like)])


def _read(path: pathlib.Path, wanted: dict[str, Any]) -> Iterator[tuple[str, jax.Array]]:
    """The arrays one after the other; all that the file says of them is compared before the first."""
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, "numpy")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({_mislabelled(path) or error}); copy or install it again") from error
    with file:
        heads = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        for name in wanted | heads:
            here = str(tuple(heads[name].get_shape())) if name in heads else "missing"
            there = str(wanted[name].shape) if name in wanted else "missing"
            if here != there:
                raise InputError(f"{path} is not of this model: {name} is {here} there and {there} in the config")
            if (kind := heads[name].get_dtype()) not in _FLOATS:
                raise InputError(
                    f"{path} holds {name} as {kind}, not as floating-point numbers: take weights that are not quantised"
                )
        digests = _digests(path, file.metadata() or {})
        for name, leaf in wanted.items():
            array = file.get_tensor(name)
            if digests is not None and digests.get(name) != digest(array):
                raise InputError(f"{path} is damaged: {name} is not what was written; copy or install it again")
            array = array.astype(leaf.dtype)
            check_finite(path, {name: array})
            yield name, jax.device_put(array, leaf.sharding)


def _mislabelled(path: pathlib.Path) -> str:
    """Which array of a file has not the bytes of its dtype, which safetensors does not tell; "" if there is none."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # anything may stand there
        with path.open("rb") as file:
            header = parse_json(file.read(min(int.from_bytes(file.read(8), "little"), MOST_JSON)), "")
        header.pop("__metadata__", None)
        for name, entry in header.items():
            dtype, num = entry["dtype"], math.prod(map(operator.index, entry["shape"]))
            start, end = entry["data_offsets"]
            if num * int(re.findall(r"\d+", dtype)[0]) != 8 * (end - start):
                return f"{name} is labelled {dtype}, but has {end - start:,} bytes for {num:,} numbers"
    return ""


def digest(array: np.ndarray) -> int:
    """A sum of an array's bytes, dtype and shape, in which any flipped bit shows."""
    head = f"{array.dtype.name} {array.shape}".encode()
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, zlib.crc32(head))


def _digests(path: pathlib.Path, metadata: dict[str, str]) -> dict[str, Any] | None:
    if DIGESTS not in metadata:
        return None  # another program's file
    complaint = f"{path} is damaged: its digests cannot be read; copy or install it again"
    digests = parse_json(metadata[DIGESTS], complaint)
    if not isinstance(digests, dict):
        raise InputError(complaint)
    return digests


def check_finite(where: object, arrays: dict[str, Any]) -> None:
    """InputError that names the first array which holds infinities or not-a-number."""
    for name, array in arrays.items():
        if isinstance(array, jax.Array):  # it may lie on devices of several processes
            is_finite = jnp.isfinite(_sum(array)) or jnp.isfinite(array).all()
        else:
            is_finite = np.isfinite(array).all()
        if not is_finite:
            raise InputError(f"{where}: {name} is not finite throughout; the parameters are damaged, take others")


@jax.jit
def _sum(array: jax.Array) -> jax.Array:
    """Finite only if all numbers are, though large ones may overflow; one pass without anything in memory."""
    return array.sum(dtype=jnp.float32)


def by_name(params: Params) -> dict[str, Any]:
    """The leaves in the order of the tree, by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}
