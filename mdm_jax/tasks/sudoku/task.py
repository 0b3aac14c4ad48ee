"""Sudoku as a task: generated puzzles, or those of a file."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records, Say, Split, silent
from mdm_jax.data.difficulty import check_difficulty
from mdm_jax.errors import InputError
from mdm_jax.files import read_bytes
from mdm_jax.report.board import Board, View
from mdm_jax.tasks.base import Answers, Generated, Scores
from mdm_jax.tasks.sudoku import files, layouts, public_lists
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.sets import RATING_VERSION, generate_rated, read_rated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sudoku(Generated):
    """A set of puzzles with one solution each. Records hold `puzzle`, `solution`, and `order` and `rule` of `Rating`.

    Attributes:
      size: 4, 6 or 9.
      clues: the exact number of givens, or None for minimal puzzles.
      difficulty: "normal" for puzzles that the seven rules solve, "hard" for the others, None for both.
      num_train: the number of puzzles to train on.
      num_test: the number of held-out puzzles. Their solutions differ from those of training puzzles, and at 9x9 also
        up to symmetries.
      seed: the seed of `puzzle.generate`.
      source: a file to take puzzles from, in its order; None generates puzzles.
    """

    size: int = 9
    clues: int | None = None
    difficulty: str | None = None
    num_train: int
    num_test: int
    seed: int = 0
    source: str | os.PathLike[str] | None = None

    name: ClassVar[str] = "sudoku"
    version: ClassVar[str] = "2.0.0"
    metric: ClassVar[str] = "solved"
    temperature: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        self.check_nums()
        sudoku.check_clues(self.clues, sudoku.check_size(self.size))
        check_difficulty(self.difficulty)
        if self.source is not None and self.clues is not None:
            raise InputError(
                f"clues={self.clues} is for generated puzzles: leave it out, or leave out the file {self.source}"
            )

    @property
    def title(self) -> str:
        """The name of the set in results, such as normal, 6x6-hard, or puzzles.txt-hard of a file."""
        place = f"{self.size}x{self.size}" if self.source is None else pathlib.Path(self.source).name
        named = (None if place == "9x9" and self.difficulty else place, self.difficulty)
        return "-".join(filter(None, named))

    @property
    def layouts(self) -> Mapping[str, layouts.Layout]:
        """All layouts, for grids of the size."""
        return {name: layouts.get(name, self.size) for name in layouts.LAYOUTS}

    @property
    def dataset(self) -> str:
        """The name on disk, such as `9x9-normal-0123456789ab`. It depends on the content of a file, not on its name."""
        made_from = self.seed if self.source is None else read_bytes(self.source)
        options = self.size, self.clues, self.difficulty
        words = [str(word) for word in ("file" if self.source else None, *options[1:]) if word] or ["minimal"]
        lists = (read_bytes(public_lists.FILE),) if self.size == 9 else ()
        inputs = (sudoku.GENERATOR_VERSION, RATING_VERSION, *options, made_from, *lists)
        return self.named(f"{self.size}x{self.size}", *words, inputs=inputs)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each field: a number for each cell."""
        return dict.fromkeys(("puzzle", "solution", "order", "rule"), (self.size**2,))

    def chunks(self, split: Split, num: int, say: Say) -> Iterator[Records]:
        """Yields the first puzzles of a split. `say` receives the line that says how a file was read."""
        options: dict[str, Any] = {"size": self.size, "difficulty": self.difficulty, "split": split}
        if self.source is None:
            yield from generate_rated(num, clues=self.clues, seed=self.seed, **options)
        else:
            yield read_rated(self.source, num, on_read=say, **options)

    def prepare(self, data_dir: str | os.PathLike[str], *, say: Say = silent) -> Any:
        """As `Generated.prepare`, but `say` receives a line once, although a file is read for each split."""
        return super().prepare(data_dir, say=functools.cache(say))

    def statistics(self, records: Records) -> dict[str, float]:
        """Givens per puzzle, and the share of puzzles that the seven rules solve."""
        givens = (records["puzzle"] != 0).sum(axis=1)
        return {
            "givens": float(givens.mean()),
            "solved_by_rules": float((records["order"] >= 0).all(axis=1).mean()),
        }

    def score(self, answers: Answers, records: Records) -> Scores:
        """Whether each grid solves its puzzle, and which blank cells are as in the solution."""
        puzzles = records["puzzle"]
        cells = np.where(puzzles == 0, answers == records["solution"], np.nan)
        return {"solved": sudoku.is_solved(answers, puzzles), "cells": cells}

    def show(self, answer: NDArray[Any], steps: NDArray[Any], record: Mapping[str, Any]) -> str:
        """Formats the verdict, the grid, and the step of each cell, from 1."""
        wrong = int((answer != record["solution"]).sum())
        is_right = sudoku.is_solved(answer[None], record["puzzle"][None])[0]
        verdict = "solved" if is_right else f"not solved, {wrong} cells wrong"
        cells = ["." if step < 0 else str(step + 1) for step in steps]
        rows = (cells[i : i + self.size] for i in range(0, len(cells), self.size))
        drawn = "\n".join(" ".join(cell.rjust(2) for cell in row) for row in rows)
        return f"{verdict}\n{files.format_grid(answer, self.size)}\nfilled in at step (. = given):\n{drawn}\n"

    def view(self, record: Mapping[str, Any]) -> View:
        """The grid, with lines around boxes."""
        digits = ["", *map(str, range(1, self.size + 1))]
        solution = np.where(record["solution"] > 0, record["solution"], -1)
        board = Board.grid(self.size, self.size, box=sudoku.BOXES[self.size])
        return View(board, digits, 0, lambda answer: solution, record.get("order"), _peers(self.size))


@functools.cache
def _peers(size: int) -> NDArray[np.bool_]:
    """Which pairs of different cells share a row, a column or a box, bool [size², size²]."""
    units = sudoku.units_of_cells(size)
    related = (units[:, None] == units[None]).any(axis=-1) & ~np.eye(size**2, dtype=bool)
    related.flags.writeable = False
    return related
