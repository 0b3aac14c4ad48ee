"""The mesh ("data", "fsdp", "tensor"), and one table of rules that shards the parameters on it.

Batches are split over data x fsdp. A parameter is split by the first rule that matches its name,
along the axes whose sizes divide its dimensions. Optimizer state and averages have the names of
their parameters, and are sharded like them.
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
"""(pattern for the end of a parameter's path, mesh axes per dimension); without a match a parameter
is replicated"""

RULES: Rules = (
    (r"token_embedding/embedding$", PartitionSpec("tensor", "fsdp")),
    (r"(position|group|type)_embedding/embedding$", PartitionSpec(None, "fsdp")),
    (r"(query|key|value|gate|up|head|transform)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(query|key|value|gate|up|transform)/bias$", PartitionSpec("tensor")),
    (r"(output|down)/kernel$", PartitionSpec("tensor", "fsdp")),
    # Low-rank adapters: a has the rows of its matrix, b the columns.
    (r"(query|key|value|gate|up)/kernel/a$", PartitionSpec("fsdp", None)),
    (r"(query|key|value|gate|up)/kernel/b$", PartitionSpec(None, "tensor")),
    (r"(output|down)/kernel/a$", PartitionSpec("tensor", None)),
    (r"(output|down)/kernel/b$", PartitionSpec(None, "fsdp")),
    (r"router/kernel$", PartitionSpec("fsdp", None)),
    (r"(gate|up)/kernel$", PartitionSpec("tensor", "fsdp", None)),
    (r"down/kernel$", PartitionSpec("tensor", None, "fsdp")),
)
"""The rules for the models of this library."""


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices, or over `devices`.

    Args:
      data: shards of the batch with a copy of the model each; -1 uses all devices that are left.
      fsdp: shards of parameters and optimizer state, and of the batch too.
      tensor: shards of the matrices within a layer.
      devices: None uses all.

    Raises:
      InputError: the product of the sizes is not the number of devices.
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
    """The spec of the first rule that matches the name and the rank of a parameter."""
    return next((spec for pattern, spec in rules if re.search(pattern, name) and len(spec) == len(shape)), None)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def spec_for(name: str, shape: tuple[int, ...], mesh: Mesh, rules: Rules = RULES) -> PartitionSpec:
    """The sharding of a parameter on `mesh`, by its name (its path joined by "/") and shape."""
    axes = zip(shape, _rule_for(name, shape, rules) or (), strict=False)
    return PartitionSpec(*(axis if size % _num_shards(axis, mesh) == 0 else None for size, axis in axes))


def _num_shards(axis: str | tuple[str, ...] | None, mesh: Mesh) -> int:
    """The number of shards that one axis of a rule, or several together, make of a dimension."""
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
    """The share of the parameters (or shapes) without a rule, and the name of the largest one."""
    sizes = {_name(path): (leaf.shape, math.prod(leaf.shape)) for path, leaf in jax.tree.leaves_with_path(params)}
    unmatched = {name: size for name, (shape, size) in sizes.items() if _rule_for(name, shape, rules) is None}
    total = sum(size for _, size in sizes.values())
    if not unmatched:
        return 0.0, ""
    return sum(unmatched.values()) / total, max(unmatched, key=lambda name: unmatched[name])


def gathered(mesh: Mesh, params: Any, rules: Rules = RULES) -> Any:
    """`params` for a forward pass under jit, with look-up tables gathered over fsdp.

    XLA gathers matrices by itself. If the rows of a table are split, it would gather all
    activations instead and split them on every device.
    """

    def gather(path: tuple[Any, ...], leaf: Any) -> Any:
        spec = spec_for(_name(path), leaf.shape, mesh, rules)
        if not _name(path).endswith("embedding/embedding") or len(spec) != 2:
            return leaf
        rows, _ = spec
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec(rows, None)))

    return jax.tree_util.tree_map_with_path(gather, params)


def abstract(mesh: Mesh, tree: Any, rules: Rules = RULES) -> Any:
    """Shape, dtype and sharding of every array in `tree`, to restore a checkpoint into."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings(mesh, tree, rules),
    )


def local_rows(mesh: Mesh, batch_size: int) -> Sequence[int]:
    """The rows of a batch that this process's devices hold, in order: those that it has to read."""
    indices = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,)).values()
    parts = sorted({index[0].indices(batch_size)[:2] for index in indices if index is not None})
    if all(one[1] == other[0] for one, other in itertools.pairwise(parts)):
        return range(parts[0][0], parts[-1][1])  # a list of a very large batch would take long
    return [row for part in parts for row in range(*part)]


def place(mesh: Mesh, rows: Any) -> Any:
    """Shards arrays [B, ...], which every process holds whole, by rows over data x fsdp."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), rows)


def fetch(array: jax.Array) -> np.ndarray:
    """The whole array as NumPy in every process, however it is sharded."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def check_batch(batch_size: int, mesh: Mesh, *, parts: int = 1) -> None:
    """InputError unless each of `parts` equal parts of the batch splits evenly over data x fsdp."""
    num_shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (num_shards * parts):
        cut = f" in {parts} parts" if parts > 1 else ""
        raise InputError(
            f"batch size {batch_size}{cut} does not split over {num_shards} devices (data x fsdp); take a multiple of "
            f"{num_shards * parts}"
        )
