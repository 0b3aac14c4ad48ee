"""Zebra as a task."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records, Say, Split
from mdm_jax.data.difficulty import check_difficulty
from mdm_jax.report.board import Board, View
from mdm_jax.tasks.base import Answers, Generated, Scores
from mdm_jax.tasks.zebra import layouts
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra.clues import CELLS, STRIDE, Size, check_sizes, sizes_of
from mdm_jax.tasks.zebra.english import NAMES, Attribute
from mdm_jax.tasks.zebra.sets import RULES_VERSION, generate_ordered
from mdm_jax.tasks.zebra.tokens import clue_tokens

AT_ONCE = 4096
"""Puzzles whose tokens are in memory together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zebra(Generated):
    """A set of puzzles with one solution each. Records hold `clues`, `solution`, and `order` of `deduction.Deduction`.

    Attributes:
      min_houses: the smallest number of houses, from 3.
      max_houses: the largest number of houses, up to 6.
      min_attributes: the smallest number of attributes, from 3.
      max_attributes: the largest number of attributes, up to 6.
      difficulty: "normal" for puzzles that deduction solves, "hard" for the others, None for both.
      num_train: the number of puzzles to train on.
      num_test: the number of held-out puzzles. They differ from training puzzles, also up to names, order and
        direction.
      seed: the seed of `puzzle.generate`.
    """

    min_houses: int = 3
    max_houses: int = STRIDE
    min_attributes: int = 3
    max_attributes: int = STRIDE
    difficulty: str | None = None
    num_train: int
    num_test: int
    seed: int = 0

    name: ClassVar[str] = "zebra"
    metric: ClassVar[str] = "solved"
    temperature: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        self.check_nums()
        check_sizes(self.smallest, self.largest)
        check_difficulty(self.difficulty)

    @property
    def smallest(self) -> Size:
        """The smallest numbers of houses and attributes."""
        return Size(self.min_houses, self.min_attributes)

    @property
    def largest(self) -> Size:
        """The largest numbers of houses and attributes."""
        return Size(self.max_houses, self.max_attributes)

    @property
    def title(self) -> str:
        """The name of the set in results, such as 3x3-to-4x4-hard: houses x attributes."""
        return "-".join(filter(None, (self._sizes, self.difficulty)))

    @property
    def _sizes(self) -> str:
        return "-to-".join(dict.fromkeys(size_name(*size) for size in (self.smallest, self.largest)))

    @property
    def layouts(self) -> Mapping[str, layouts.Layout]:
        """All layouts, for puzzles up to the largest size."""
        return {name: layouts.get(name, self.largest) for name in layouts.LAYOUTS}

    @property
    def dataset(self) -> str:
        """The name on disk, such as `3x3-to-6x6-0123456789ab`."""
        options = (*self.smallest, *self.largest, self.difficulty, self.seed)
        words = [self.difficulty] if self.difficulty else []
        return self.named(self._sizes, *words, inputs=(zebra.GENERATOR_VERSION, RULES_VERSION, *options))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each field."""
        return {"clues": (self.largest.max_clues, 4), "solution": (CELLS,), "order": (CELLS,)}

    def chunks(self, split: Split, num: int, say: Say) -> Iterator[Records]:
        """Yields the first puzzles of a split."""
        del say
        sizes = {"smallest": self.smallest, "largest": self.largest}
        return generate_ordered(num, split=split, difficulty=self.difficulty, seed=self.seed, **sizes)

    def statistics(self, records: Records) -> dict[str, float]:
        """Clues and tokens per puzzle, and the share of puzzles that deduction solves."""
        parts = (records["clues"][i : i + AT_ONCE] for i in range(0, len(records["clues"]), AT_ONCE))
        return {
            "clues": float((records["clues"][:, :, 0] >= 0).sum(axis=1).mean()),
            "tokens": sum(int(clue_tokens(part)[1].sum()) for part in parts) / len(records["clues"]),
            "solved_by_deduction": float((records["order"] >= 0).all(axis=1).mean()),
        }

    def score(self, answers: Answers, records: Records) -> Scores:
        """Whether each grid solves its puzzle, and which cells are as in the solution."""
        solutions = records["solution"]
        cells = np.where(solutions >= 0, answers == solutions, np.nan)
        return {"solved": zebra.is_solved(answers, records["clues"]), "cells": cells}

    def show(
        self,
        answer: NDArray[Any],
        steps: NDArray[Any],
        record: Mapping[str, Any],
        *,
        names: Sequence[Attribute] = NAMES,
    ) -> str:
        """Formats the verdict, and the grid with the step of each cell, from 1.

        Args:
          answer: int `[36]`.
          steps: int `[36]`.
          record: the puzzle.
          names: the names of attributes and values.
        """
        wrong = int((answer != record["solution"]).sum())
        is_right = zebra.is_solved(answer[None], record["clues"][None])[0]
        head = "right" if is_right else f"{wrong} cells wrong"
        head += ". Behind each value the step at which it was filled in" + ("; ? marks the wrong ones" if wrong else "")
        return f"{head}\n{grid_table(record, answer, steps + 1, names)}\n"

    def view(self, record: Mapping[str, Any], *, names: Sequence[Attribute] = NAMES) -> View:
        """The grid: a line for each house, a column for each attribute."""
        houses, attributes = (int(number[0]) for number in sizes_of(record["clues"][None]))

        def pieces(answer: NDArray[Any]) -> list[str]:
            return [
                names[cell // STRIDE].values[value] if value >= 0 and cell in shown else ""
                for cell, value in enumerate(answer.tolist())
            ]

        cells = np.arange(CELLS).reshape(STRIDE, STRIDE).T[:houses, :attributes]
        shown = set(cells.ravel().tolist())
        board = Board(
            cells=cells,
            rows=[f"house {house + 1}" for house in range(houses)],
            columns=[names[attribute].name for attribute in range(attributes)],
        )
        return View(board, pieces, -1, lambda answer: record["solution"], record.get("order"))


def size_name(houses: int, attributes: int) -> str:
    """The name of a size in results."""
    return f"{houses}x{attributes}"


def grid_table(
    record: Mapping[str, Any], grid: NDArray[Any], steps: NDArray[Any], names: Sequence[Attribute] = NAMES
) -> str:
    """Formats a grid: a line for each house, a column for each attribute, "?" for wrong values and "-" for none.

    Args:
      record: the puzzle.
      grid: int `[36]`, the answer.
      steps: int `[36]`, a number for each cell.
      names: the names of attributes and values.
    """
    houses, attributes = (int(number[0]) for number in sizes_of(record["clues"][None]))

    def cell(attribute: int, house: int) -> str:
        index = STRIDE * attribute + house
        value = int(grid[index])
        if not 0 <= value < houses:
            return "- ?"  # another house has two values
        text = f"{names[attribute].values[value]} {steps[index]}"
        return text if value == record["solution"][index] else f"{text} ?"

    rows = [["house", *(names[a].name for a in range(attributes))]]
    rows += [[str(house + 1), *(cell(a, house) for a in range(attributes))] for house in range(houses)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = [
        "  ".join(
            [row[0].rjust(widths[0]), *(word.ljust(width) for word, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
    return "\n".join([texts[0], re.sub(r"\S| (?=\S)", "-", texts[0]), *texts[1:]])
