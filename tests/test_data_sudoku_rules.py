"""The seven rules on hand-made candidates, against a plain Python solver, and on puzzles in bulk."""

import itertools

import numba
import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku import rules as sudoku_rules
from mdm_jax.tasks.sudoku.rules import Rule

HARDER = [rule for rule in Rule if rule > Rule.HIDDEN_SINGLE]


class Reference:
    """The rules as they are described, on sets: slow, with nothing shared with the compiled ones."""

    def __init__(self, size):
        rows, columns = sudoku.BOXES[size]
        grid = list(itertools.product(range(size), repeat=2))
        boxes = [
            [p for p in grid if (p[0] // rows, p[1] // columns) == (i, j)] for i in range(columns) for j in range(rows)
        ]
        lines = [[(r, c) for c in range(size)] for r in range(size)]
        groups = [*lines, *[[(r, c) for r in range(size)] for c in range(size)], *boxes]
        self.size, self.cells, self.boxes = size, grid, boxes
        self.groups = [[size * r + c for r, c in group] for group in groups]
        self.peers = [{q for group in self.groups if p in group for q in group} - {p} for p in range(size * size)]

    def singles(self, left):
        """(rule, cell, digit) of the first single, or None."""
        for p, digits in enumerate(left):
            if len(digits) == 1:
                return Rule.LONE_SINGLE, p, min(digits)
        for group in self.groups:
            for p, digit in [(q, digit) for q in group for digit in sorted(left[q])]:
                if [q for q in group if digit in left[q]] == [p]:
                    return Rule.HIDDEN_SINGLE, p, digit
        return None

    def naked_pairs(self, left):
        for group in self.groups:
            for a, b in itertools.combinations(group, 2):
                if len(left[a]) == 2 and left[a] == left[b]:
                    yield self.seen_by(a, b), left[a]

    def naked_triplets(self, left):
        for group in self.groups:
            for digits in (left[p] for p in group):
                members = [p for p in group if left[p] and len(left[p] | digits) <= 3]
                if 2 <= len(digits) <= 3 and 2 <= sum(left[p] == digits for p in group) <= 3 and len(members) == 3:
                    yield self.seen_by(*members), set.union(*(left[p] for p in members))

    def locked_candidates(self, left):
        for group in self.groups:
            for p, digit in [(q, digit) for q in group for digit in sorted(left[q])]:
                places = [q for q in group if digit in left[q]]
                if len(places) == 2 and places[0] == p:
                    yield self.seen_by(*places), {digit}

    def xy_wings(self, left):
        for pivot in range(len(left)):
            for a, b in itertools.combinations(sorted(self.peers[pivot]), 2):
                three = [left[pivot], left[a], left[b]]
                is_wing = len(set.union(*three)) == 3 and not set.intersection(*three)
                if is_wing and all(len(digits) == 2 for digits in three):
                    yield self.seen_by(a, b), left[a] & left[b]

    def unique_rectangles(self, left):
        in_box = {p: i for i, box in enumerate(self.boxes) for p in box}
        for r, c in self.cells:
            pair = left[r * self.size + c]
            for other_c, other_r in itertools.product(range(self.size), repeat=2):
                corners = [(r, c), (r, other_c), (other_r, c), (other_r, other_c)]
                bivalue = all(left[i * self.size + j] == pair for i, j in corners[:3]) and len(pair) == 2
                if bivalue and other_r != r and other_c != c and len({in_box[p] for p in corners}) == 2:
                    yield {other_r * self.size + other_c}, pair

    def seen_by(self, *cells):
        return set.intersection(*(self.peers[p] for p in cells))

    def rate(self, puzzle, solution, rules=Rule):
        """(is_solved, order, rule, filled) as of one row of a Rating; fails as soon as a rule drops a right digit."""
        left = [set(range(1, self.size + 1)) for _ in puzzle]
        filled, order, rule = puzzle.tolist(), [0 if digit else -1 for digit in puzzle], [0] * len(puzzle)
        for p, digit in enumerate(puzzle):
            if digit:
                self.fill(left, p, digit)
        step, hardest = 0, Rule.GIVEN
        harder = zip(
            HARDER,
            (self.naked_pairs, self.naked_triplets, self.locked_candidates, self.xy_wings, self.unique_rectangles),
            strict=True,
        )
        harder = [(number, instances) for number, instances in harder if number in rules]
        while 0 in filled:
            for p, digit in enumerate(solution):
                assert filled[p] in (0, digit)
                assert filled[p] or digit in left[p]
            single = self.singles(left)
            if single and single[0] in rules:
                used, p, digit = single
                self.fill(left, p, digit)
                step += 1
                filled[p], order[p], rule[p], hardest = digit, step, max(hardest, used), Rule.GIVEN
                continue
            found = self.first(left, harder)
            if found is None:
                break
            used, cells, digits = found
            for p in cells:
                left[p] = left[p] - digits
            hardest = max(hardest, used)
        return 0 not in filled, order, rule, filled

    def fill(self, left, cell, digit):
        left[cell] = set()
        for p in self.peers[cell]:
            left[p] = left[p] - {digit}

    def first(self, left, harder):
        """The first instance that changes something."""
        for number, instances in harder:
            for cells, digits in instances(left):
                if any(left[p] & digits for p in cells):
                    return number, cells, digits
        return None


REFERENCE = {size: Reference(size) for size in sudoku.BOXES}
ALL = "123456789"


def board(position):
    """Candidates as the compiled rules take them: all nine digits but in the cells named; "24" is row 2, column 4."""
    left = np.full(81, 511)
    for name, digits in position.items():
        left[9 * int(name[0]) + int(name[1]) - 10] = sum(1 << int(digit) - 1 for digit in digits)
    return left


def row_without(row, digits, *, but=()):
    return {f"{row}{c}": "".join(d for d in ALL if d not in digits) for c in range(1, 10) if c not in but}


def column_without(column, digits, *, but=()):
    return {name[::-1]: left for name, left in row_without(column, digits, but=but).items()}


def box_without(box, digits, *, but=()):
    """Cells of a box are numbered from 1 too, as the boxes are."""
    corner, cells = divmod(box - 1, 3), row_without(0, digits, but=but)
    return {
        f"{3 * corner[0] + i // 3 + 1}{3 * corner[1] + i % 3 + 1}": cells[f"0{i + 1}"]
        for i in range(9)
        if f"0{i + 1}" in cells
    }


def lost(rule, position):
    """Which digits each cell loses by one application of a rule; None where it does not apply."""
    cells, sees, units = sudoku.cells_of_units(9), sudoku_rules._sees(9), sudoku.units_of_cells(9)
    before = board(position)
    left = before.copy()
    applied = {
        Rule.NAKED_PAIR: lambda: sudoku_rules._naked_pair(left, cells, sees),
        Rule.NAKED_TRIPLET: lambda: sudoku_rules._naked_triplet(left, cells, sees),
        Rule.LOCKED_CANDIDATE: lambda: sudoku_rules._locked_candidate(left, cells, sees),
        Rule.XY_WING: lambda: sudoku_rules._xy_wing(left, sees),
        Rule.UNIQUE_RECTANGLE: lambda: sudoku_rules._unique_rectangle(left, units),
    }[rule]()
    assert not (left & ~before).any()
    gone = before & ~left
    changed = {
        f"{p // 9 + 1}{p % 9 + 1}": "".join(d for d in ALL if gone[p] >> int(d) - 1 & 1) for p in np.flatnonzero(gone)
    }
    assert applied == bool(changed)
    return changed or None


def each(names, digits):
    return dict.fromkeys(names.split(), digits)


@pytest.mark.parametrize(
    ("position", "cell"),
    [
        ({}, -1),
        ({"23": "5"}, 11),
        ({"71": "4", "23": "5"}, 11),
        ({"23": "56", "99": "", "98": "1"}, 79),
        ({"11": "", "12": "12"}, -1),
    ],
    ids=["none", "one", "first-of-two", "after-pair-and-filled", "filled-is-none"],
)
def test_lone_single_is_the_first_cell_with_one_candidate(position, cell):
    assert sudoku_rules._lone_single(board(position)) == cell


@pytest.mark.parametrize(
    ("position", "cell", "digit"),
    [
        ({}, -1, None),
        (row_without(4, "5", but=[7]), 33, 5),
        (column_without(4, "5", but=[7]), 57, 5),
        (box_without(6, "9", but=[1]), 33, 9),
        (row_without(4, "5", but=[6, 7]), -1, None),
        (row_without(4, "5"), -1, None),
        (column_without(1, "2", but=[3]) | row_without(9, "5", but=[8]), 79, 5),
        (row_without(4, "57", but=[3, 6]) | {"43": "7123", "46": "512"}, 29, 7),
        (row_without(4, "57", but=[3]), 29, 5),
    ],
    ids=["none", "row", "column", "box", "two-places", "no-place", "rows-first", "leftmost-cell-first", "lower-first"],
)
def test_hidden_single_is_the_first_cell_that_alone_holds_a_digit_of_a_unit(position, cell, digit):
    found = sudoku_rules._hidden_single(board(position), sudoku.cells_of_units(9))
    assert found == (cell, 0 if digit is None else 1 << digit - 1)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ({"11": "12", "15": "12"}, each("12 13 14 16 17 18 19", "12")),
        ({"29": "37", "69": "37"}, each("19 39 49 59 79 89 99", "37")),
        ({"11": "12", "22": "12"}, each("12 13 21 23 31 32 33", "12")),
        ({"11": "12", "12": "12"}, each("13 14 15 16 17 18 19 21 22 23 31 32 33", "12")),
        (each("11 15", "12") | {"12": "13", "13": "3", "14": "25"}, each("16 17 18 19", "12") | {"12": "1", "14": "2"}),
        ({"11": "12", "51": "12", "92": "34", "97": "34"}, each("91 93 94 95 96 98 99", "34")),
        (row_without(1, "12") | {"11": "12", "15": "12"} | {"41": "12"}, each("21 31 51 61 71 81 91", "12")),
        ({"11": "12", "15": "13"}, None),
        ({"11": "123", "15": "123"}, None),
        ({"11": "12", "25": "12"}, None),
        ({"11": "1", "15": "1"}, None),
        ({"11": "", "15": ""}, None),
        (row_without(1, "12") | {"11": "12", "15": "12"}, None),
    ],
    ids=[
        "row", "column", "box", "row-and-box", "what-is-there", "rows-first", "useless-row-then-column",
        "other-pair", "three-digits", "no-unit", "singles", "filled", "nothing-to-lose",
    ],
)  # fmt: skip
def test_naked_pair_takes_its_digits_from_cells_that_see_both(position, expected):
    assert lost(Rule.NAKED_PAIR, position) == expected


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (each("11 14 17", "123"), each("12 13 15 16 18 19", "123")),
        (each("11 14", "123") | {"17": "23"}, each("12 13 15 16 18 19", "123")),
        (each("41 81", "123") | {"11": "13"}, each("21 31 51 61 71 91", "123")),
        (each("11 12 13", "789"), each("14 15 16 17 18 19 21 22 23 31 32 33", "789")),
        (each("11 12 23", "789"), each("13 21 22 31 32 33", "789")),
        (each("11 14", "12") | {"17": "13"}, each("12 13 15 16 18 19", "123")),
        ({"11": "12", "14": "23", "17": "13"}, None),
        ({"11": "123", "14": "12", "17": "13"}, None),
        (each("11 14", "123") | {"17": "12", "19": "13"}, None),
        (each("11 14", "123"), None),
        (each("11 14", "123") | {"17": "124"}, None),
        (each("11 14 17", "1234"), None),
        (each("11 14", "123") | {"27": "123"}, None),
        (each("11 14", "123") | {"17": ""}, None),
        (row_without(1, "123") | each("11 14 17", "123"), None),
    ],
    ids=[
        "row", "two-equal", "column", "row-and-box", "box", "equal-pairs", "no-two-equal", "triple-once", "four-cells",
        "two-cells", "four-digits", "all-four-digits", "no-unit", "third-is-filled", "nothing-to-lose",
    ],
)  # fmt: skip
def test_naked_triplet_with_two_equal_cells_takes_its_digits_from_cells_that_see_all(position, expected):
    assert lost(Rule.NAKED_TRIPLET, position) == expected


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (row_without(1, "5", but=[1, 2]), each("21 22 23 31 32 33", "5")),
        (column_without(4, "7", but=[1, 3]), each("15 16 25 26 35 36", "7")),
        (box_without(1, "5", but=[4, 6]), each("24 25 26 27 28 29", "5")),
        (box_without(5, "5", but=[2, 8]), each("15 25 35 75 85 95", "5")),
        (row_without(1, "5", but=[1, 2, 3]), None),
        (row_without(1, "5", but=[1, 4]), None),
        (row_without(1, "5", but=[1]), None),
        (box_without(1, "5", but=[1, 5]), None),
        (row_without(1, "5", but=[1, 2]) | box_without(1, "5", but=[1, 2]), None),
        (
            row_without(1, "57", but=[1, 2, 4, 5]) | each("11 12", "127") | each("14 15", "125"),
            each("21 22 23 31 32 33", "7"),
        ),
        (row_without(1, "57", but=[1, 2]), each("21 22 23 31 32 33", "5")),
        (
            row_without(1, "57", but=[1, 2, 3]) | {"12": ALL.replace("5", ""), "13": ALL.replace("7", "")},
            each("21 22 23 31 32 33", "5"),
        ),
    ],
    ids=[
        "row-in-box", "column-in-box", "box-in-row", "box-in-column", "three-places", "two-boxes", "one-place",
        "no-line", "nothing-to-lose", "leftmost-cell-first", "lower-digit-first", "lower-digit-before-nearer-cell",
    ],
)  # fmt: skip
def test_locked_candidate_with_two_places_leaves_the_cells_that_see_both(position, expected):
    assert lost(Rule.LOCKED_CANDIDATE, position) == expected


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ({"11": "12", "15": "13", "51": "23"}, {"55": "3"}),
        ({"11": "12", "22": "13", "17": "23"}, each("12 13 27 28 29", "3")),
        ({"55": "89", "95": "79", "64": "78"}, each("45 65 74 84 94", "7")),
        ({"11": "12", "15": "13", "51": "23", "55": "1346"}, {"55": "3"}),
        ({"11": "12", "15": "13", "51": "23", "55": "1246"}, None),
        ({"11": "12", "15": "13", "51": "24"}, None),
        ({"11": "12", "15": "13", "51": "13"}, None),
        ({"11": "12", "15": "23", "51": "23"}, None),
        ({"11": "12", "15": "34", "51": "34"}, None),
        ({"11": "123", "15": "13", "51": "23"}, None),
        ({"11": "12", "15": "123", "51": "23"}, None),
        ({"11": "12", "25": "13", "51": "23"}, None),
        ({"11": "12", "15": "12", "51": "12"}, None),
        ({"11": "12", "12": "13", "32": "23"}, each("13 21 22 23 31 33 42 52 62 72 82 92", "3")),
    ],
    ids=[
        "lines", "box-and-line", "box-below", "what-is-there", "nothing-to-lose", "two-ends", "same-wings",
        "same-other-wings", "strangers", "pivot-of-three", "wing-of-three", "unseen-wing", "three-alike",
        "all-in-sight",
    ],
)  # fmt: skip
def test_xy_wing_takes_the_common_digit_from_cells_that_see_both_ends(position, expected):
    assert lost(Rule.XY_WING, position) == expected


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (each("11 14 21", "12"), {"24": "12"}),
        (each("14 21 24", "12"), {"11": "12"}),
        (each("11 21 24", "12"), {"14": "12"}),
        (each("11 14 24", "12"), {"21": "12"}),
        (each("11 12 41", "58"), {"42": "58"}),
        (each("79 99 76", "58"), {"96": "58"}),
        (each("11 14 21", "12") | {"24": "139"}, {"24": "1"}),
        (each("11 14 21", "12") | {"24": "349"}, None),
        (each("11 14 21", "12") | {"24": ""}, None),
        (each("11 14 41", "12"), None),
        (each("11 12 21", "12"), None),
        (each("11 14", "12") | {"21": "13"}, None),
        (each("11 14 21", "123"), None),
        (each("11 14", "12"), None),
        (each("11 14 25", "12"), None),
    ],
    ids=[
        "last-corner", "first-corner", "right-corner", "lower-corner", "boxes-one-below-the-other", "far-corner",
        "one-digit-there", "nothing-to-lose", "fourth-is-filled", "four-boxes", "one-box", "other-pair", "three-digits",
        "two-corners", "no-rectangle",
    ],
)  # fmt: skip
def test_unique_rectangle_in_two_boxes_takes_the_pair_from_the_fourth_corner(position, expected):
    assert lost(Rule.UNIQUE_RECTANGLE, position) == expected


