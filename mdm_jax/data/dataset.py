"""The records of any task as a tfds dataset. Importing this imports tfds."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mdm_jax.data import builders
from mdm_jax.data.checks import Records, Split

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each field of a record."""
Chunks = Callable[[Split, int], Iterator[Records]]
"""(split, number of records) -> the records in chunks: int8 fields [chunk, ...]."""


class Config(tfds.core.BuilderConfig):
    """The name of a dataset, and what it is written from."""

    def __init__(self, name: str, shapes: Shapes, splits: Mapping[Split, int], chunks: Chunks) -> None:
        self.shapes, self.splits, self.chunks = shapes, splits, chunks
        super().__init__(name=name)


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Records of int8 fields in two splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        fields = {
            name: tfds.features.Tensor(shape=shape, dtype=np.int8, encoding="bytes")
            for name, shape in self.builder_config.shapes.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.name}: {', '.join(fields)}",
            features=tfds.features.FeaturesDict(fields),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Records]]]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split, num) for split, num in self.builder_config.splits.items()}

    def _generate_examples(self, split: Split, num: int) -> Iterator[tuple[int, Records]]:
        return builders.numbered(self.builder_config.chunks(split, num), num, f"{split} records")


@functools.cache
def builder_class(name: str, version: str) -> Any:
    """The builder class of a kind of data. tfds reads the name and the version from the class."""
    body = {"name": name, "VERSION": tfds.core.Version(version), "RELEASE_NOTES": {}, "__module__": __name__}
    return type(name, (Builder,), body, skip_registration=True)


def prepare(
    name: str,
    dataset: str,
    version: str,
    *,
    shapes: Shapes,
    splits: Mapping[Split, int],
    chunks: Chunks,
    data_dir: str | os.PathLike[str],
) -> tfds.core.GeneratorBasedBuilder:
    """Writes a dataset in `data_dir/name/dataset/version` if it is not there yet.

    Args:
      name: the kind of data.
      dataset: the name of the dataset, which changes with every input.
      version: the version of the fields.
      shapes: the shape of each field.
      splits: the number of records of each split.
      chunks: makes the records.
      data_dir: the folder of all datasets.

    Returns:
      The prepared builder, for `builders.read_split`.

    Raises:
      InputError: as `builders.prepare`.
    """
    return builders.prepare(builder_class(name, version), Config(dataset, shapes, splits, chunks), data_dir)
