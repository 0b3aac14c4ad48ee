"""The layouts of Sudokus as sequences of tokens. NumPy in, NumPy out.

A masked diffusion model fills in a puzzle in place, or writes the answer after the question. An autoregressive model
writes (row, column, digit) triples.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records, lookup
from mdm_jax.errors import InputError
from mdm_jax.tasks.base import Tokens
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.symmetry import random_symmetries


@dataclasses.dataclass(frozen=True)
class Masked:
    """The layout of a masked diffusion model.

    Attributes:
      name: the name in flags.
      in_place: whether the answer is written into the question. Otherwise the whole grid follows the question.
      vocab_size: V; None for the digits and the blank.
      mask_id: the mask token; in place it is the blank.
      zero: the token of digit 0, which is a blank of the question; digit d is `zero + d`.
      separator: the token between question and answer, if any.
      end: the token after the answer, if any; the model predicts it.
      shift_logits: whether the logits at position i - 1 predict token i.
      size: the size of the grids: 4, 6 or 9.
    """

    name: str
    in_place: bool = False
    vocab_size: int | None = None
    mask_id: int = 0
    zero: int = 0
    separator: int | None = None
    end: int | None = None
    shift_logits: bool = False
    size: int = 9

    method = "mdm"

    @property
    def num_tokens(self) -> int:
        """V."""
        return self.size + 1 if self.vocab_size is None else self.vocab_size

    @property
    def length(self) -> int:
        """L."""
        extra = sum(token is not None for token in (self.separator, self.end))
        return self.size**2 if self.in_place else 2 * self.size**2 + extra

    @property
    def network(self) -> Mapping[str, Any]:
        """The fields of the network's config that the sequences fix."""
        return _network(self, causal=False, shift_logits=self.shift_logits)

    def check(self, records: Records) -> None:
        """Accepts all records."""

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 `[num, L]` and `is_prompt` bool `[num, L]` to train on."""
        tokens = self._sequence(records["puzzle"], records["solution"].astype(np.int32) + self.zero, self.end)
        return {"tokens": tokens, "is_prompt": self.start(records) != self.mask_id}

    def start(self, records: Records) -> Tokens:
        """The sequences to fill in, int32 `[num, L]`."""
        puzzles = records["puzzle"]
        if self.in_place:
            return puzzles.astype(np.int32)
        masks = np.full(puzzles.shape, self.mask_id, np.int32)
        return self._sequence(puzzles, masks, None if self.end is None else self.mask_id)

    def answers(self, tokens: Tokens) -> NDArray[np.int8]:
        """The grids, int8 `[num, cells]`; 0 where a token is no digit."""
        digits = self.steps(tokens, tokens) - self.zero
        size = sudoku.size_of(digits.shape[1])
        return np.where((digits >= 0) & (digits <= size), digits, 0).astype(np.int8)

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """The values at the cells of the grid, `[num, cells]`, from values `[num, L]`."""
        del tokens
        if self.in_place:
            return values
        extra = self.separator is not None, self.end is not None
        num_cells = (values.shape[1] - sum(extra)) // 2
        return values[:, num_cells + extra[0] :][:, :num_cells]

    def symmetries(self, num: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draws symmetries of sequences, as for `tasks.base.Symmetric`."""
        cells, digits = random_symmetries(np.random.default_rng(seed), num, self.size)
        cells[0], digits[0] = np.arange(self.size**2), np.arange(self.size + 1)
        positions = np.tile(np.arange(self.length), (num, 1))
        for first in (0,) if self.in_place else (0, self.size**2 + (self.separator is not None)):
            positions[:, first : first + self.size**2] = first + cells
        tokens = np.tile(np.arange(self.num_tokens), (num, 1))
        tokens[:, self.zero : self.zero + self.size + 1] = self.zero + digits
        return positions, tokens

    def _sequence(self, puzzles: NDArray[np.int8], answer: Tokens, end: int | None) -> Tokens:
        if self.in_place:
            return answer
        columns = [puzzles.astype(np.int32) + self.zero, self.separator, answer, end]
        return np.concatenate(
            [
                np.full((len(puzzles), 1), column, np.int32) if isinstance(column, int) else column
                for column in columns
                if column is not None
            ],
            axis=1,
        )