@pytest.fixture(scope="module")
def minimal():
    """Random minimal puzzles: puzzles, solutions, rating."""
    puzzles, solutions = sudoku.generate(10_000, seed=7)
    return puzzles, solutions, sudoku_rules.rate(puzzles)


@pytest.mark.slow
def test_rate_minimal_puzzles_in_bulk_writes_no_wrong_digit(minimal):
    puzzles, solutions, rating = minimal
    assert ((rating.filled == solutions) | (rating.filled == 0)).all()
    assert (rating.filled > 0).sum() > (puzzles > 0).sum()
    np.testing.assert_array_equal(rating.is_solved, (rating.filled == solutions).all(axis=1))


@numba.njit
def wrong_steps(units, cells, sees, puzzles, solutions):
    """How often one of the compiled rules took the solution's digit from a blank, and how often one took any."""
    wrong, num_steps = 0, 0
    for i in range(len(puzzles)):
        left = np.full(puzzles.shape[1], (1 << cells.shape[1]) - 1)
        for cell in np.flatnonzero(puzzles[i]):
            sudoku_rules._place(left, sees, cell, 1 << (puzzles[i, cell] - 1))
        blanks = puzzles[i] == 0
        while True:
            cell, bit = sudoku_rules._hidden_single(left, cells)
            lone = sudoku_rules._lone_single(left)
            if lone >= 0:
                cell, bit = lone, left[lone]
            if cell >= 0:
                blanks[cell] = False
                sudoku_rules._place(left, sees, cell, bit)
                wrong += bit != 1 << (solutions[i, cell] - 1)
            elif not (
                sudoku_rules._naked_pair(left, cells, sees)
                or sudoku_rules._naked_triplet(left, cells, sees)
                or sudoku_rules._locked_candidate(left, cells, sees)
                or sudoku_rules._xy_wing(left, sees)
                or sudoku_rules._unique_rectangle(left, units)
            ):
                break
            num_steps += 1
            for blank in np.flatnonzero(blanks):
                wrong += not left[blank] & (1 << (solutions[i, blank] - 1))
    return wrong, num_steps


