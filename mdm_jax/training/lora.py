"""Low-rank adapters: of a network's matrices only a change of low rank is trained.

    W' = W + (α / r) a b,    W [in, out] fixed, a [in, r], b [r, out]

The network is given W' and knows nothing of it, so that every kind of network can be adapted. The gradient and the
optimizer's state are those of a and b alone, and so is what a checkpoint holds. Source: Hu et al. 2021
(arXiv:2106.09685).
"""

import dataclasses
import functools
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.errors import InputError
from mdm_jax.ranges import Count, Positive, check_ranges
from mdm_jax.training.digest import digest
from mdm_jax.typing import Array, Params

ADAPTED = r"(.*/)?(attention|mlp)/.*kernel"
"""The names of the matrices that are adapted: all of attention and of the MLPs."""


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters of one network.

    Attributes:
      base: the network whose parameters stay as they are, by what `mdm_jax.load` takes: a folder, or a name.
      rank: r.
      alpha: α; the changes grow with α / r, so that one learning rate serves all ranks.
    """

    base: str
    rank: Count = 8
    alpha: Positive = 16.0

    def __post_init__(self) -> None:
        check_ranges(self)

    def init(self, base: Params, key: Array) -> Params:
        """Fresh adapters of parameters (or shapes), float32: a ~ N(0, 1 / in), b = 0. The key is consumed.

        They are nested as the parameters are, with {"a", "b"} in place of an adapted matrix.

        Raises:
          InputError: the network has no matrix with such a name.
        """
        adapters: dict[str, Any] = {}
        names = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in _leaves(base)}
        adapted = {name: x for name, x in names.items() if x.ndim == 2 and re.fullmatch(ADAPTED, name)}
        if not adapted:
            raise InputError(
                f"no parameter of this network can be adapted: none is a matrix whose name matches {ADAPTED}; "
                "train it whole"
            )
        keys = jax.random.split(key, len(adapted))
        for own, (name, leaf) in zip(keys, adapted.items(), strict=True):
            *groups, last = name.split("/")
            inner = adapters
            for group in groups:
                inner = inner.setdefault(group, {})
            size_in, size_out = leaf.shape
            a = jax.random.normal(own, (size_in, self.rank)) / math.sqrt(size_in)
            inner[last] = {"a": a, "b": jnp.zeros((self.rank, size_out))}
        return adapters

    def merge(self, base: Params, adapters: Params) -> Params:
        """The network's parameters, in the dtypes of `base`."""
        scale = self.alpha / self.rank

        def merged(old: Any, change: Any) -> Any:
            if isinstance(old, Mapping):
                return {name: merged(x, change[name]) if name in change else x for name, x in old.items()}
            delta = jnp.matmul(change["a"], change["b"], precision="highest")
            return (old.astype(jnp.float32) + scale * delta).astype(old.dtype)

        params: Params = merged(base, adapters)
        return params

    def merged(self, base: Params, adapters: Params) -> Params:
        """`merge` on the devices, each parameter where that of the base lies."""
        places, structure = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.sharding, base))
        params: Params = _merging(self, tuple(places), structure)(base, adapters)
        return params

    def to_json(self, base: Params) -> dict[str, Any]:
        """What config.json says of it: how to find the base, and how to know it."""
        return {**dataclasses.asdict(self), "digest": _fingerprint(base)}

    def check(self, base: Params, recorded: Mapping[str, Any]) -> None:
        """InputError unless `base` is what adapters were trained on, by what config.json says."""
        if _fingerprint(base) != recorded["digest"]:
            raise InputError(
                f"{self.base} has other parameters than those that the adapters were trained on: put the old ones there"
            )


@functools.cache
def _merging(lora: Lora, places: tuple[Any, ...], structure: Any) -> Callable[[Params, Params], Params]:
    """`merge`, compiled once for each layout of the base."""
    return jax.jit(lora.merge, out_shardings=jax.tree.unflatten(structure, places))


def from_json(recorded: Mapping[str, Any]) -> Lora:
    """The inverse of `to_json`, but for the digest."""
    known = [field.name for field in dataclasses.fields(Lora)]
    if sorted(recorded) != sorted([*known, "digest"]) or not isinstance(recorded["base"], str):
        raise InputError(f"adapters are described by {', '.join(known)} and digest; got {', '.join(sorted(recorded))}")
    return Lora(**{name: recorded[name] for name in known})


def _leaves(params: Params) -> list[tuple[tuple[Any, ...], Any]]:
    return jax.tree_util.tree_leaves_with_path(params)


def _fingerprint(params: Params) -> int:
    """A number that differs where any parameter does, but for a chance of 2^-32."""
    return zlib.crc32(json.dumps(digest(params), sort_keys=True).encode())
