"""The base of every tfds dataset here: named by a digest, two splits, fields of int8. Importing this imports tfds."""

import abc
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray

from mdm_jax.data import builders
from mdm_jax.data.checks import Split
from mdm_jax.errors import InputError

Records = Mapping[str, NDArray[Any]]


class DataConfig(tfds.core.BuilderConfig):
    """Which data a dataset holds; its name ends in a digest of every input.

    Attributes:
        num_train: The number of records to train on.
        num_test: The number of records held out.
    """

    def __init__(
        self, *words: str | int, inputs: tuple[bytes | str | int | None, ...], num_train: int, num_test: int
    ) -> None:
        """Names it.

        Args:
            *words: What the name begins with.
            inputs: All else that the data follow from: options, seed, the generator's version, whole files.
            num_train: The number of records to train on.
            num_test: The number of records held out.

        Raises:
            InputError: A split would be empty.
        """
        if num_train < 1 or num_test < 1:
            raise InputError(f"num_train={num_train} and num_test={num_test}: give each at least 1")
        self.num_train, self.num_test = num_train, num_test
        super().__init__(name="-".join(map(str, (*words, builders.digest(*inputs, num_train, num_test)))))


class Generated(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Records of int8 fields in two splits, made some at a time."""

    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each field."""

    @abc.abstractmethod
    def chunks(self, split: Split, num: int) -> Iterator[Records]:
        """The records of a split, some at a time: fields int8 `[some, ...]`."""

    def _info(self) -> tfds.core.DatasetInfo:
        fields = {
            name: tfds.features.Tensor(shape=shape, dtype=np.int8, encoding="bytes")
            for name, shape in self.shapes().items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.getdoc(type(self)),
            features=tfds.features.FeaturesDict(fields),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Records]]]:
        del dl_manager  # nothing is downloaded
        config = self.builder_config
        return {
            "train": self._generate_examples("train", config.num_train),
            "test": self._generate_examples("test", config.num_test),
        }

    def _generate_examples(self, split: Split, num: int) -> Iterator[tuple[int, Records]]:
        return builders.numbered(self.chunks(split, num), num, f"{split} records")