@pytest.mark.slow
def test_rules_on_minimal_puzzles_in_bulk_take_no_right_digit_from_any_blank(minimal):
    puzzles, solutions, rating = minimal
    tables = sudoku.units_of_cells(9), sudoku.cells_of_units(9), sudoku_rules._sees(9)
    wrong, num_steps = wrong_steps(*tables, puzzles, solutions)
    assert wrong == 0
    assert num_steps > (rating.order > 0).sum(), "eliminations are steps, too"
    other = np.roll(solutions, 1, axis=0)
    assert wrong_steps(*tables, puzzles[:10], other[:10])[0] > 0, "what is wrong is counted"


def test_rate_minimal_puzzles_in_bulk_numbers_the_blanks_without_gaps(minimal):
    puzzles, _, rating = minimal
    np.testing.assert_array_equal(rating.order == 0, puzzles > 0)
    np.testing.assert_array_equal(rating.order == -1, rating.filled == 0)
    for order in rating.order:
        steps = np.sort(order[order > 0])
        np.testing.assert_array_equal(steps, np.arange(len(steps)) + 1)
    np.testing.assert_array_equal(rating.rule > 0, rating.order > 0)
    assert set(np.unique(rating.rule)) == set(Rule)
    np.testing.assert_array_equal(rating.hardest, rating.rule.max(axis=1))


