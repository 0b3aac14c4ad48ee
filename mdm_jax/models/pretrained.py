"""Weights as safetensors files, which programs without JAX read too."""

import pathlib

import jax
import jax.numpy as jnp

from mdm_jax.errors import InputError
from mdm_jax.typing import Params

WEIGHTS = "model.safetensors"


def save_weights(folder: pathlib.Path, params: Params, *, dtype: str = "bfloat16") -> pathlib.Path:
    """Writes parameters to `folder/model.safetensors`; leaf `b` of `a` is called `a/b`.

    Args:
      folder: made if it is not there.
      params: nested dicts of arrays.
      dtype: what the file holds.

    Returns:
      The file.
    """
    from safetensors.flax import save

    folder.mkdir(parents=True, exist_ok=True)
    named = {name: jnp.asarray(leaf, dtype) for name, leaf in _by_name(params).items()}
    (folder / WEIGHTS).write_bytes(save(named))
    return folder / WEIGHTS


def read_weights(folder: pathlib.Path, like: Params) -> Params:
    """Reads `folder/model.safetensors` onto the first device.

    Args:
      folder: of the file.
      like: the shapes and dtypes that are wanted.

    Returns:
      The parameters, in the structure and the dtypes of `like`.

    Raises:
      InputError: the file cannot be read, or holds other arrays than are wanted.
    """
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    path = folder / WEIGHTS
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy or install it again") from error
    wanted = _by_name(like)
    for name in wanted.keys() | found.keys():
        here, there = (str(arrays[name].shape) if name in arrays else "missing" for arrays in (found, wanted))
        if here != there:
            raise InputError(f"{path} is not of this model: {name} is {here} there and {there} in the config")
    values = [found[name].astype(leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _by_name(params: Params) -> dict[str, jax.Array]:
    """The leaves in the order of the tree, by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}