@dataclasses.dataclass(frozen=True)
class Triples:
    """The layout of an autoregressive model: triples of each given, then of each blank (Shah et al. 2024).

    A triple is (row, column, digit). Rows and columns count from 0, and digit d is token d. Givens are in the order of
    the cells.

    Attributes:
      name: the name in flags.
      is_ordered: whether blanks are in the order in which the rules fill them in. Otherwise they are in the order of
        the cells.
      size: the size of the grids: 4, 6 or 9.
    """

    name: str
    is_ordered: bool
    size: int = 9

    mask_id = None

    @property
    def method(self) -> str:
        """The name of a model of this layout in results."""
        return "arm_ordered" if self.is_ordered else "arm"

    @property
    def num_tokens(self) -> int:
        """V: the digits, 0, and the padding token of Shah et al.'s files."""
        return self.size + 2

    @property
    def length(self) -> int:
        """L."""
        return 3 * self.size**2

    @property
    def network(self) -> Mapping[str, Any]:
        """The fields of the network's config that the sequences fix."""
        return _network(self, causal=True, shift_logits=False)

    def check(self, records: Records) -> None:
        """Raises InputError if the rules must order the blanks but do not solve a puzzle."""
        if self.is_ordered and (records["order"] < 0).any():
            raise InputError("the rules do not solve every puzzle, so blanks have no order: train on the normal set")

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 `[num, L]` and `is_prompt` bool `[num, L]` to train on; the givens are the prompt.

        Raises:
          InputError: as `check`.
        """
        self.check(records)
        is_given = records["puzzle"] != 0
        cells = np.argsort(records["order"] if self.is_ordered else ~is_given, axis=1, kind="stable")
        num_given = is_given.sum(axis=1)
        is_prompt = np.arange(3 * cells.shape[1])[None] < 3 * num_given[:, None]
        return {"tokens": _triples(cells, records["solution"]), "is_prompt": is_prompt}

    def start(self, records: Records) -> Tokens:
        """The givens as a prompt, int32 `[num, 3 * most givens]`; shorter prompts are padded with -1."""
        puzzles = records["puzzle"]
        num_given = (puzzles != 0).sum(axis=1)
        cells = np.argsort(puzzles == 0, axis=1, kind="stable")[:, : num_given.max(initial=1)]
        tokens = _triples(cells, puzzles)
        return np.where(np.arange(tokens.shape[1])[None] < 3 * num_given[:, None], tokens, -1)

    def answers(self, tokens: Tokens) -> NDArray[np.int8]:
        """The grids, int8 `[num, cells]`. Later triples overwrite earlier ones, and invalid ones are skipped."""
        return self._scatter(tokens, tokens[:, 2::3], 0).astype(np.int8)

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """The values at the digits, moved to their cells, `[num, cells]`, -1 elsewhere, from values `[num, L]`."""
        return self._scatter(tokens, values[:, 2::3], -1)

    def _scatter(self, tokens: Tokens, values: NDArray[Any], empty: int) -> NDArray[Any]:
        num_cells = tokens.shape[1] // 3
        size = sudoku.size_of(num_cells)
        rows, columns, digits = tokens[:, 0::3], tokens[:, 1::3], tokens[:, 2::3]
        is_cell = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size) & (digits >= 1) & (digits <= size)
        target = np.where(is_cell, rows * size + columns, num_cells)
        grid = np.full((len(tokens), num_cells + 1), empty, values.dtype)
        for triple in range(num_cells):  # in a loop, since an indexed assignment has no order
            grid[np.arange(len(tokens)), target[:, triple]] = values[:, triple]
        return grid[:, :-1]


def _triples(cells: NDArray[np.int64], digits: NDArray[np.int8]) -> Tokens:
    """Row, column and digit of cells `[num, k]`, as int32 `[num, 3 * k]`."""
    rows, columns = np.divmod(cells, sudoku.size_of(digits.shape[1]))
    triples = np.stack([rows, columns, np.take_along_axis(digits, cells, axis=1)], axis=2)
    return triples.reshape(len(cells), -1).astype(np.int32)


Layout = Masked | Triples


def _network(layout: Layout, **fields: bool) -> dict[str, Any]:
    return {"vocab_size": layout.num_tokens, "num_extra_tokens": 0, "max_length": layout.length, **fields}


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Masked("in-place", in_place=True),
        Masked("question-answer", vocab_size=11, mask_id=10),
        Masked("shifted", vocab_size=31, mask_id=2, zero=5, separator=1, end=3, shift_logits=True),
        Triples("triples", is_ordered=False),
        Triples("ordered-triples", is_ordered=True),
    )
}
"""All layouts by name. `in-place` is ours: it is half as long, and the model cannot get a given wrong. `shifted` is the
layout of Ye et al. (2024), which the paper built on, with the token ids of their tokenizer (164 tokens at 9x9).
`question-answer` is the layout of PUMA (162 tokens)."""


def get(name: str, size: int = 9) -> Layout:
    """The layout called `name`, for grids of a size.

    Raises:
      InputError: there is no such layout, or the size is not 4, 6 or 9.
    """
    return dataclasses.replace(lookup("layout", LAYOUTS, name), size=sudoku.check_size(size))
