"""Generated Sudokus as a tfds dataset. Importing this imports tfds; `sudoku` alone does not."""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from tqdm import tqdm

from mdm_jax.data import builders, sudoku
from mdm_jax.errors import InputError

_CHUNK = 8192


class SudokuConfig(tfds.core.BuilderConfig):
    """Which puzzles a dataset holds; its name, such as `9x9-minimal-0123456789ab`, changes with every one of them.

    Attributes:
        size: 4, 6 or 9.
        clues: The exact number of givens, or None for minimal puzzles.
        num_train: The number of puzzles to train on.
        num_test: The number of puzzles to test on; none has its solution among those of the train split.
        seed: The seed of `sudoku.generate`.
    """

    def __init__(
        self, *, size: int = 9, clues: int | None = None, num_train: int, num_test: int, seed: int = 0
    ) -> None:
        sudoku.check_clues(clues, sudoku.check_size(size))
        if num_train < 1 or num_test < 1:
            raise InputError(f"num_train={num_train} and num_test={num_test}: give each at least 1")
        self.size, self.clues, self.num_train, self.num_test, self.seed = size, clues, num_train, num_test, seed
        inputs = builders.digest(sudoku.GENERATOR_VERSION, size, clues, num_train, num_test, seed)
        super().__init__(name=f"{size}x{size}-{'minimal' if clues is None else clues}-{inputs}")


class Sudoku(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Puzzles with one solution, from `sudoku.generate`; `train` and `test` never share a solution."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "puzzle and solution"}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        cells = tfds.features.Tensor(shape=(self.builder_config.size**2,), dtype=np.int8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Random Sudokus with exactly one solution; row-major, 0 = blank.",
            features=tfds.features.FeaturesDict({"puzzle": cells, "solution": cells}),
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, NDArray[np.int8]]]]]:
        del dl_manager  # nothing is downloaded
        return {
            "train": self._generate_examples("train", self.builder_config.num_train),
            "test": self._generate_examples("test", self.builder_config.num_test),
        }

    def _generate_examples(self, split: sudoku.Split, num: int) -> Iterator[tuple[int, dict[str, NDArray[np.int8]]]]:
        config = self.builder_config
        bar = tqdm(total=num, desc=f"{split} puzzles", unit="", unit_scale=True, leave=False, dynamic_ncols=True)
        for first in range(0, num, _CHUNK):
            puzzles, solutions = sudoku.generate(
                min(_CHUNK, num - first),
                size=config.size,
                clues=config.clues,
                seed=config.seed,
                split=split,
                first=first,
            )
            for i, (puzzle, solution) in enumerate(zip(puzzles, solutions, strict=True), start=first):
                yield i, {"puzzle": puzzle, "solution": solution}
            bar.update(len(puzzles))
        bar.close()


def prepare_sudoku(
    data_dir: str | os.PathLike[str],
    *,
    size: int = 9,
    clues: int | None = None,
    num_train: int,
    num_test: int,
    seed: int = 0,
) -> Sudoku:
    """Generates a dataset of puzzles and writes it, unless it is there already.

    Args:
        data_dir: The folder of all datasets.
        size: 4, 6 or 9.
        clues: The exact number of givens, or None for minimal puzzles.
        num_train: The number of puzzles to train on.
        num_test: The number of puzzles to test on.
        seed: The seed.

    Returns:
        The prepared builder, with splits "train" and "test" of `puzzle` and `solution`, int8 `[size * size]` each;
        `builders.read_split` reads them.

    Raises:
        InputError: An argument is out of its range; see `sudoku.generate`.
    """
    config = SudokuConfig(size=size, clues=clues, num_train=num_train, num_test=num_test, seed=seed)
    return builders.prepare(Sudoku, config, data_dir)
