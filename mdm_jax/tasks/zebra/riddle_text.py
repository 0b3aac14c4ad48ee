"""Parses riddles of Einstein's type in words: the attributes, then the clues, one on each line.

    colour: red, green, white           an attribute and its values, as many as there are houses
    drink: tea, milk, water
    pet: dog, cat, fish
    red = tea                           in the same house; != for another house
    green left of milk                  somewhere to the left; right of, directly left of, directly right of, next to
    cat at an end                       in the first or the last house
    tea between dog and water           somewhere between, in either order
    fish = house 3                      houses count from 1, from the left
    question: Who keeps the fish?       optional

Case does not matter. A value of two attributes needs the attribute before it: `hat red`.
"""

import dataclasses
import re
from collections.abc import Iterable

from mdm_jax.errors import InputError, shown
from mdm_jax.tasks.zebra.clues import CELLS, NONE, STRIDE, TYPES
from mdm_jax.tasks.zebra.english import Attribute

_EQUAL, _OTHER, _LEFT, _DIRECTLY, _NEXT, _END, _BETWEEN = range(len(TYPES))
_RELATIONS = {
    "!=": (_OTHER, False),
    "=": (_EQUAL, False),
    "directly left of": (_DIRECTLY, False),
    "directly right of": (_DIRECTLY, True),
    "left of": (_LEFT, False),
    "right of": (_LEFT, True),
    "next to": (_NEXT, False),
    "at an end": (_END, False),
    "between": (_BETWEEN, False),
}
"""The words between terms, with the type of the clue, and whether its terms are exchanged."""

_RELATION = re.compile("|".join(word if "=" in word else rf"\b{word}\b" for word in _RELATIONS))
_ATTRIBUTE = re.compile(r"([^:=,]+): ?(.*,.*)")
_QUESTION = re.compile(r"(?i)question: ?(.*)")
_HOUSE = re.compile(r"house (\d+)")


@dataclasses.dataclass(frozen=True)
class RiddleText:
    """A parsed riddle.

    Attributes:
      clues: a type and three terms for each clue, as in `clues`.
      names: the attributes.
      question: the question, or "".
    """

    clues: list[list[int]]
    names: tuple[Attribute, ...]
    question: str


def begins_riddle(line: str) -> bool:
    """Whether a line names an attribute and its values."""
    return _ATTRIBUTE.fullmatch(_plain(line)) is not None


def parse_riddle(lines: Iterable[tuple[int, str]], name: str) -> RiddleText:
    """Parses a riddle.

    Args:
      lines: the lines that are neither empty nor comments, with their numbers.
      name: the name of the riddle in messages.

    Returns:
      The riddle. Since the size of a puzzle is read from its clues, a redundant clue is added if they do not name the
      last attribute, or name neither the last house nor the last value of an attribute.

    Raises:
      InputError: a line is neither an attribute nor a clue, or attributes do not fit together.
    """
    attributes: list[Attribute] = []
    later: list[tuple[str, str]] = []
    question = ""
    for number, line in lines:
        text = _plain(line)
        if found := _QUESTION.fullmatch(text):
            question = found[1]
        elif found := _ATTRIBUTE.fullmatch(text):
            attributes.append(_attribute(found[1].strip(), found[2].split(","), attributes, f"{name}:{number}"))
        else:
            later.append((f"{name}:{number}", text.lower()))
    if not 3 <= len(attributes) <= STRIDE:
        raise InputError(f"{name} names {len(attributes)} attributes with their values: 3 to {STRIDE} are possible")
    if not later:
        raise InputError(f"{name} holds no clue: write one on each line, such as red = tea, or milk = house 2")
    terms = _terms(attributes)
    clues = [_clue(text, terms, where) for where, text in later]
    houses, last = len(attributes[0].values), STRIDE * (len(attributes) - 1)
    named = [term for clue in clues for term in clue[1:] if term != NONE]
    if max(term % STRIDE for term in named) < houses - 1 or not any(last <= term < CELLS for term in named):
        clues.append([_OTHER, last, last + houses - 1, NONE])
    return RiddleText(clues, tuple(attributes), question)


def _plain(line: str) -> str:
    return " ".join(line.split())


def _attribute(name: str, values: list[str], before: list[Attribute], where: str) -> Attribute:
    """Parses an attribute; raises InputError unless it fits those before it."""
    attribute = Attribute(name, tuple(value.strip() for value in values))
    num, same = len(attribute.values), {value.lower() for value in attribute.values}
    wanted = len(before[0].values) if before else None
    if not 3 <= num <= STRIDE or num != (wanted or num):
        raise InputError(f"{where}: {shown(name)} has {num} values: {wanted or f'3 to {STRIDE}'} are wanted, as houses")
    if len(same) < num or "" in same:
        raise InputError(f"{where}: {shown(name)} has a value twice, or an empty one")
    if name.lower() in [other.name.lower() for other in before]:
        raise InputError(f"{where}: {shown(name)} comes twice: give each attribute one line")
    for word in (name, *attribute.values):
        if _RELATION.search(word.lower()) or _HOUSE.fullmatch(word.lower()):
            raise InputError(f"{where}: {shown(word)} holds words that clues are made of: call it otherwise")
    return attribute


def _terms(attributes: list[Attribute]) -> dict[str, int | None]:
    """The terms by their names in clues; None for a value of several attributes."""
    terms: dict[str, int | None] = {f"house {house + 1}": CELLS + house for house in range(len(attributes[0].values))}
    for a, attribute in enumerate(attributes):
        for v, value in enumerate(attribute.values):
            for called in (f"{attribute.name} {value}".lower(), value.lower()):
                terms[called] = None if called in terms else STRIDE * a + v
    return terms


def _clue(text: str, terms: dict[str, int | None], where: str) -> list[int]:
    """Parses a clue."""
    relation = _RELATION.search(text)
    if relation is None:
        raise InputError(f"{where}: {shown(text)} is no clue: {', '.join(_RELATIONS)} stand between its terms")
    kind, is_swapped = _RELATIONS[relation.group()]
    first, rest = text[: relation.start()].strip(), text[relation.end() :].strip()
    parts = [rest]
    if kind == _END:
        parts = [] if rest == "" else [rest]
    if kind == _BETWEEN:
        pairs = [(rest[: found.start()], rest[found.end() :]) for found in re.finditer(r" and ", rest)]
        parts = list(next((pair for pair in pairs if all(part in terms for part in pair)), (rest,)))
    found = [_term(part, terms, where) for part in [first, *parts]]
    wanted = {_END: 1, _BETWEEN: 3}.get(kind, 2)
    if len(found) != wanted:
        raise InputError(f"{where}: {shown(text)} has {len(found)} terms: {relation.group()} takes {wanted}")
    if len(set(found)) < len(found):
        raise InputError(f"{where}: names the same twice: the terms of a clue must differ")
    if min(found) >= CELLS:
        raise InputError(f"{where}: names no value, just houses: one term at least must be a value")
    found = found[::-1] if is_swapped else found
    return [kind, *found, *[NONE] * (3 - len(found))]


def _term(text: str, terms: dict[str, int | None], where: str) -> int:
    if text not in terms:
        houses = sum(called.startswith("house ") for called in terms if _HOUSE.fullmatch(called))
        raise InputError(f"{where}: {shown(text)} is neither a value nor one of house 1 to house {houses}")
    term = terms[text]
    if term is None:
        raise InputError(f"{where}: {shown(text)} is a value of two attributes: put the attribute before it")
    return term
