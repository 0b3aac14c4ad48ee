"""The mesh ("data", "fsdp", "tensor"), and the one table that says where each parameter lies on it.

Batches are split over data x fsdp. A parameter is split as the first rule that its name meets says, along the axes
that divide its dimensions; optimizer state and averages carry their parameter's name and lie where it lies.
"""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mdm_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

Rules = Sequence[tuple[str, PartitionSpec]]
"""Parameter name (a pattern for the end of its path) -> axes per dimension; whatever meets none is replicated."""

RULES: Rules = (
    (r"token_embedding/embedding$", PartitionSpec("tensor", "fsdp")),
    (r"(position|group|type)_embedding/embedding$", PartitionSpec(None, "fsdp")),
    (r"(query|key|value|gate|up|head|transform)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(query|key|value|gate|up|transform)/bias$", PartitionSpec("tensor")),
    (r"(output|down)/kernel$", PartitionSpec("tensor", "fsdp")),
)
"""For the names of this library's models."""


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices (or over `devices`).

    Args:
      data: copies of the model that split the batch; -1: as many as the devices allow.
      fsdp: ways to split parameters and optimizer state, and the batch too.
      tensor: ways to split matrices within a layer.
      devices: None is all of them.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    rest = fsdp * tensor
    sizes = (len(devices) // rest if data == -1 and rest > 0 else data, fsdp, tensor)
    if min(sizes) < 1 or sizes[0] * rest != len(devices):
        raise InputError(
            f"data={data} x fsdp={fsdp} x tensor={tensor} do not use {len(devices)} devices; "
            "the three must multiply to that number"
        )
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def _rule_for(name: str, shape: tuple[int, ...], rules: Rules) -> PartitionSpec | None:
    """The first that the parameter `name` of `shape` meets."""
    return next((spec for pattern, spec in rules if re.search(pattern, name) and len(spec) == len(shape)), None)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def spec_for(name: str, shape: tuple[int, ...], mesh: Mesh, rules: Rules = RULES) -> PartitionSpec:
    """Where the parameter `name` (its path, joined by "/") of `shape` lies on `mesh`."""
    axes = zip(shape, _rule_for(name, shape, rules) or (), strict=False)
    return PartitionSpec(*(axis if size % _ways(axis, mesh) == 0 else None for size, axis in axes))


def _ways(axis: str | tuple[str, ...] | None, mesh: Mesh) -> int:
    """Parts that one axis of a rule, or several together, make of a dimension."""
    names = (axis,) if isinstance(axis, str) else axis or ()
    unknown = [name for name in names if name not in mesh.shape]
    if unknown:
        raise InputError(f"a rule names the axis {unknown[0]!r}; the mesh has {', '.join(mesh.shape)}")
    return math.prod(mesh.shape[name] for name in names)


def shardings(mesh: Mesh, tree: Any, rules: Rules = RULES) -> Any:
    """The sharding of every array (or shape) in `tree`, by its path."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, spec_for(_name(path), leaf.shape, mesh, rules))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def without_rule(params: Any, rules: Rules = RULES) -> tuple[float, str]:
    """The share of the parameters (or shapes) that no rule meets, and the name of the largest of them."""
    sizes = {_name(path): (leaf.shape, math.prod(leaf.shape)) for path, leaf in jax.tree.leaves_with_path(params)}
    unmet = {name: size for name, (shape, size) in sizes.items() if _rule_for(name, shape, rules) is None}
    total = sum(size for _, size in sizes.values())
    return (sum(unmet.values()) / total, max(unmet, key=lambda name: unmet[name])) if unmet else (0.0, "")


def gathered(mesh: Mesh, params: Any, rules: Rules = RULES) -> Any:
    """`params`, under jit, as a forward pass takes them: look-up tables whole over fsdp, as XLA takes matrices anyway.

    With tables that are split within a row XLA would bring all activations to all devices and split them there instead.
    """

    def gather(path: tuple[Any, ...], leaf: Any) -> Any:
        spec = spec_for(_name(path), leaf.shape, mesh, rules)
        if not _name(path).endswith("embedding/embedding") or len(spec) != 2:
            return leaf
        rows, _ = spec
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec(rows, None)))

    return jax.tree_util.tree_map_with_path(gather, params)


def abstract(mesh: Mesh, tree: Any, rules: Rules = RULES) -> Any:
    """Shape, dtype and sharding of every array in `tree`: what to restore a checkpoint into. Nothing is allocated."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings(mesh, tree, rules),
    )


def local_rows(mesh: Mesh, batch_size: int) -> Sequence[int]:
    """The rows of a batch that lie on this process's devices, in order: what it has to read."""
    indices = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,)).values()
    parts = sorted({index[0].indices(batch_size)[:2] for index in indices if index is not None})
    if all(one[1] == other[0] for one, other in itertools.pairwise(parts)):
        return range(parts[0][0], parts[-1][1])  # no list: a batch may be of any size until it meets its data
    return [row for part in parts for row in range(*part)]


def place(mesh: Mesh, rows: Any) -> Any:
    """Arrays [B, ...] that every process holds whole, with their rows split over data x fsdp."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), rows)


def fetch(array: jax.Array) -> np.ndarray:
    """The whole array as NumPy in every process, however it is sharded."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def check_batch(batch_size: int, mesh: Mesh, *, parts: int = 1) -> None:
    """InputError unless each of so many equal parts of the batch splits evenly over data x fsdp."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (ways * parts):
        cut = f" in {parts} parts" if parts > 1 else ""
        raise InputError(
            f"batch size {batch_size}{cut} does not split over {ways} devices (data x fsdp); take a multiple of "
            f"{ways * parts}"
        )