def test_rate_minimal_puzzles_in_bulk_solves_as_many_as_the_papers_solver(minimal):
    _, _, rating = minimal
    assert 0.60 < rating.is_solved.mean() < 0.65
    # Of 11,130 such puzzles dokusan, the paper's solver, got through 61.9%; the shares of the hardest rule among
    # them are below. Its XY-wing is unsound, so the rules before it are compared.
    hardest = rating.hardest[rating.is_solved]
    for rule, share in {2: 0.017, 3: 0.661, 4: 0.141, 5: 0.028, 6: 0.095}.items():
        expected, found = 0.619 * share, (hardest == rule).sum() / len(rating.order)
        assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) * (1 / 11_130 + 1 / len(rating.order)))


def assert_same_as_reference(puzzles, solutions, rating, rows):
    size = sudoku.size_of(puzzles.shape[1])
    for i in rows:
        is_solved, order, rule, filled = REFERENCE[size].rate(puzzles[i], solutions[i].tolist())
        assert is_solved == rating.is_solved[i]
        np.testing.assert_array_equal(rating.order[i], order)
        np.testing.assert_array_equal(rating.rule[i], rule)
        np.testing.assert_array_equal(rating.filled[i], filled)


@pytest.mark.parametrize("hardest", [rule for rule in Rule if rule])
def test_rate_takes_the_same_steps_as_the_plain_solver_and_needs_each_rule(minimal, hardest):
    puzzles, solutions, rating = minimal
    rows = np.flatnonzero(rating.is_solved & (rating.hardest == hardest))[:10]
    assert len(rows) == 10
    assert_same_as_reference(*minimal, rows)
    without = [rule for rule in Rule if rule < hardest]
    assert not any(REFERENCE[9].rate(puzzles[i], solutions[i].tolist(), without)[0] for i in rows)


