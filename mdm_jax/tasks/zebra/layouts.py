"""The layouts of Zebra puzzles as sequences of tokens. NumPy in, NumPy out.

The clues come first. A masked diffusion model then fills in the house of every value. An autoregressive model writes
(attribute, value, house) triples. A layout takes puzzles up to a size, and all its sequences have one length.
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
    CLUE_LENGTH,
    EXTRA,
    MASK,
    NUMBER,
    SYMBOLS,
    ZERO,
    clue_tokens,
)

_BY_ATTRIBUTE = np.arange(CELLS) // STRIDE * STRIDE


@dataclasses.dataclass(frozen=True)
class _Clued:
    """The common part of the layouts: `size.max_clues` clues, in 13 positions each.

    Positions that a clue does not fill are padding, and so are missing clues. A network of the kind
    "grouped_transformer" reads each clue as one vector.

    Attributes:
      name: the name in flags.
      size: the largest numbers of houses and attributes.
    """

    name: str
    size: Size = LARGEST

    pad_id = EXTRA
    num_tokens = len(SYMBOLS)
    """V"""
    group_length = CLUE_LENGTH

    @property
    def num_groups(self) -> int:
        """The largest number of clues."""
        return self.size.max_clues

    def check(self, records: Records) -> None:
        """Accepts all records. `start` raises InputError for those that do not fit."""

    def _network(self, length: int, **fields: Any) -> dict[str, Any]:
        shape = {"vocab_size": self.num_tokens, "num_extra_tokens": 0, "max_length": length, "shift_logits": False}
        groups = {"kind": "grouped_transformer", "num_groups": self.num_groups, "group_length": self.group_length}
        return shape | groups | {"positions": "learned"} | fields

    def _clues(self, clues: Clues) -> Tokens:
        """The tokens of checked clues, int32 `[num, num_groups * group_length]`. Empty rows of clues come last."""
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
    """The layout of a masked diffusion model: the clues, and the house of every value.

    Clues are about the houses of values, and so are the cells of the answer. They come attribute by attribute, each
    from the first value to the last. A puzzle smaller than `size` has padding instead of some cells. Padding is prompt
    and hidden from attention: `TransformerConfig.pad_id` must be `pad_id`.
    """

    name: str = "in-place"

    method = "mdm"
    mask_id = MASK
    zero = ZERO
    """the token of house 0; house h is token `zero + h`"""

    @property
    def num_prompt(self) -> int:
        """The position of the first cell."""
        return self.num_groups * self.group_length

    @property
    def length(self) -> int:
        """L; 504 at 6 x 6."""
        return self.num_prompt + self.size.num_cells

    @property
    def network(self) -> Mapping[str, Any]:
        """The kind and the fields of the network that the sequences fix: each clue is read as one vector."""
        return self._network(self.length, causal=False, pad_id=self.pad_id)

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 `[num, L]` and `is_prompt` bool `[num, L]` to train on.

        Raises:
          InputError: a clue is invalid, or a puzzle is too large or has too many clues.
        """
        start = self.start(records)
        values = self._kept(records["solution"]).reshape(-1, *self._shape)
        houses = _scattered(np.broadcast_to(np.arange(self.size.houses), values.shape), values)
        answers = start.copy()
        answers[:, self.num_prompt :] = ZERO + houses.reshape(len(start), -1)
        is_prompt = start != MASK
        return {"tokens": np.where(is_prompt, start, answers), "is_prompt": is_prompt}

    def start(self, records: Records) -> Tokens:
        """The sequences to fill in, int32 `[num, L]`, with masks for the cells of each puzzle.

        Raises:
          InputError: a clue is invalid, or a puzzle is too large or has too many clues.
        """
        clues = fitting(records["clues"], self.size)
        cells = self._kept(is_cell(*sizes_of(clues)))
        masks = np.where(cells, MASK, EXTRA).astype(np.int32)
        return np.concatenate([self._clues(clues), masks], axis=1)

    def answers(self, tokens: Tokens) -> NDArray[np.int8]:
        """The grids, int8 `[num, 36]`: the value in each house; -1 for none, and for cells that the puzzle lacks."""
        values = np.broadcast_to(np.arange(self.size.houses, dtype=np.int8), (len(tokens), *self._shape))
        return self._moved(values, tokens)

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """The values at the cells, moved to their houses, `[num, 36]`, -1 elsewhere, from values `[num, L]`."""
        return self._moved(values[:, self.num_prompt :].reshape(-1, *self._shape), tokens)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.size.attributes, self.size.houses

    def _moved(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        attributes, houses = self._shape
        grid = np.full((len(values), STRIDE, STRIDE), NONE, values.dtype)
        most, num_attributes = _sizes_in(tokens[:, : self.num_prompt])
        has_cell = np.arange(attributes)[:, None] < num_attributes[:, None, None]
        has_cell = has_cell & (np.arange(houses) < most[:, None, None])
        to = tokens[:, self.num_prompt :].reshape(values.shape) - ZERO
        to = np.where(has_cell & (to < most[:, None, None]), to, NONE)
        grid[:, :attributes, :houses] = _scattered(values, to)
        return grid.reshape(-1, CELLS)

    def _kept(self, grids: NDArray[Any]) -> NDArray[Any]:
        """The cells of grids `[num, 36]` that are in the layout."""
        houses, attributes = self.size
        return grids.reshape(-1, STRIDE, STRIDE)[:, :attributes, :houses].reshape(len(grids), -1)


@dataclasses.dataclass(frozen=True)
class Triples(_Clued):
    """The layout of an autoregressive model: clues, ANSWER, and a triple (attribute, value, house) for each cell.

    Source: Shah et al. 2024. Deviation: they write (attribute, house, value), but clues are about the houses of values.
    Padding follows the answer. It counts as prompt, so it is not scored. All numbers count from 0.

    Attributes:
      is_ordered: whether cells are in the order of `deduction`. Otherwise they come attribute by attribute, each from
        the first value to the last.
    """

    is_ordered: bool = False

    mask_id = None

    @property
    def method(self) -> str:
        """The name of a model of this layout in results."""
        return "arm_ordered" if self.is_ordered else "arm"

    @property
    def num_prompt(self) -> int:
        """The position of the first triple, after ANSWER."""
        return self.num_groups * self.group_length + 1

    @property
    def length(self) -> int:
        """L; 577 at 6 x 6."""
        return self.num_prompt + 3 * self.size.num_cells

    @property
    def network(self) -> Mapping[str, Any]:
        """The kind and the fields of the network that the sequences fix. A decoder with a cache hides no padding."""
        return self._network(self.length, causal=True, pad_id=None)

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 `[num, L]` and `is_prompt` bool `[num, L]` to train on; clues and ANSWER are the prompt.

        Raises:
          InputError: a clue is invalid, or a puzzle is too large or has too many clues.
        """
        prompt, most = self.start(records), self.size.num_cells
        has_cell = records["solution"] >= 0
        order = np.abs(records["order"]) if self.is_ordered else _BY_ATTRIBUTE + records["solution"]
        by_rank = np.argsort(np.where(has_cell, order, CELLS + 1), axis=1)[:, :most]
        attributes, houses = np.divmod(by_rank, STRIDE)
        values = np.take_along_axis(records["solution"], by_rank, axis=1)
        triples = ZERO + np.stack([attributes, values, houses], axis=-1)
        is_taken = np.arange(most) < has_cell.sum(axis=1)[:, None]
        answers = np.where(is_taken[..., None], triples, EXTRA).reshape(len(prompt), -1).astype(np.int32)
        is_prompt = np.pad(np.repeat(~is_taken, 3, axis=1), ((0, 0), (self.num_prompt, 0)), constant_values=True)
        return {"tokens": np.concatenate([prompt, answers], axis=1), "is_prompt": is_prompt}

    def start(self, records: Records) -> Tokens:
        """Clues and ANSWER as a prompt, int32 `[num, num_prompt]`.

        Raises:
          InputError: a clue is invalid, or a puzzle is too large or has too many clues.
        """
        return np.pad(self._clues(fitting(records["clues"], self.size)), ((0, 0), (0, 1)), constant_values=ANSWER)

    def answers(self, tokens: Tokens) -> NDArray[np.int8]:
        """The grids, int8 `[num, 36]`, -1 for empty cells.

        Reads as many triples as the puzzle has cells. Later ones overwrite earlier ones, and invalid ones are skipped.
        """
        return self._moved(self._triples(tokens)[:, :, 1] - ZERO, tokens).astype(np.int8)

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """The values at the houses of triples, moved to their cells, `[num, 36]`, -1 elsewhere, from `[num, L]`."""
        return self._moved(self._triples(values)[:, :, 2], tokens)

    def _triples(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[:, self.num_prompt :].reshape(len(values), -1, 3)

    def _moved(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        rows, triples = np.arange(len(tokens)), self._triples(tokens) - ZERO
        houses, attributes = _sizes_in(tokens[:, : self.num_prompt])
        most = np.stack([attributes, houses, houses], axis=1)[:, None]
        is_triple = ((triples >= 0) & (triples < most)).all(axis=2)
        is_triple &= np.arange(triples.shape[1]) < (houses * attributes)[:, None]
        cells = np.where(is_triple, triples[:, :, 0] * STRIDE + triples[:, :, 2], CELLS)
        grid = np.full((len(tokens), CELLS + 1), NONE, values.dtype)  # the last column takes invalid triples
        for i in range(triples.shape[1]):  # in a loop, since an indexed assignment has no order
            grid[rows, cells[:, i]] = values[:, i]
        return grid[:, :CELLS]


def _scattered(values: NDArray[Any], to: NDArray[Any]) -> NDArray[Any]:
    """Moves the values of each row, `[num, rows, n]`, to the indices `to` from 0 to n - 1; -1 elsewhere."""
    num, num_rows, n = values.shape
    found = np.full((num, num_rows, n + 1), NONE, values.dtype)  # the last column takes other indices
    to = np.where((to >= 0) & (to < n), to, n)
    for i in range(n):  # in a loop, since an indexed assignment has no order
        found[np.arange(num)[:, None], np.arange(num_rows), to[:, :, i]] = values[:, :, i]
    return found[:, :, :n]


def fitting(puzzles: ArrayLike, size: Size) -> Clues:
    """Returns checked clues `[num, clues, 4]`; raises InputError if a puzzle is larger than `size`."""
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
"""All layouts by name. The paper does not give the layout of its masked model; `in-place` is our own."""


def get(name: str, size: Size = LARGEST) -> Layout:
    """The layout called `name`, for puzzles up to a size.

    Raises:
      InputError: there is no such layout, or the size is not from 3 to 6.
    """
    return lookup("layout", LAYOUTS, name)(check_sizes(SMALLEST, size)[1])
