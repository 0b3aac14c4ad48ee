"""How a Zebra puzzle becomes a sequence of tokens. NumPy in, NumPy out.

A masked diffusion model reads the clues and fills in the house of every value behind them; an autoregressive one goes
on with (attribute, value, house) triples. A layout is for puzzles up to a size; its sequences have one length.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data.checks import Records, lookup
from mdm_jax.errors import InputError
from mdm_jax.tasks.base import Tokens
from mdm_jax.tasks.zebra.clues import (
    CELLS,
    LARGEST,
    NONE,
    SMALLEST,
    STRIDE,
    Clues,
    Size,
    check_sizes,
    checked_clues,
    is_cell,
    sizes_of,
)
from mdm_jax.tasks.zebra.tokens import (
    ANSWER,
    CELL,
    EXTRA,
    MASK,
    NUMBER,
    PLACES,
    SYMBOLS,
    ZERO,
    clue_tokens,
)

_BY_ATTRIBUTE = np.arange(CELLS) // STRIDE * STRIDE


@dataclasses.dataclass(frozen=True)
class _Clued:
    """The common part of the layouts: the clues come first, `size.max_clues` of them in 13 positions each.

    Positions that a clue leaves empty are padding, and so are clues that a puzzle does not have. With `num_groups` and
    `group_length` in its `TransformerConfig` a network reads each clue as one position.

    Attributes:
      name: the name in flags.
      size: the most houses and attributes.
    """

    name: str
    size: Size = LARGEST

    pad_id = EXTRA
    num_tokens = len(SYMBOLS)
    """V"""
    group_length = PLACES
    """of a clue"""

    @property
    def num_groups(self) -> int:
        """The number of clues that there is room for."""
        return self.size.max_clues

    def check(self, records: Records) -> None:
        """Accepts all records: `start` refuses those that do not fit."""

    def _network(self, length: int, **fields: Any) -> dict[str, Any]:
        shape = {"vocab_size": self.num_tokens, "num_extra_tokens": 0, "max_length": length, "shift_logits": False}
        groups = {"positions": "learned", "num_groups": self.num_groups, "group_length": self.group_length}
        return shape | groups | fields

    def _clues(self, clues: Clues) -> Tokens:
        """The tokens of checked clues, int32 `[num, num_groups * group_length]`; empty rows of clues stand last."""
        is_none = clues[:, :, 0] == NONE
        longest = int((~is_none).sum(axis=1).max(initial=0))
        if longest > self.num_groups:
            i = int(np.argmax((~is_none).sum(axis=1)))
            raise InputError(f"puzzle {i} has {longest} clues, and {self.num_groups} is the most here: leave some out")
        by_use = np.argsort(is_none, axis=1, kind="stable")[:, : self.num_groups]
        first = np.take_along_axis(clues, by_use[:, :, None], axis=1)
        more = self.num_groups - first.shape[1]
        tokens, is_taken = clue_tokens(np.pad(first, ((0, 0), (0, more), (0, 0)), constant_values=NONE))
        return np.where(is_taken, tokens, EXTRA)


@dataclasses.dataclass(frozen=True)
class Masked(_Clued):
    """For a masked diffusion model: the clues, and the house of every value, in place.

    Clues are about the houses of values, and so are the cells of the answer: attribute by attribute, each from the
    first value to the last. A puzzle smaller than `size` has padding instead of some cells. Padding is prompt and is
    hidden from attention: `TransformerConfig.pad_id` has to be `pad_id`.
    """

    name: str = "in-place"

    method = "mdm"
    mask_id = MASK
    zero = ZERO
    """the token of house 0; house h is `zero + h`"""

    @property
    def num_prompt(self) -> int:
        """Where the cells begin."""
        return self.num_groups * self.group_length

    @property
    def length(self) -> int:
        """L; 504 at 6 x 6."""
        return self.num_prompt + self.size.num_cells

    @property
    def network(self) -> Mapping[str, Any]:
        """The fields of a `TransformerConfig` that the sequences fix: each clue is read as one position."""
        return self._network(self.length, causal=False, pad_id=self.pad_id)

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 `[num, L]` and `is_prompt` bool `[num, L]` to train on.

        Raises:
          InputError: a puzzle is none, is larger, or has more clues than there is room for.
        """
        start = self.start(records)
        values = self._kept(records["solution"]).reshape(-1, *self._shape)
        houses = _scattered(np.broadcast_to(np.arange(self.size.houses), values.shape), values)
        answers = start.copy()
        answers[:, self.num_prompt :] = ZERO + houses.reshape(len(start), -1)
        is_prompt = start != MASK
        return {"tokens": np.where(is_prompt, start, answers), "is_prompt": is_prompt}

    def start(self, records: Records) -> Tokens:
        """The sequences to fill in for clues `[num, clues, 4]`, int32 `[num, L]`: masks where an answer is wanted.

        Raises:
          InputError: a puzzle is none, is larger, or has more clues than there is room for.
        """
        clues = fitting(records["clues"], self.size)
        cells = self._kept(is_cell(*sizes_of(clues)))
        asked = np.where(cells, MASK, EXTRA).astype(np.int32)
        return np.concatenate([self._clues(clues), asked], axis=1)

    def answers(self, tokens: Tokens) -> NDArray[np.int8]:
        """The grids, int8 `[num, 36]`: the value in each house; -1 where there is none, or there is no cell."""
        values = np.broadcast_to(np.arange(self.size.houses, dtype=np.int8), (len(tokens), *self._shape))
        return self._moved(values, tokens)

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """The values of `[num, L]` at the cells of the answer, moved to their houses: `[num, 36]`, -1 elsewhere."""
        return self._moved(values[:, self.num_prompt :].reshape(-1, *self._shape), tokens)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.size.attributes, self.size.houses

    def _moved(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        attributes, houses = self._shape
        grid = np.full((len(values), STRIDE, STRIDE), NONE, values.dtype)
        most, num_attributes = _sizes_in(tokens[:, : self.num_prompt])
        is_asked = np.arange(attributes)[:, None] < num_attributes[:, None, None]
        is_asked = is_asked & (np.arange(houses) < most[:, None, None])
        to = tokens[:, self.num_prompt :].reshape(values.shape) - ZERO
        to = np.where(is_asked & (to < most[:, None, None]), to, NONE)
        grid[:, :attributes, :houses] = _scattered(values, to)
        return grid.reshape(-1, CELLS)

    def _kept(self, grids: NDArray[Any]) -> NDArray[Any]:
        """The cells of grids `[num, 36]` that the layout has."""
        houses, attributes = self.size
        return grids.reshape(-1, STRIDE, STRIDE)[:, :attributes, :houses].reshape(len(grids), -1)


@dataclasses.dataclass(frozen=True)
class Triples(_Clued):
    """For an autoregressive model: clues, ANSWER, and (attribute, value, house) of each cell.

    Source: Shah et al. 2024, who write (attribute, house, value); but clues are about the houses of values. Padding
    fills up behind the answer, and counts as prompt, so that it is not scored. All numbers count from 0.

    Attributes:
      is_ordered: whether cells stand in the order in which deduction fills them in (see `deduction`), and last those
        that it does not reach. Otherwise they stand attribute by attribute, each from the first value to the last.
    """

    is_ordered: bool = False

    mask_id = None

    @property
    def method(self) -> str:
        """The name of a model of this layout in results."""
        return "arm_ordered" if self.is_ordered else "arm"

    @property
    def num_prompt(self) -> int:
        """Where the triples begin, right behind ANSWER."""
        return self.num_groups * self.group_length + 1

    @property
    def length(self) -> int:
        """L; 577 at 6 x 6."""
        return self.num_prompt + 3 * self.size.num_cells

    @property
    def network(self) -> Mapping[str, Any]:
        """The fields of a `TransformerConfig` that the sequences fix; a decoder with a cache hides no padding."""
        return self._network(self.length, causal=True, pad_id=None)

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 `[num, L]` and `is_prompt` bool `[num, L]` to train on; clues and ANSWER are the prompt.

        Raises:
          InputError: a puzzle is none, is larger, or has more clues than there is room for.
        """
        prompt, most = self.start(records), self.size.num_cells
        is_asked = records["solution"] >= 0
        order = np.abs(records["order"]) if self.is_ordered else _BY_ATTRIBUTE + records["solution"]
        by_rank = np.argsort(np.where(is_asked, order, CELLS + 1), axis=1)[:, :most]
        attributes, houses = np.divmod(by_rank, STRIDE)
        values = np.take_along_axis(records["solution"], by_rank, axis=1)
        triples = ZERO + np.stack([attributes, values, houses], axis=-1)
        is_taken = np.arange(most) < is_asked.sum(axis=1)[:, None]
        answers = np.where(is_taken[..., None], triples, EXTRA).reshape(len(prompt), -1).astype(np.int32)
        is_prompt = np.pad(np.repeat(~is_taken, 3, axis=1), ((0, 0), (self.num_prompt, 0)), constant_values=True)
        return {"tokens": np.concatenate([prompt, answers], axis=1), "is_prompt": is_prompt}

    def start(self, records: Records) -> Tokens:
        """Clues and ANSWER as a prompt, int32 `[num, num_prompt]`.

        Raises:
          InputError: a puzzle is none, is larger, or has more clues than there is room for.
        """
        return np.pad(self._clues(fitting(records["clues"], self.size)), ((0, 0), (0, 1)), constant_values=ANSWER)

    def answers(self, tokens: Tokens) -> NDArray[np.int8]:
        """The grids, int8 `[num, 36]`, -1 where there is none.

        As many triples are read as the puzzle has cells. Later ones overwrite earlier ones; invalid ones are left out.
        """
        return self._moved(self._triples(tokens)[:, :, 1] - ZERO, tokens).astype(np.int8)

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """The values of `[num, L]` at the houses of the triples, moved to their cells: `[num, 36]`, -1 elsewhere."""
        return self._moved(self._triples(values)[:, :, 2], tokens)

    def _triples(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[:, self.num_prompt :].reshape(len(values), -1, 3)

    def _moved(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        rows, triples = np.arange(len(tokens)), self._triples(tokens) - ZERO
        houses, attributes = _sizes_in(tokens[:, : self.num_prompt])
        most = np.stack([attributes, houses, houses], axis=1)[:, None]
        is_triple = ((triples >= 0) & (triples < most)).all(axis=2)
        is_triple &= np.arange(triples.shape[1]) < (houses * attributes)[:, None]
        places = np.where(is_triple, triples[:, :, 0] * STRIDE + triples[:, :, 2], CELLS)
        grid = np.full((len(tokens), CELLS + 1), NONE, values.dtype)  # the last for triples that are none
        for i in range(triples.shape[1]):  # one after the other: an indexed assignment has no order
            grid[rows, places[:, i]] = values[:, i]
        return grid[:, :CELLS]


def _scattered(values: NDArray[Any], to: NDArray[Any]) -> NDArray[Any]:
    """Moves the values of each row `[num, rows, n]` to the indices `to`, if these are from 0 to n - 1; -1 elsewhere."""
    num, num_rows, n = values.shape
    found = np.full((num, num_rows, n + 1), NONE, values.dtype)  # the last for what goes nowhere
    to = np.where((to >= 0) & (to < n), to, n)
    for i in range(n):  # one after the other: an indexed assignment has no order
        found[np.arange(num)[:, None], np.arange(num_rows), to[:, :, i]] = values[:, :, i]
    return found[:, :, :n]


def fitting(puzzles: ArrayLike, size: Size) -> Clues:
    """Returns checked clues `[num, clues, 4]`; InputError if a puzzle has more houses or attributes than `size`."""
    clues = checked_clues(puzzles)
    for name, found, most in zip(Size._fields, sizes_of(clues), size, strict=True):
        if (found > most).any():
            i = int(np.argmax(found > most))
            raise InputError(f"puzzle {i} has {found[i]} {name}, and {most} is the most here: choose a larger size")
    return clues


def _sizes_in(prompts: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of houses and attributes that the clues of prompts name, as `clues.sizes_of`: `[num]` each."""
    heads, attributes, values = prompts[:, :-2], prompts[:, 1:-1] - ZERO, prompts[:, 2:] - ZERO
    is_cell_term = heads == CELL
    named = [(values, is_cell_term | (heads == NUMBER)), (attributes, is_cell_term)]
    houses, num_attributes = (np.where(where, numbers, -1).max(axis=1, initial=-1) + 1 for numbers, where in named)
    return houses, num_attributes


Layout = Masked | Triples

LAYOUTS: dict[str, Callable[[Size], Layout]] = {
    "in-place": lambda size: Masked("in-place", size),
    "triples": lambda size: Triples("triples", size),
    "ordered-triples": lambda size: Triples("ordered-triples", size, is_ordered=True),
}
"""By name. Where the answer of a masked model stands in the paper is not known; in place is ours."""


def get(name: str, size: Size = LARGEST) -> Layout:
    """The layout called `name`, for puzzles up to a size.

    Raises:
      InputError: there is no such layout, or the size is not from 3 to 6.
    """
    return lookup("layout", LAYOUTS, name)(check_sizes(SMALLEST, size)[1])