def test_rate_gives_up_where_the_plain_solver_does(minimal):
    unsolved = np.flatnonzero(~minimal[2].is_solved)[:20]
    assert_same_as_reference(*minimal, unsolved)


@pytest.mark.parametrize("size", [4, 6])
def test_rate_small_puzzles_takes_the_same_steps_as_the_plain_solver(size):
    puzzles, solutions = sudoku.generate(40, size=size, seed=3)
    rating = sudoku_rules.rate(puzzles)
    assert_same_as_reference(puzzles, solutions, rating, range(40))


def test_rate_any_number_of_threads_gives_the_same(minimal):
    puzzles = minimal[0][:500]
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = sudoku_rules.rate(puzzles)
    finally:
        numba.set_num_threads(before)
    for found, expected in zip(alone, minimal[2], strict=True):
        np.testing.assert_array_equal(found, expected[:500])


def test_rate_full_grid_and_no_puzzles_at_all():
    grids = sudoku.generate(2, clues=81)[1]
    rating = sudoku_rules.rate(grids)
    assert rating.is_solved.all()
    assert not rating.order.any()
    assert not rating.rule.any()
    np.testing.assert_array_equal(rating.filled, grids)
    empty = sudoku_rules.rate(np.zeros((0, 81), np.int8))
    assert [field.shape for field in empty] == [(0,), (0, 81), (0, 81), (0, 81)]


def test_rate_leaves_its_input_alone_and_takes_any_integers(minimal):
    puzzles = minimal[0][:3]
    for given_as in (puzzles.astype(np.int64), puzzles.tolist(), np.asfortranarray(puzzles)):
        np.testing.assert_array_equal(sudoku_rules.rate(given_as).order, minimal[2].order[:3])
    frozen = puzzles.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(sudoku_rules.rate(frozen).order, minimal[2].order[:3])


@pytest.mark.parametrize(
    ("puzzles", "words"),
    [
        (np.zeros(81, np.int8), r"shape \(81,\).*\[num, cells\]"),
        (np.zeros((2, 81)), "float64"),
        (np.zeros((2, 80), np.int8), "80 cells.*16, 36 or 81"),
        (np.full((1, 36), 7), r"puzzles\[0, 0\] is 7.* 1 to 6"),
    ],
)
def test_rate_bad_input_raises_one_line_that_names_it(puzzles, words):
    with pytest.raises(InputError, match=words) as caught:
        sudoku_rules.rate(puzzles)
    assert "\n" not in str(caught.value)
