"""Writes Zebra puzzles in English."""

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
      phrase: the noun phrase for the owner of a value; {name} and {value} are replaced.
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
"""Names for the attributes and the values of the largest puzzle."""

NUMBERS = tuple(Attribute(f"attribute {a}", tuple(map(str, range(STRIDE)))) for a in range(STRIDE))
"""Numbers as names, as in the token form."""

_PREDICATES = {
    "left-of": "somewhere to the left of",
    "immediate-left": "directly to the left of",
    "nbr": "next to",
}


def describe_clues(clues: Clues, names: Sequence[Attribute] = NAMES) -> list[str]:
    """Writes each clue of a puzzle in English.

    Args:
      clues: int8 `[clues, 4]`.
      names: the names of attributes and values, at least as many as the puzzle has.

    Returns:
      A sentence for each clue, such as "The one whose colour is red lives next to the Dane.".

    Raises:
      InputError: a clue is invalid, or there are too few names.
    """
    puzzle = checked_clues(np.asarray(clues)[None])
    _check_names(puzzle, names)
    return [_sentence([int(number) for number in clue], names) for clue in puzzle[0] if clue[0] != NONE]


def describe_grid(grid: NDArray[np.int8], names: Sequence[Attribute] = NAMES) -> list[str]:
    """Writes the values in each house of a grid.

    Args:
      grid: int8 `[36]`, -1 for empty cells.
      names: the names of attributes and values.

    Returns:
      A line for each house, with "?" for empty cells, such as "house 1: Norwegian, yellow, ?".
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
        terms.reverse()  # a value becomes the subject
    subject, *others = (_noun(term, names) for term in terms)
    lives = "is" if terms[0] >= CELLS else "lives"
    if kind == "ends":
        sentence = f"{subject} lives in the first or the last house"
    elif kind == "inbetween":
        sentence = f"{subject} {lives} somewhere between {others[0]} and {others[1]}"
    elif kind in _PREDICATES:
        sentence = f"{subject} {lives} {_PREDICATES[kind]} {others[0]}"
    elif terms[1] >= CELLS:
        sentence = f"{subject} {'lives' if kind == '=' else 'does not live'} in {others[0]}"
    else:
        sentence = f"{subject} is {'' if kind == '=' else 'not '}{others[0]}"
    return sentence[0].upper() + sentence[1:] + "."


def _noun(term: int, names: Sequence[Attribute]) -> str:
    if term >= CELLS:
        return f"the {ORDINALS[term - CELLS]} house"
    attribute = names[term // STRIDE]
    return attribute.phrase.format(name=attribute.name, value=attribute.values[term % STRIDE])
