"""Sudokus as a tfds dataset, generated or read from a file. Importing this imports tfds; `sudoku` alone does not."""

import os
from collections.abc import Callable, Iterator

import tensorflow_datasets as tfds

from mdm_jax.data import builders
from mdm_jax.data.base import DataConfig, Generated, Records
from mdm_jax.data.checks import Split
from mdm_jax.data.difficulty import check_difficulty
from mdm_jax.errors import InputError
from mdm_jax.files import read_bytes
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.sets import RATING_VERSION, generate_rated, read_rated


class SudokuConfig(DataConfig):
    """Which puzzles a dataset holds; its name, such as `9x9-normal-0123456789ab`, changes with every one of them.

    Attributes:
        size: 4, 6 or 9.
        clues: The exact number of givens, or None for minimal puzzles.
        difficulty: "normal" for puzzles that the seven rules solve, "hard" for the others, None for all.
        num_train: The number of puzzles to train on.
        num_test: The number of puzzles to test on; none has its solution among those of the train split, nor at 9x9 one
            that a symmetry turns into it.
        seed: The seed of `sudoku.generate`.
        source: A file of puzzles to take instead, in its order, from the first; None generates.
        on_read: What to call with the line that says how that file was read; no part of the name.
    """

    def __init__(
        self,
        *,
        size: int = 9,
        clues: int | None = None,
        difficulty: str | None = None,
        num_train: int,
        num_test: int,
        seed: int = 0,
        source: str | os.PathLike[str] | None = None,
        on_read: Callable[[str], object] | None = None,
    ) -> None:
        sudoku.check_clues(clues, sudoku.check_size(size))
        check_difficulty(difficulty)
        if source is not None and clues is not None:
            raise InputError(f"clues={clues} is for generated puzzles: leave it out, or leave out the file {source}")
        self.on_read = on_read
        self.size, self.clues, self.difficulty, self.seed, self.source = size, clues, difficulty, seed, source
        words = [str(word) for word in ("file" if source else None, clues, difficulty) if word] or ["minimal"]
        made_from = seed if source is None else read_bytes(source)
        super().__init__(
            f"{size}x{size}",
            *words,
            inputs=(sudoku.GENERATOR_VERSION, RATING_VERSION, size, clues, difficulty, made_from),
            num_train=num_train,
            num_test=num_test,
        )


class Sudoku(Generated, skip_registration=True):  # type: ignore[call-arg]
    """Sudokus with exactly one solution; row-major, 0 = blank; order and rule as in `rules.Rating`."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {"2.0.0": "puzzle, solution, order, rule"}  # noqa: RUF012

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each field."""
        return dict.fromkeys(("puzzle", "solution", "order", "rule"), (self.builder_config.size**2,))

    def chunks(self, split: Split, num: int) -> Iterator[Records]:
        """The records of a split, some at a time."""
        config = self.builder_config
        fields = {name: getattr(config, name) for name in ("size", "difficulty")}
        if config.source is None:
            yield from generate_rated(num, clues=config.clues, seed=config.seed, split=split, **fields)
        else:
            on_read = config.on_read if split == "train" else None  # once is enough
            yield read_rated(config.source, num, split=split, on_read=on_read, **fields)


def prepare_sudoku(
    data_dir: str | os.PathLike[str],
    *,
    size: int = 9,
    clues: int | None = None,
    difficulty: str | None = None,
    num_train: int,
    num_test: int,
    seed: int = 0,
    source: str | os.PathLike[str] | None = None,
    on_read: Callable[[str], object] | None = None,
) -> Sudoku:
    """Writes a dataset of puzzles, generated or from a file, unless it is there already.

    Args:
        data_dir: The folder of all datasets.
        size: 4, 6 or 9.
        clues: The exact number of givens, or None for minimal puzzles.
        difficulty: "normal" for puzzles that the seven rules solve, "hard" for the others, None for all.
        num_train: The number of puzzles to train on.
        num_test: The number of puzzles to test on.
        seed: The seed.
        source: A file as `files.read_puzzles` reads it, to take puzzles from instead of making them.
        on_read: What to call with the line that says how that file was read, if it has to be.

    Returns:
        The prepared builder, with splits "train" and "test" of `puzzle`, `solution`, `order` and `rule`, int8
        `[size * size]` each; `builders.read_split` reads them.

    Raises:
        InputError: An argument is out of its range, the file is not right or has too few puzzles; see
            `sudoku.generate`.
    """
    config = SudokuConfig(
        size=size,
        clues=clues,
        difficulty=difficulty,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        source=source,
        on_read=on_read,
    )
    return builders.prepare(Sudoku, config, data_dir)
