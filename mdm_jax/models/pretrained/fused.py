"""Queries, keys and values that another program keeps in one tensor: taken apart, and put together again."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mdm_jax.models.config import TransformerConfig


@dataclasses.dataclass(frozen=True)
class Fused:
    """How they lie along one axis: all queries, then all keys, then all values; or so within each of several groups.

    Attributes:
      sizes: rows of queries, keys and values in all.
      groups: into how many equal groups they are divided.
    """

    sizes: tuple[int, int, int]
    groups: int

    def split(self, array: np.ndarray, axis: int) -> list[np.ndarray]:
        """The three."""
        ends = np.cumsum(self.sizes)[:-1] // self.groups
        return [_flat(piece, axis) for piece in np.split(self._grouped(array, axis), ends, axis + 1)]

    def join(self, arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
        """The inverse of `split`."""
        return _flat(np.concatenate([self._grouped(array, axis) for array in arrays], axis + 1), axis)

    def _grouped(self, array: np.ndarray, axis: int) -> np.ndarray:
        shape = array.shape
        return array.reshape(*shape[:axis], self.groups, shape[axis] // self.groups, *shape[axis + 1 :])


def fused(config: TransformerConfig, *, interleaved: bool) -> Fused:
    """Of a model; `interleaved` says that each head of keys has its queries before it and its values behind it."""
    width = config.head_width
    sizes = (config.num_heads * width, config.kv_heads * width, config.kv_heads * width)
    return Fused(sizes, config.kv_heads if interleaved else 1)


def _flat(array: np.ndarray, axis: int) -> np.ndarray:
    return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])
