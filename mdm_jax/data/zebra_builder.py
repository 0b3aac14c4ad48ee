"""Zebra puzzles as a tfds dataset. Importing this imports tfds; `zebra` alone does not."""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from mdm_jax.data import builders, zebra
from mdm_jax.data.difficulty import check_difficulty
from mdm_jax.data.zebra_clues import CELLS, STRIDE, Size, check_sizes
from mdm_jax.data.zebra_sets import RULES_VERSION, Records, generate_ordered
from mdm_jax.errors import InputError


class ZebraConfig(tfds.core.BuilderConfig):
    """Which puzzles a dataset holds; its name, such as `3x3-to-6x6-0123456789ab`, changes with every one of them.

    Attributes:
        smallest: The fewest houses and attributes.
        largest: The most.
        difficulty: "normal" for puzzles that deduction solves, "hard" for the others, None for all.
        num_train: The number of puzzles to train on.
        num_test: The number of puzzles to test on; none is among those of the train split, nor is one that differs in
            names, order or direction only.
        seed: The seed of `zebra.generate`.
    """

    def __init__(
        self,
        *,
        smallest: Size,
        largest: Size,
        difficulty: str | None = None,
        num_train: int,
        num_test: int,
        seed: int = 0,
    ) -> None:
        self.smallest, self.largest = check_sizes(smallest, largest)
        self.difficulty, self.seed = check_difficulty(difficulty), seed
        if num_train < 1 or num_test < 1:
            raise InputError(f"num_train={num_train} and num_test={num_test}: give each at least 1")
        self.num_train, self.num_test = num_train, num_test
        digest = builders.digest(
            zebra.GENERATOR_VERSION, RULES_VERSION, *smallest, *largest, difficulty, num_train, num_test, seed
        )
        sizes = ["x".join(map(str, size)) for size in dict.fromkeys((self.smallest, self.largest))]
        words = ["-to-".join(sizes), *([difficulty] if difficulty else []), digest]
        super().__init__(name="-".join(words))


class Zebra(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Puzzles with one solution, and the order in which deduction fills in the cells."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "clues, solution, order"}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        shapes = {"clues": (self.builder_config.largest.max_clues, 4), "solution": (CELLS,), "order": (CELLS,)}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Zebra puzzles with exactly one solution; as zebra_clues and zebra_deduction say.",
            features=tfds.features.FeaturesDict(
                {
                    name: tfds.features.Tensor(shape=shape, dtype=np.int8, encoding="bytes")
                    for name, shape in shapes.items()
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Records]]]:
        del dl_manager  # nothing is downloaded
        config = self.builder_config
        return {
            "train": self._generate_examples("train", config.num_train),
            "test": self._generate_examples("test", config.num_test),
        }

    def _generate_examples(self, split: zebra.Split, num: int) -> Iterator[tuple[int, Records]]:
        fields = {name: getattr(self.builder_config, name) for name in ("smallest", "largest", "difficulty", "seed")}
        return builders.numbered(generate_ordered(num, split=split, **fields), num, f"{split} puzzles")


def prepare_zebra(
    data_dir: str | os.PathLike[str],
    *,
    min_houses: int = 3,
    max_houses: int = STRIDE,
    min_attributes: int = 3,
    max_attributes: int = STRIDE,
    difficulty: str | None = None,
    num_train: int,
    num_test: int,
    seed: int = 0,
) -> Zebra:
    """Writes a dataset of generated puzzles unless it is there already.

    Args:
        data_dir: The folder of all datasets.
        min_houses: The fewest houses, from 3.
        max_houses: The most, up to 6.
        min_attributes: The fewest attributes, from 3.
        max_attributes: The most, up to 6.
        difficulty: "normal" for puzzles that deduction solves, "hard" for the others, None for all.
        num_train: The number of puzzles to train on.
        num_test: The number of puzzles to test on.
        seed: The seed.

    Returns:
        The prepared builder, with splits "train" and "test" of `clues` int8 `[max_houses * max_attributes, 4]`,
        `solution` and `order` int8 `[36]`; `builders.read_split` reads them.

    Raises:
        InputError: An argument is out of its range, or no puzzle of that difficulty turns up.
    """
    config = ZebraConfig(
        smallest=Size(min_houses, min_attributes),
        largest=Size(max_houses, max_attributes),
        difficulty=difficulty,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
    )
    return builders.prepare(Zebra, config, data_dir)
