"""Zebra puzzles as a tfds dataset. Importing this imports tfds; `zebra` alone does not."""

import os
from collections.abc import Iterator

import tensorflow_datasets as tfds

from mdm_jax.data import builders
from mdm_jax.data.base import DataConfig, Generated, Records
from mdm_jax.data.checks import Split
from mdm_jax.data.difficulty import check_difficulty
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra.clues import CELLS, STRIDE, Size, check_sizes
from mdm_jax.tasks.zebra.sets import RULES_VERSION, generate_ordered


class ZebraConfig(DataConfig):
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
        sizes = ["x".join(map(str, size)) for size in dict.fromkeys((self.smallest, self.largest))]
        super().__init__(
            "-to-".join(sizes),
            *([difficulty] if difficulty else []),
            inputs=(zebra.GENERATOR_VERSION, RULES_VERSION, *smallest, *largest, difficulty, seed),
            num_train=num_train,
            num_test=num_test,
        )


class Zebra(Generated, skip_registration=True):  # type: ignore[call-arg]
    """Zebra puzzles with one solution, and the order in which deduction fills in the cells (`deduction`)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "clues, solution, order"}  # noqa: RUF012

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each field."""
        return {"clues": (self.builder_config.largest.max_clues, 4), "solution": (CELLS,), "order": (CELLS,)}

    def chunks(self, split: Split, num: int) -> Iterator[Records]:
        """The records of a split, some at a time."""
        fields = {name: getattr(self.builder_config, name) for name in ("smallest", "largest", "difficulty", "seed")}
        return generate_ordered(num, split=split, **fields)


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
