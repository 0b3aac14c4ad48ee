"""Zebra puzzles in English."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra.clues import ARITY, CELLS, NONE, STRIDE, TYPES, Clues, checked_clues, sizes_of

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclasses.dataclass(frozen=True)
class Attribute:
    """The names of an attribute and of its values.

    Attributes:
      name: the attribute, such as "colour".
      values: its values, at least as many as a puzzle has houses.
      phrase: how to call whom a value belongs to; {name} and {value} stand for the two.
    """

    name: str
    values: tuple[str, ...]
    phrase: str = "the one whose {name} is {value}"


NAMES = (
    Attribute("nationality", ("Brit", "Swede", "Dane", "Norwegian", "German", "Spaniard"), "the {value}"),
    Attribute("colour", ("red", "green", "white", "yellow", "blue", "orange")),
    Attribute("drink", ("tea", "coffee", "milk", "beer", "water", "juice"), "the one who drinks {value}"),
    Attribute("pet", ("dog", "bird", "cat", "horse", "fish", "rabbit"), "the owner of the {value}"),
    Attribute("instrument", ("piano", "violin", "flute", "guitar", "harp", "drums"), "the one who plays the {value}"),
    Attribute("job", ("baker", "doctor", "teacher", "painter", "pilot", "cook"), "the {value}"),
)
"""Names for all that a puzzle can have."""

NUMBERS = tuple(Attribute(f"attribute {a}", tuple(map(str, range(STRIDE)))) for a in range(STRIDE))
"""Numbers as names, those of the token form."""

_PREDICATES = {
    "left-of": "somewhere to the left of",
    "immediate-left": "directly to the left of",
    "nbr": "next to",
}


def describe_clues(clues: Clues, names: Sequence[Attribute] = NAMES) -> list[str]:
    """Says each clue of a puzzle in English.

    Args:
      clues: int8 `[clues, 4]`.
      names: what to call attributes and values, at least as many as there are.

    Returns:
      A sentence for each clue, such as "The one whose colour is red lives next to the Dane.".

    Raises:
      InputError: a clue is none, or there are too few names.
    """
    puzzle = checked_clues(np.asarray(clues)[None])
    _check_names(puzzle, names)
    return [_sentence([int(number) for number in clue], names) for clue in puzzle[0] if clue[0] != NONE]


def describe_grid(grid: NDArray[np.int8], names: Sequence[Attribute] = NAMES) -> list[str]:
    """Says who lives in each house of a grid, as far as it is filled in.

    Args:
      grid: int8 `[36]`, -1 where there is nothing.
      names: what to call attributes and values.

    Returns:
      A line for each house with its values, "?" where there is none, such as "house 1: Norwegian, yellow, ?".
    """
    cells = np.asarray(grid).reshape(STRIDE, STRIDE)
    houses, attributes = (int(np.flatnonzero((cells >= 0).any(axis=axis)).max(initial=NONE)) + 1 for axis in (0, 1))
    return [
        f"house {house + 1}: "
        + ", ".join(names[a].values[cells[a, house]] if cells[a, house] >= 0 else "?" for a in range(attributes))
        for house in range(houses)
    ]


def _check_names(puzzle: Clues, names: Sequence[Attribute]) -> None:
    houses, attributes = (int(number[0]) for number in sizes_of(puzzle))
    if len(names) < attributes:
        raise InputError(f"names for {len(names)} attributes, and the puzzle has {attributes}: give more")
    for attribute in names[:attributes]:
        if len(attribute.values) < houses:
            raise InputError(f"{attribute.name} has {len(attribute.values)} names of values, not {houses}: give more")


def _sentence(clue: Sequence[int], names: Sequence[Attribute]) -> str:
    kind, terms = TYPES[clue[0]], list(clue[1 : 1 + ARITY[clue[0]]])
    if kind in ("=", "!=") and terms[0] >= CELLS:
        terms.reverse()  # a value is the better subject
    subject, *others = (_noun(term, names) for term in terms)
    lives = "is" if terms[0] >= CELLS else "lives"
    if kind == "ends":
        said = f"{subject} lives in the first or the last house"
    elif kind == "inbetween":
        said = f"{subject} {lives} somewhere between {others[0]} and {others[1]}"
    elif kind in _PREDICATES:
        said = f"{subject} {lives} {_PREDICATES[kind]} {others[0]}"
    elif terms[1] >= CELLS:
        said = f"{subject} {'lives' if kind == '=' else 'does not live'} in {others[0]}"
    else:
        said = f"{subject} is {'' if kind == '=' else 'not '}{others[0]}"
    return said[0].upper() + said[1:] + "."


def _noun(term: int, names: Sequence[Attribute]) -> str:
    if term >= CELLS:
        return f"the {ORDINALS[term - CELLS]} house"
    attribute = names[term // STRIDE]
    return attribute.phrase.format(name=attribute.name, value=attribute.values[term % STRIDE])
