"""The compiled part of `puzzle`: one search draws clues, drops redundant clues and solves.

A state holds one integer for each of the 42 terms of `clues`, with a bit for each candidate house. Those of the house
numbers never change. A 43rd integer, with one bit, stands for missing terms. A clue restricts the houses of each term
to those that the domains of its other two terms allow. A table holds them for every type, and at index `NUM_TYPES`
higher for its negation.

A cached function does not notice when a function of another file changes, so all code that may change is in this file.
"""

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.compiled import njit, prange
from mdm_jax.data.splitmix import GOLDEN, draw, mix
from mdm_jax.tasks.zebra.sides import is_test

NUM_TYPES = 7

_UNEQUAL, _ENDS, _BETWEEN = 1, 5, 6  # of the types, = being 0
_STRIDE = 6  # terms of an attribute, and the most attributes
_NUMBERS = _STRIDE * _STRIDE  # the first term that is a house number
_NONE = _NUMBERS + _STRIDE  # a missing term
_MOST_DRAWN = 512  # clues; 75 are usual at 6 x 6
_ZERO, _ONE = cast(int, np.int64(0)), cast(int, np.int64(1))  # a plain literal would compile the search again


class _Board(NamedTuple):
    """The clues of a puzzle, with the scratch space of its search."""

    houses: int
    attributes: int
    support: NDArray[np.int8]  # [2 * NUM_TYPES, 3, 64, 64], `clues.support` of the number of houses
    clues: NDArray[np.int64]  # [num, 4], a type and three terms
    terms: NDArray[np.int64]  # [num], the set of these terms
    stack: NDArray[np.int64]  # [_NUMBERS + 2, _NONE + 1], the search's states,
    fresh: NDArray[np.int64]  # [_NUMBERS + 2], the sets of terms with losses that are not propagated yet,
    branched: NDArray[np.int64]  # [_NUMBERS + 2], and the terms that were branched on last
    found: NDArray[np.int64]  # [_NONE + 1], the first solution found
    known: NDArray[np.int64]  # [_NONE + 1], a solution that does not count; zeros for none
    state: NDArray[np.uint64]  # [1], the random generator


@njit(cache=True)
def _new_board(
    support: NDArray[np.int8], houses: int, attributes: int, num_clues: int, state: NDArray[np.uint64]
) -> _Board:
    return _Board(
        houses=houses,
        attributes=attributes,
        support=support[houses],
        clues=np.zeros((num_clues, 4), np.int64),
        terms=np.zeros(num_clues, np.int64),
        stack=np.zeros((_NUMBERS + 2, _NONE + 1), np.int64),
        fresh=np.zeros(_NUMBERS + 2, np.int64),
        branched=np.zeros(_NUMBERS + 2, np.int64),
        found=np.zeros(_NONE + 1, np.int64),
        known=np.zeros(_NONE + 1, np.int64),
        state=state,
    )


