"""The symmetries: the whole group and nothing else, evenly drawn, and what they leave as it was."""

import itertools

import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku import rules as sudoku_rules
from mdm_jax.tasks.sudoku import symmetry as sudoku_symmetry

SIZES = sorted(sudoku.BOXES)


def moves_by_search(size):
    """Every way to permute rows and columns, and then perhaps transpose, that takes boxes to boxes."""
    boxes = {frozenset(box.tolist()) for box in sudoku.cells_of_units(size)[2 * size :]}
    cells = np.arange(size * size).reshape(size, size)
    orders = [list(order) for order in itertools.permutations(range(size))]
    lines = [cells[order] for order in orders if respects(cells[order], boxes)]
    columns = [order for order in orders if respects(cells[:, order], boxes)]
    moved = [rows[:, order] for rows in lines for order in columns]
    moved += [grid.T for grid in moved if respects(grid.T, boxes)]
    return {tuple(grid.ravel().tolist()) for grid in moved}


def respects(grid, boxes):
    size = len(grid)
    return {frozenset(grid.ravel()[box].tolist()) for box in sudoku.cells_of_units(size)[2 * size :]} == boxes


def assert_evenly_drawn(elements, num_expected):
    """All of so many elements were drawn, and chi-square is not beyond five standard deviations (chance 1e-6)."""
    counts = np.unique(elements, axis=0, return_counts=True)[1]
    assert len(counts) == num_expected
    expected = len(elements) / num_expected
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < (num_expected - 1) + 5 * np.sqrt(2 * (num_expected - 1))


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("size", "num_moves"), [(4, 8 * 8 * 2), (6, 48 * 72)])
def test_random_symmetries_move_cells_in_every_way_that_keeps_the_units_evenly(size, num_moves):
    cells, _ = sudoku_symmetry.random_symmetries(np.random.default_rng(1), 30 * num_moves, size)
    expected = moves_by_search(size)
    assert len(expected) == num_moves
    assert {tuple(move) for move in np.unique(cells, axis=0).tolist()} == expected
    assert_evenly_drawn(cells, num_moves)


def test_random_symmetries_4x4_give_each_pair_of_a_move_and_a_renaming_evenly():
    cells, digits = sudoku_symmetry.random_symmetries(np.random.default_rng(2), 100_000, 4)
    assert_evenly_drawn(np.concatenate([cells, digits], axis=1), 128 * 24)


