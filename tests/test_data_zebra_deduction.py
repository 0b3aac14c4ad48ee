"""Deduction against a plain solver with sets, and against enumeration; the fish riddle by hand."""

import itertools

import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra import clues as zebra_clues
from mdm_jax.tasks.zebra import deduction as zebra_deduction
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import riddles as zebra_riddles
from mdm_jax.tasks.zebra.clues import LARGEST, Size


def sizes(puzzles):
    return np.stack(zebra_clues.sizes_of(puzzles), axis=1).tolist()


def can_hold(kind, places, houses):
    return zebra_clues.relations()[(houses, kind, *places, *[0] * (3 - len(places)))]


def deduce_with_sets(clues, solution, houses, attributes):
    """The order and the grid of the rules, from what the module says of them."""
    values = [6 * attribute + value for attribute in range(attributes) for value in range(houses)]
    cells = [6 * attribute + house for attribute in range(attributes) for house in range(houses)]
    open_to = {value: set(range(houses)) for value in values} | {36 + house: {house} for house in range(houses)}
    order, filled, looked_up = {}, {}, False

    def single():
        for value in values:
            if len(open_to[value]) == 1:
                cell = value - value % 6 + min(open_to[value])
                if cell not in order:
                    return value, cell
        for cell in cells:
            left = [v for v in values if v // 6 == cell // 6 and cell % 6 in open_to[v]]
            if len(left) == 1 and cell not in order:
                return left[0], cell
        return None

    def strike():
        for kind, *terms in clues.tolist():
            terms = [term for term in terms if term >= 0]
            if kind < 0:
                continue
            ways = [p for p in itertools.product(*(open_to[t] for t in terms)) if can_hold(kind, p, houses)]
            left = [{way[role] for way in ways} for role in range(len(terms))]
            if left != [open_to[term] for term in terms]:
                open_to.update(zip(terms, left, strict=True))
                return True
        return False

    while len(order) < len(cells):
        found = single()
        if found is None:
            if strike():
                continue
            looked_up = True
            fewest = min(len(open_to[value]) for value in values if len(open_to[value]) > 1)
            value = next(value for value in values if len(open_to[value]) == fewest)
            found = value, next(c for c in cells if c // 6 == value // 6 and solution[c] == value % 6)
        value, cell = found
        order[cell] = (len(order) + 1) * (-1 if looked_up else 1)
        if not looked_up:
            filled[cell] = value % 6
        for other in values:
            if other // 6 == value // 6:
                open_to[other].discard(cell % 6)
        open_to[value] = {cell % 6}
    return [order.get(cell, 0) for cell in range(36)], [filled.get(cell, -1) for cell in range(36)]


@pytest.mark.parametrize(("largest", "num"), [(Size(3, 3), 100), (Size(4, 4), 100), (LARGEST, 60)])
def test_deduce_takes_the_steps_of_a_plain_solver_with_sets(largest, num):
    puzzles, solutions = zebra.generate(num, largest=largest, seed=1)
    found = zebra_deduction.deduce(puzzles, solutions)
    for i, (clues, solution, size) in enumerate(zip(puzzles, solutions.tolist(), sizes(puzzles), strict=True)):
        order, filled = deduce_with_sets(clues, solution, *size)
        assert found.order[i].tolist() == order
        assert found.filled[i].tolist() == filled
    assert 0 < found.is_solved.sum() < num


@pytest.mark.parametrize("houses", [3, 4])
@pytest.mark.parametrize("kind", range(7))
def test_deduce_one_clue_strikes_out_just_what_no_arrangement_allows(houses, kind):
    """With a clue and houses known for some values, a value falls if, by the clue alone, it has one house."""
    rng = np.random.default_rng(kind)
    arity = int(zebra_clues.ARITY[kind])
    terms = [0, 7, 14][:arity]  # of different attributes, so that only the clue relates them
    for _ in range(40):
        places = rng.integers(houses, size=arity)
        if not can_hold(kind, places, houses):
            continue
        known = rng.random(arity) < 0.5
        told = [[0, term, 36 + place, -1] for term, place, given in zip(terms, places, known, strict=True) if given]
        told.append([1, 12, 11 + houses, -1])  # the size
        clues = np.array([*told, [kind, *terms, *[-1] * (3 - arity)]], np.int8)
        solution = np.full((6, 6), -1)
        for attribute, (term, place) in enumerate(zip(terms, places, strict=True)):
            row = [v for v in range(houses) if v != term % 6]
            solution[attribute, :houses] = [*row[:place], term % 6, *row[place:]]
        for attribute in range(arity, 3):
            solution[attribute, :houses] = range(houses)
        (filled,) = zebra_deduction.deduce([clues], [solution.reshape(-1)]).filled
        ways = [
            other
            for other in itertools.product(range(houses), repeat=arity)
            if can_hold(kind, other, houses)
            and all(not given or other[i] == places[i] for i, given in enumerate(known))
        ]
        for role, term in enumerate(terms):
            fell = np.flatnonzero(filled[6 * role : 6 * role + houses] == term % 6).tolist()
            possible = {way[role] for way in ways}
            assert fell == (sorted(possible) if len(possible) == 1 else [])


def test_deduce_is_never_wrong_and_its_order_counts_through():
    puzzles, solutions = zebra.generate(3000, seed=2)
    found = zebra_deduction.deduce(puzzles, solutions)
    assert {array.dtype for array in (found.order, found.filled)} == {np.dtype(np.int8)}
    is_cell = solutions >= 0
    by_rules = found.order > 0
    np.testing.assert_array_equal(np.where(by_rules, solutions, -1), found.filled)
    np.testing.assert_array_equal(found.order != 0, is_cell)
    for order, is_solved in zip(found.order, found.is_solved, strict=True):
        ranks = order[np.argsort(abs(order), kind="stable")]
        ranks = ranks[ranks != 0].tolist()
        assert [abs(rank) for rank in ranks] == list(range(1, len(ranks) + 1))
        signs = [rank > 0 for rank in ranks]
        assert signs == sorted(signs, reverse=True), "after the first look all are marked"
        assert is_solved == all(signs)
    assert 0.5 < found.is_solved.mean() < 0.8


def test_deduce_order_does_not_depend_on_the_other_puzzles():
    puzzles, solutions = zebra.generate(20, seed=3)
    whole = zebra_deduction.deduce(puzzles, solutions)
    for i in range(20):
        alone = zebra_deduction.deduce(puzzles[i : i + 1], solutions[i : i + 1])
        for all_rows, rows in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(rows[0], all_rows[i])


def test_deduce_small_puzzle_falls_in_the_order_worked_out_by_hand():
    # Value 0 of attribute 0 is in house 0; value 0 of attribute 1 is with it; of attribute 2, value 1 is left of value
    # 0, which is left of value 2. The rest is what is left over.
    clues = [[2, 13, 12, -1], [2, 12, 14, -1], [0, 0, 6, -1], [0, 0, 36, -1], [2, 1, 2, -1], [2, 8, 7, -1]]
    solution = np.full((6, 6), -1)
    solution[:3, :3] = [[0, 1, 2], [0, 2, 1], [1, 0, 2]]
    order = zebra_deduction.deduce([clues], [solution.reshape(-1)]).order.reshape(6, 6)
    # Clue 0 takes house 2 from value 1 and house 0 from value 0, clue 1 house 2 from value 0: it has house 1 left.
    # Then 1 has house 0, and 2 house 2. Clue 3 is the first of the others to change anything: 0 0 falls, then clue 2
    # takes 0 of attribute 1 there; then clue 4 settles attribute 0, and clue 5 attribute 1, value 1 before value 2.
    assert order[:3, :3].tolist() == [[4, 6, 7], [5, 9, 8], [2, 1, 3]]


def test_deduce_solves_the_fish_riddle_without_a_look_at_the_solution():
    clues = zebra_riddles.FISH.clues[None]
    solutions, _ = zebra.solve(clues)
    found = zebra_deduction.deduce(clues, solutions)
    assert found.is_solved.all()
    np.testing.assert_array_equal(found.filled, solutions)
    first = np.argsort(np.where(found.order[0] > 0, found.order[0], 99))[:3]
    # Milk in the centre and the Norwegian at the end need no thought; the blue house is next to the Norwegian's.
    assert {(2, 2), (0, 0), (1, 1)} == {divmod(int(cell), 6) for cell in first}


def test_deduce_wrong_solution_raises():
    puzzles, solutions = zebra.generate(3)
    with pytest.raises(InputError, match=r"solutions\[0\] does not solve its puzzle"):
        zebra_deduction.deduce(puzzles, solutions[[1, 0, 2]])