@njit(cache=True)
def _copy(source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
    for i in range(len(source)):  # an assignment of slices would take numba seconds to compile
        target[i] = source[i]


@njit(cache=True)
def _set_clue(board: _Board, i: int, kind: int, a: int, b: int, c: int) -> None:
    clue = board.clues[i]
    clue[0], clue[1], clue[2], clue[3] = kind, a, b, c
    board.terms[i] = 1 << a | 1 << b | 1 << c


@njit(cache=True)
def _place(domains: NDArray[np.int64], first: int, houses: int) -> int:
    """Applies to an attribute, once, that each value has its own house: only house left, and only value left.

    Args:
      domains: the state, changed in place.
      first: the attribute's first term.
      houses: the number of houses.

    Returns:
      The set of terms that lost a house; -1 for a contradiction.
    """
    once, twice, lost = 0, 0, 0
    for term in range(first, first + houses):
        twice |= once & domains[term]
        once |= domains[term]
    if once != (1 << houses) - 1:
        return -1
    for term in range(first, first + houses):
        only = domains[term] & ~twice
        if only & (only - 1):
            return -1
        if only and only != domains[term]:
            domains[term] = only
            lost |= 1 << term
        left = domains[term]
        if left & (left - 1):
            continue
        for other in range(first, first + houses):
            if other != term and domains[other] & left:
                domains[other] ^= left
                if domains[other] == 0:
                    return -1
                lost |= 1 << other
    return lost


@njit(cache=True)
def _propagate(board: _Board, num_clues: int, domains: NDArray[np.int64], fresh: int) -> bool:
    """Removes houses that one clue or one attribute excludes, until none is left. Returns False for a contradiction."""
    while fresh:
        lost = 0
        for i in range(num_clues):
            if not board.terms[i] & (fresh | lost):
                continue
            clue = board.clues[i]
            allowed = board.support[clue[0]]
            a, b, c = clue[1], clue[2], clue[3]
            left = domains[a] & allowed[0, domains[c], domains[b]]
            if left != domains[a]:
                domains[a] = left
                lost |= 1 << a
            if b != _NONE:
                left = domains[b] & allowed[1, domains[c], domains[a]]
                if left != domains[b]:
                    domains[b] = left
                    lost |= 1 << b
            if c != _NONE:
                left = domains[c] & allowed[2, domains[b], domains[a]]
                if left != domains[c]:
                    domains[c] = left
                    lost |= 1 << c
            if domains[a] == 0:  # then no term of the clue has a house left
                return False
        for attribute in range(board.attributes):
            first = attribute * _STRIDE
            if (fresh | lost) >> first & ((1 << _STRIDE) - 1):
                placed = _place(domains, first, board.houses)
                if placed < 0:
                    return False
                lost |= placed
        fresh = lost
    return True


@njit(cache=True)
def _branch(board: _Board, domains: NDArray[np.int64], failed: int) -> int:
    """The term to branch on, which has several houses left; -1 if there is none.

    It is the term of the last contradiction, if that has several houses left (last-conflict reasoning, Lecoutre et al.
    2009). Without this rule one puzzle in thousands would take a thousand times longer. Otherwise it is the term with
    the fewest houses left.
    """
    if domains[failed] & (domains[failed] - 1):
        return failed
    best, fewest = -1, _STRIDE + 1
    for attribute in range(board.attributes):
        for term in range(attribute * _STRIDE, attribute * _STRIDE + board.houses):
            left, count = domains[term], 0
            while left:
                left &= left - 1
                count += 1
            if 1 < count < fewest:
                best, fewest = term, count
    return best


@njit(cache=True)
def _count(board: _Board, num_clues: int, limit: int) -> int:
    """Counts the solutions of the first clues other than `known`, up to `limit`. `found` receives the first."""
    stack, fresh, branched, found, depth = board.stack, board.fresh, board.branched, 0, 0
    for term in range(_NONE + 1):
        stack[0, term] = (1 << board.houses) - 1 if term < _NUMBERS else 1 << term % _STRIDE
    fresh[0] = (1 << _NONE) - 1
    branched[0] = failed = _NONE
    while depth >= 0:
        domains = stack[depth]
        if not _propagate(board, num_clues, domains, fresh[depth]):
            failed = branched[depth]
            depth -= 1
            continue
        term = _branch(board, domains, failed)
        if term < 0:
            depth -= 1
            if not _is_known(board, domains):
                found += 1
                if found == 1:
                    _copy(domains, board.found)
                if found == limit:
                    break
            continue
        choices = domains[term] & ~board.known[term]  # first the houses that `known` does not have
        bit = choices & -choices
        _copy(domains, stack[depth + 1])
        stack[depth + 1, term] = bit
        domains[term] ^= bit
        fresh[depth] = fresh[depth + 1] = 1 << term
        branched[depth] = branched[depth + 1] = term
        depth += 1
    return found


@njit(cache=True)
def _is_known(board: _Board, domains: NDArray[np.int64]) -> bool:
    for attribute in range(board.attributes):
        for term in range(attribute * _STRIDE, attribute * _STRIDE + board.houses):
            if domains[term] != board.known[term]:
                return False
    return True


@njit(cache=True)
def _shuffle(board: _Board, num_clues: int) -> None:
    for i in range(num_clues - 1, 0, -1):
        j = draw(board.state, i + 1)
        for k in range(4):
            board.clues[i, k], board.clues[j, k] = board.clues[j, k], board.clues[i, k]
        board.terms[i], board.terms[j] = board.terms[j], board.terms[i]


@njit(cache=True)
def _draw_term(board: _Board) -> Any:
    attribute = draw(board.state, board.attributes + 1)
    if attribute == board.attributes:
        attribute = _STRIDE
    return attribute * _STRIDE + draw(board.state, board.houses)


@njit(cache=True)
def _holds(board: _Board, i: int, solution: NDArray[np.int64]) -> bool:
    clue = board.clues[i]
    return board.support[clue[0], 0, solution[clue[3]], solution[clue[2]]] & solution[clue[1]] != 0


@njit(cache=True)
def _draw_clue(board: _Board, i: int) -> None:
    """Draws a clue that holds in `known`, as clue i.

    Every type is equally likely. Given the type, every clue is equally likely that holds, names at most one house by
    its number, and says more than that two values of an attribute differ.
    """
    kind = draw(board.state, NUM_TYPES)
    arity = 3 if kind == _BETWEEN else 1 if kind == _ENDS else 2
    while True:
        a, b, c = _draw_term(board), _NONE, _NONE
        if arity > 1:
            b = _draw_term(board)
        if arity > 2:
            c = _draw_term(board)
        numbers = (a >= _NUMBERS) + (_NUMBERS <= b < _NONE) + (_NUMBERS <= c < _NONE)
        _set_clue(board, i, kind, a, b, c)
        is_vacuous = kind <= _UNEQUAL and a // _STRIDE == b // _STRIDE
        if numbers <= min(arity - 1, 1) and not is_vacuous and _holds(board, i, board.known):
            return


@njit(cache=True)
def _draw_clues(board: _Board) -> int:
    """Draws clues until `known` is the only solution. Returns their number, 0 if there is no room for enough."""
    num = _ZERO
    while _count(board, num, _ONE):
        is_excluded = False
        while not is_excluded:
            if num == _MOST_DRAWN:
                return 0
            _draw_clue(board, num)
            is_excluded = not _holds(board, num, board.found)
            num += 1
    return num


@njit(cache=True)
def _drop_redundant(board: _Board, num: int) -> int:
    """Drops, in random order, each clue without which the solution stays unique. Returns the number that is left."""
    _shuffle(board, num)
    for i in range(num - 1, -1, -1):
        board.clues[i, 0] += NUM_TYPES
        is_needed = _count(board, num, _ONE) > 0
        board.clues[i, 0] -= NUM_TYPES
        if not is_needed:
            num -= 1
            _copy(board.clues[num], board.clues[i])
            board.terms[i] = board.terms[num]
    return num


@njit(cache=True)
def _draw_solution(board: _Board, house_of: NDArray[np.int64], solution: NDArray[np.int8]) -> None:
    """Draws a solution into `known`, `house_of` `[42]` and `solution`."""
    for term in range(_NUMBERS, _NONE):
        house_of[term] = term - _NUMBERS
    for attribute in range(board.attributes):
        first = attribute * _STRIDE
        for value in range(board.houses):  # each value takes a random house, and the value there moves to the next one
            house = draw(board.state, value + 1)
            solution[first + value] = solution[first + house]
            solution[first + house] = value
        for house in range(board.houses):
            house_of[first + solution[first + house]] = house
    for term in range(_NONE):
        board.known[term] = 1 << house_of[term]
    board.known[_NONE] = 1


@njit(cache=True)
def _length(board: _Board, num_clues: int) -> tuple[int, int]:
    """The number of tokens of the clues, and the number of houses that they name."""
    num_tokens, houses = 6 * num_clues, 0
    for i in range(num_clues):
        for role in range(3):
            term = board.clues[i, 1 + role]
            if term != _NONE:
                num_tokens += 4 if role == 1 else 3 if role == 2 else 0
                houses = max(houses, term % _STRIDE + 1)
    return num_tokens, houses


@njit(cache=True)
def _make(
    board: _Board, side: int, max_clues: int, max_tokens: int, clues: NDArray[np.int8], solution: NDArray[np.int8]
) -> None:
    """Writes one puzzle into `clues` and `solution`."""
    house_of = np.zeros(_NONE, np.int64)
    _draw_solution(board, house_of, solution)
    num_clues, is_done = 0, False
    while not is_done:
        num_clues = _drop_redundant(board, _draw_clues(board))
        num_tokens, houses = _length(board, num_clues)
        is_done = 0 < num_clues <= max_clues and num_tokens <= max_tokens and houses == board.houses
        if is_done and side >= 0:
            is_done = is_test(board.clues, num_clues, board.houses, board.attributes, house_of) == (side == 1)
    for i in range(num_clues):
        clues[i, 0] = board.clues[i, 0]
        for role in range(3):
            term = board.clues[i, 1 + role]
            clues[i, 1 + role] = -1 if term == _NONE else term


@njit(cache=True, parallel=True)
def generate(
    support: NDArray[np.int8],
    limits: NDArray[np.int64],
    smallest: tuple[int, int],
    largest: tuple[int, int],
    seed: np.uint64,
    first: np.uint64,
    side: int,
    clues: NDArray[np.int8],
    solutions: NDArray[np.int8],
) -> None:
    """Makes puzzles in parallel. Each has its own random generator, so the number of threads does not matter.

    Args:
      support: `clues.support()`.
      limits: int64 `[7, 7, 2]`, the largest numbers of clues and tokens, by the numbers of houses and attributes.
      smallest: the fewest houses and attributes.
      largest: the most.
      seed: the seed of all puzzles.
      first: the number of the first puzzle.
      side: 0 for train, 1 for test, -1 for either.
      clues: int8 `[num, most clues, 4]`, -1 when called; receives the puzzles.
      solutions: int8 `[num, 36]`, -1 when called; receives the solutions.
    """
    for i in prange(len(clues)):
        state = np.full(1, mix(mix(seed + GOLDEN) + first + np.uint64(i)))
        houses = smallest[0] + draw(state, largest[0] - smallest[0] + 1)
        attributes = smallest[1] + draw(state, largest[1] - smallest[1] + 1)
        board = _new_board(support, houses, attributes, _MOST_DRAWN, state)
        max_clues, max_tokens = limits[houses, attributes]
        _make(board, side, max_clues, max_tokens, clues[i], solutions[i])


@njit(cache=True)
def _load(board: _Board, clues: NDArray[np.int64]) -> int:
    """Puts clues on an empty board. Returns their number."""
    num = _ZERO
    for i in range(len(clues)):
        if clues[i, 0] != _NONE:
            _set_clue(board, num, clues[i, 0], clues[i, 1], clues[i, 2], clues[i, 3])
            num += 1
    return num


@njit(cache=True, parallel=True)
def solve(
    support: NDArray[np.int8],
    sizes: NDArray[np.int64],
    clues: NDArray[np.int64],
    limit: int,
    solutions: NDArray[np.int8],
    num_solutions: NDArray[np.int32],
) -> None:
    """Solves puzzles in parallel; see `puzzle.solve`.

    Args:
      support: `clues.support()`.
      sizes: int64 `[num, 2]`, the numbers of houses and attributes.
      clues: int64 `[num, clues, 4]`, 42 in place of -1.
      limit: where to stop counting.
      solutions: int8 `[num, 36]`, -1 when called; receives the first solutions found.
      num_solutions: int32 `[num]`; receives the numbers of solutions, up to `limit`.
    """
    for i in prange(len(clues)):
        houses, attributes = sizes[i]
        board = _new_board(support, houses, attributes, clues.shape[1], np.zeros(1, np.uint64))
        num_solutions[i] = _count(board, _load(board, clues[i]), limit)
        if num_solutions[i] > 0:
            for first in range(0, attributes * _STRIDE, _STRIDE):
                for value in range(houses):
                    for house in range(houses):
                        if board.found[first + value] == 1 << house:
                            solutions[i, first + house] = value