@pytest.mark.slow
def test_random_symmetries_9x9_rows_columns_turns_and_digits_are_even():
    num = 40_000
    cells, digits = sudoku_symmetry.random_symmetries(np.random.default_rng(3), num, 9)
    grids = cells.reshape(num, 9, 9)
    is_turned = grids[:, 0, 0] % 9 == grids[:, 0, 1] % 9  # a row of the result is a column of the grid
    assert abs(is_turned.mean() - 0.5) < 5 * np.sqrt(0.25 / num)
    upright = np.where(is_turned[:, None, None], grids.swapaxes(1, 2), grids)
    rows, columns = upright[:, :, 0] // 9, upright[:, 0] % 9
    np.testing.assert_array_equal(upright, rows[:, :, None] * 9 + columns[:, None])
    for lines in (rows, columns):
        bands = lines.reshape(num, 3, 3) // 3
        assert (bands == bands[:, :, :1]).all()
        assert_evenly_drawn(lines, 6**4)
    assert_evenly_drawn(np.concatenate([rows[:, :3] // 3, columns[:, :3] % 3, is_turned[:, None]], axis=1), 3 * 6 * 2)
    assert not digits[:, 0].any()
    np.testing.assert_array_equal(np.sort(digits[:, 1:], axis=1), np.tile(np.arange(1, 10), (num, 1)))
    for places in itertools.combinations(range(1, 10), 2):
        assert_evenly_drawn(digits[:, places], 72)


def test_random_symmetries_same_generator_gives_the_same_and_moves_on():
    rng = np.random.default_rng(4)
    first, second = (sudoku_symmetry.random_symmetries(rng, 5, 9) for _ in range(2))
    again = sudoku_symmetry.random_symmetries(np.random.default_rng(4), 5, 9)
    for field, field_again, other in zip(first, again, second, strict=True):
        np.testing.assert_array_equal(field, field_again)
        assert (field != other).any(axis=1).all()


def test_random_symmetries_unknown_size_raises():
    with pytest.raises(InputError, match="size=5"):
        sudoku_symmetry.random_symmetries(np.random.default_rng(0), 1, 5)


def test_transform_moves_then_renames_as_worked_out_by_hand():
    grid = np.array([[1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 0]], np.int8)
    cells = np.array([[5, 4, 6, 7, 1, 0, 2, 3, 9, 8, 10, 11, 13, 12, 14, 15]])  # rows 1 and 2 swap, columns 1 and 2 too
    digits = np.array([[0, 3, 1, 2, 4]], np.int8)
    expected = [[4, 2, 3, 1, 1, 3, 2, 4, 3, 1, 4, 2, 2, 4, 1, 0]]
    np.testing.assert_array_equal(sudoku_symmetry.transform(grid, cells, digits), expected)


@pytest.mark.parametrize("size", SIZES)
def test_transform_puzzles_keep_the_moved_solution_as_their_only_one(size):
    puzzles, solutions = sudoku.generate(300, size=size, seed=5)
    symmetry = sudoku_symmetry.random_symmetries(np.random.default_rng(5), 300, size)
    moved_puzzles, moved_solutions = (sudoku_symmetry.transform(grids, *symmetry) for grids in (puzzles, solutions))
    found, num_solutions = sudoku.solve(moved_puzzles)
    np.testing.assert_array_equal(num_solutions, 1)
    np.testing.assert_array_equal(found, moved_solutions)
    np.testing.assert_array_equal((moved_puzzles > 0).sum(axis=1), (puzzles > 0).sum(axis=1))
    assert (moved_puzzles != puzzles).any(axis=1).mean() > 0.9


def test_transform_puzzles_stay_solvable_by_the_rules_up_to_ties():
    puzzles = sudoku.generate(4000, seed=6)[0]
    symmetry = sudoku_symmetry.random_symmetries(np.random.default_rng(6), len(puzzles), 9)
    before, after = (sudoku_rules.rate(grids) for grids in (puzzles, sudoku_symmetry.transform(puzzles, *symmetry)))
    # Some rules look at what is left as it stands, so that another first step can lose the next; about 1 in 8,000.
    assert (before.is_solved != after.is_solved).sum() <= 5
    assert (before.hardest != after.hardest)[before.is_solved & after.is_solved].sum() <= 5


def test_transform_puzzles_that_singles_solve_or_do_not_stay_so():
    puzzles = sudoku.generate(2000, seed=7)[0]
    symmetry = sudoku_symmetry.random_symmetries(np.random.default_rng(7), len(puzzles), 9)
    singles = [
        (rating.hardest <= sudoku_rules.Rule.HIDDEN_SINGLE) & rating.is_solved
        for rating in map(sudoku_rules.rate, (puzzles, sudoku_symmetry.transform(puzzles, *symmetry)))
    ]
    np.testing.assert_array_equal(*singles)
    assert 0.3 < singles[0].mean() < 0.5


@pytest.mark.parametrize("size", SIZES)
def test_augment_moves_all_fields_alike_and_renames_only_digits(size):
    puzzles, solutions = sudoku.generate(50, size=size, seed=8)
    rating = sudoku_rules.rate(puzzles)
    place = np.tile(np.arange(size * size, dtype=np.int8), (50, 1))
    batch = {"order": rating.order, "puzzle": puzzles, "place": place, "solution": solutions, "rule": rating.rule}
    before = {name: field.copy() for name, field in batch.items()}
    moved = sudoku_symmetry.augment(batch, np.random.default_rng(8))
    assert list(moved) == list(batch)
    for name, field in before.items():
        np.testing.assert_array_equal(batch[name], field)
        assert moved[name].dtype == np.int8
    for i, places in enumerate(moved["place"]):
        for name in ("order", "rule"):
            np.testing.assert_array_equal(moved[name][i], before[name][i][places])
        renamed = dict(zip(before["solution"][i][places].tolist(), moved["solution"][i].tolist(), strict=True))
        assert sorted(renamed) == sorted(renamed.values()) == list(range(1, size + 1))
        expected = [renamed.get(digit, 0) for digit in before["puzzle"][i][places].tolist()]
        assert moved["puzzle"][i].tolist() == expected
    assert sudoku.is_solved(moved["solution"], moved["puzzle"]).all()
    np.testing.assert_array_equal(moved["order"] == 0, moved["puzzle"] > 0)
    assert len(np.unique(moved["place"], axis=0)) > 25  # not one element for the whole batch


def test_split_9x9_no_symmetry_takes_a_grid_to_the_other_side():
    num = 4000
    grids = sudoku.generate(num, clues=81, seed=9)[1]
    is_test = sudoku.in_test_split(grids)
    assert abs(is_test.mean() - 1 / 16) < 4 * np.sqrt(15 / 256 / num)
    rng = np.random.default_rng(9)
    moved = sudoku_symmetry.transform(grids, *sudoku_symmetry.random_symmetries(rng, num, 9))
    np.testing.assert_array_equal(sudoku.in_test_split(moved), is_test)
    for grid, side in zip(grids[:20], is_test, strict=False):  # and one grid under many
        symmetry = sudoku_symmetry.random_symmetries(rng, 300, 9)
        assert (sudoku.in_test_split(sudoku_symmetry.transform(np.tile(grid, (300, 1)), *symmetry)) == side).all()


@pytest.mark.slow
def test_split_9x9_tells_near_relatives_apart():
    # A hash of too little of the grid could pass the test above.
    grids = sudoku.generate(2000, clues=81, seed=10)[1]
    relatives = []
    for grid in grids:
        for a, b in itertools.combinations(range(9), 2):
            rows = grid.reshape(9, 9)[[a, b]]
            columns = [0]
            while rows[0, columns[0]] != rows[1, columns[-1]]:
                columns.append(int(np.flatnonzero(rows[0] == rows[1, columns[-1]])[0]))
            if a // 3 == b // 3 and len(columns) < 9:  # a cycle of two rows of a band, exchanged
                other = grid.reshape(9, 9).copy()
                other[np.ix_([a, b], columns)] = other[np.ix_([b, a], columns)]
                relatives.append((grid, other.ravel()))
    pairs = np.array(relatives[:4000])
    assert sudoku.is_solved(pairs[:, 1], np.zeros_like(pairs[:, 1])).all()
    sides = np.stack([sudoku.in_test_split(pairs[:, k]) for k in range(2)])
    assert (sides[0] != sides[1]).mean() > 0.08  # 0.117 if the sides of relatives are independent
