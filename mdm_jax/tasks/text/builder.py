"""Rows of tokens as a tfds dataset. Importing this imports tfds.

The builder writes shard by shard: tfds's other one sorts records, for which it holds all of a split in memory.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray

from mdm_jax.data import builders
from mdm_jax.data.checks import Records, Split
from mdm_jax.tasks import text

SHARD = 1 << 28
"""Bytes of a shard, about."""


class Config(tfds.core.BuilderConfig):
    """The name of a dataset, and what it is written from; none of it if it is there."""

    def __init__(
        self,
        name: str,
        *,
        length: int,
        dtype: str,
        counts: Mapping[Split, int] | None = None,
        rows: Callable[[Split], Iterator[NDArray[Any]]] = lambda split: iter(()),
    ) -> None:
        self.length, self.dtype, self.counts, self.rows = length, dtype, counts or {}, rows
        super().__init__(name=name)


class TextBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Rows `tokens` [L] in two splits."""

    name = "text"
    VERSION = tfds.core.Version(text.VERSION)
    RELEASE_NOTES: Mapping[str, str] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        tokens = tfds.features.Tensor(shape=(config.length,), dtype=np.dtype(config.dtype), encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self, description="rows of tokens", features=tfds.features.FeaturesDict({"tokens": tokens})
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Sequence[Callable[[], Iterator[tuple[int, Records]]]]]:
        del dl_manager  # nothing is downloaded
        return {split: self._shards(split, count) for split, count in self.builder_config.counts.items()}

    def _shards(self, split: Split, count: int) -> list[Callable[[], Iterator[tuple[int, Records]]]]:
        """The shards of a split, which are written one after the other."""
        config = self.builder_config
        size = max(1, SHARD // (config.length * np.dtype(config.dtype).itemsize))
        chunks = ({"tokens": rows} for rows in config.rows(split))
        records = builders.numbered(chunks, count, f"{split} rows")
        return [functools.partial(itertools.islice, records, size) for _ in range(-(-count // size))]


def prepare(data_dir: str | os.PathLike[str], config: Config) -> tfds.core.DatasetBuilder:
    """Writes the dataset if it is not there yet; InputError as `builders.prepare`."""
    return builders.prepare(TextBuilder, config, data_dir)
