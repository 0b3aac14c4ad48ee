"""Any task's records as a tfds dataset. Importing this imports tfds."""

import functools
import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from mdm_jax.data import builders
from mdm_jax.data.checks import Records, Say, Split


class Source(Protocol):
    """What a dataset is written from; see `mdm_jax.tasks.base.Generated`."""

    @property
    def name(self) -> str:
        """The first folder: the kind of data."""
        ...

    @property
    def dataset(self) -> str:
        """The second folder. It changes with every input."""
        ...

    @property
    def version(self) -> str:
        """The third folder: the version of the fields."""
        ...

    @property
    def num_train(self) -> int:
        """The number of records to train on."""
        ...

    @property
    def num_test(self) -> int:
        """The number of records held out."""
        ...

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each field of a record."""
        ...

    def chunks(self, split: Split, num: int, say: Say) -> Iterator[Records]:
        """The first `num` records of a split, some at a time: int8 fields `[some, ...]`."""
        ...


class Config(tfds.core.BuilderConfig):
    """Holds what a dataset is written from."""

    def __init__(self, source: Source, say: Say) -> None:
        self.source, self.say = source, say
        super().__init__(name=source.dataset)


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Records of int8 fields in two splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        fields = {
            name: tfds.features.Tensor(shape=shape, dtype=np.int8, encoding="bytes")
            for name, shape in self.builder_config.source.shapes().items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.name}: {', '.join(fields)}",
            features=tfds.features.FeaturesDict(fields),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Records]]]:
        del dl_manager  # nothing is downloaded
        source = self.builder_config.source
        return {
            "train": self._generate_examples("train", source.num_train),
            "test": self._generate_examples("test", source.num_test),
        }

    def _generate_examples(self, split: Split, num: int) -> Iterator[tuple[int, Records]]:
        config = self.builder_config
        return builders.numbered(config.source.chunks(split, num, config.say), num, f"{split} records")


@functools.cache
def builder_class(name: str, version: str) -> Any:
    """The builder of a kind of data: tfds takes the name and the version from the class."""
    body = {"name": name, "VERSION": tfds.core.Version(version), "RELEASE_NOTES": {}, "__module__": __name__}
    return type(name, (Builder,), body, skip_registration=True)


def prepare(source: Source, data_dir: str | os.PathLike[str], say: Say) -> tfds.core.GeneratorBasedBuilder:
    """Writes a dataset unless it is there already.

    Args:
      source: what to write.
      data_dir: the folder of all datasets.
      say: gets lines for the user.

    Returns:
      The prepared builder, for `builders.read_split`.

    Raises:
      InputError: as `builders.prepare`.
    """
    return builders.prepare(builder_class(source.name, source.version), Config(source, say), data_dir)
