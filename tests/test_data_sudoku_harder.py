"""Chains of ever harder puzzles: what they are, what they depend on, and the command that writes them."""

import functools
import pathlib

import commands
import numpy as np
import pytest
from commands import assert_refused, rows

from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import harder, public_lists
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.files import read_puzzles
from mdm_jax.tasks.sudoku.harder import generate_harder, guesses

run = functools.partial(commands.run, "sudoku")
SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"


def joined(*arguments, **options):
    parts = list(generate_harder(*arguments, **options))
    return tuple(
        np.concatenate([getattr(part, name) for part in parts]) for name in ("puzzles", "solutions", "guesses")
    )


def slow_guesses(puzzle):
    """The same count in plain Python, for puzzles where the search fails at once or ends: recursion over candidates."""
    units = sudoku.units_of_cells(9)
    peers = [np.flatnonzero((units == units[cell]).any(axis=1)) for cell in range(81)]
    cells = sudoku.cells_of_units(9)

    def candidates(grid, cell):
        return [d for d in range(1, 10) if d not in grid[peers[cell]]]

    def propagate(grid):
        """Singles until none is left; None at a contradiction."""
        while True:
            before = grid.copy()
            for cell in np.flatnonzero(grid == 0):
                found = candidates(grid, cell)
                if not found:
                    return None
                if len(found) == 1:
                    grid[cell] = found[0]
            for unit in cells:
                for d in range(1, 10):
                    if d in grid[unit]:
                        continue
                    places = [cell for cell in unit if grid[cell] == 0 and d in candidates(grid, cell)]
                    if not places:
                        return None
                    if len(places) == 1:
                        grid[places[0]] = d
            if (before == grid).all():
                return grid

    def tried(grid):
        grid = propagate(grid.copy())
        if grid is None or (grid > 0).all():
            return 0
        cell = min(np.flatnonzero(grid == 0), key=lambda cell: len(candidates(grid, cell)))
        total = 0
        for d in candidates(grid, cell):
            guessed = grid.copy()
            guessed[cell] = d
            total += 1 + tried(guessed)
        return total

    return tried(puzzle.astype(int))


def test_a_chain_is_of_minimal_puzzles_of_one_solution_each_harder_than_the_one_before():
    puzzles, solutions, needed = joined(6, steps=40, seed=3)
    found, counts = sudoku.solve(puzzles)
    assert (counts == 1).all()
    np.testing.assert_array_equal(found, solutions)
    np.testing.assert_array_equal(guesses(puzzles), needed)
    is_same = (solutions[1:] == solutions[:-1]).all(axis=1)
    assert is_same.sum() == len(puzzles) - 6
    assert (np.diff(needed)[is_same] > 0).all()
    puzzle = puzzles[needed.argmax()]
    without = np.where(np.eye(81, dtype=bool)[np.flatnonzero(puzzle)], 0, puzzle).astype(np.int8)
    assert (sudoku.solve(without)[1] == 2).all(), "every given is needed"
    shared = [
        np.count_nonzero((a > 0) & (b > 0)) for a, b in zip(puzzles[:-1][is_same], puzzles[1:][is_same], strict=True)
    ]
    assert np.median(shared) > 15, "a step is a small change"


def test_many_steps_lead_to_far_more_guesses_than_random_puzzles_need():
    _, solutions, needed = joined(32, steps=300, seed=1)
    is_last = np.append((solutions[1:] != solutions[:-1]).any(axis=1), True)
    at_random = guesses(sudoku.generate(300, seed=1)[0]).mean()
    assert 2 < at_random < 8
    assert needed[is_last].mean() > 8 * at_random


def test_a_chain_depends_on_the_seed_and_its_number_and_not_on_the_others(monkeypatch):
    expected = joined(5, steps=10, seed=7)
    monkeypatch.setattr(harder, "_CHUNK", 20)
    for ours, theirs in zip(joined(5, steps=10, seed=7), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (
        len({grid.tobytes() for grid in expected[1]} & {grid.tobytes() for grid in joined(5, steps=10, seed=8)[1]}) == 0
    )


def test_chains_stay_as_they_are_since_weights_were_trained_on_some():
    puzzles, _, needed = joined(2, steps=300, seed=4)
    assert needed.tolist() == [2, 6, 20, 28, 30, 34, 0, 4, 10, 24, 30, 36, 38]
    last = "000800076000060900002300000910004700004030000603000100400000000000070693000500008"
    assert "".join(map(str, puzzles[-1])) == last


def test_a_chain_begins_with_a_generated_puzzle():
    puzzles, solutions, _ = joined(5, steps=0, seed=9)
    for ours, theirs in zip((puzzles, solutions), sudoku.generate(5, seed=9), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_only_the_hardest_of_a_chain_are_kept(monkeypatch):
    _, _, every = joined(1, steps=300, seed=2)
    monkeypatch.setattr(harder, "MOST", 3)
    _, _, few = joined(1, steps=300, seed=2)
    assert len(every) > 3
    np.testing.assert_array_equal(few, every[-3:])


def test_no_chain_is_related_to_the_public_lists(monkeypatch):
    _, solutions, _ = joined(3, steps=3)
    grids = list(dict.fromkeys(grid.tobytes() for grid in solutions))
    known = np.frombuffer(grids[1], np.int8)[None]
    monkeypatch.setattr(public_lists, "_known", lambda: public_lists.hashes(known))
    _, left, _ = joined(3, steps=3)
    assert list(dict.fromkeys(grid.tobytes() for grid in left)) == [grids[0], grids[2]]


def test_guesses_are_those_of_a_plain_search():
    puzzles = joined(4, steps=20, seed=5)[0]
    needed = guesses(puzzles)
    assert needed.max() > 4
    plain = np.array([slow_guesses(puzzle) for puzzle in puzzles])
    np.testing.assert_array_equal(plain == 0, needed == 0)
    assert 0.5 < plain.sum() / needed.sum() < 2, "of cells with as few digits another may be tried first"
    assert (needed[needed > 0] >= 2).all(), "the other digits of a cell are ruled out, too"


def test_the_public_lists_need_more_guesses_the_harder_they_are_said_to_be():
    if not SHARED.is_dir():
        pytest.skip("shared/data is not at hand")
    lists = ("sudoku_magictour_top1465", "sudoku_forum_hardest_se11_1k", "sudoku_forum_hardest_1106")
    means = [guesses(read_puzzles(SHARED / f"{name}.txt", limit=2000).puzzles).mean() for name in lists]
    assert [round(mean) for mean in means] == [66, 275, 533]


@pytest.mark.parametrize("wrong", [{"chains": 0}, {"chains": -1}, {"steps": -1}, {"seed": 1.5}])
def test_a_wrong_argument_is_named(wrong):
    [name] = wrong
    with pytest.raises(InputError, match=name):
        list(generate_harder(**{"chains": 1, "steps": 1} | wrong))


def test_the_command_writes_puzzles_that_training_reads(tmp_path):
    run("harden", "--chains", 40, "--steps", 5, "--least", 2, "--out", tmp_path / "harder")
    written = read_puzzles(tmp_path / "harder" / "puzzles.txt", size=9)
    puzzles, _, needed = joined(40, steps=5)
    assert (needed == 2).any()
    np.testing.assert_array_equal(written.puzzles, puzzles[needed >= 2])
    [row] = rows(tmp_path / "harder")
    assert row["n"] == len(written.puzzles)
    assert row["givens"] == pytest.approx((written.puzzles > 0).sum(axis=1).mean())
    spread = [row[f"guesses_{q}"] for q in (10, 50, 90)]
    assert spread == [int(np.percentile(needed[needed >= 2], q)) for q in (10, 50, 90)]
    flags = ["--source", tmp_path / "harder" / "puzzles.txt", "--num-train", 30, "--num-test", 1]
    run("prepare", *flags, "--data", tmp_path / "data", "--out", tmp_path / "prepared")
    assert {row["split"]: row["n"] for row in rows(tmp_path / "prepared")} == {"train": 30, "test": 1}


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "harder" / "puzzles.txt").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "puzzles.txt").write_text("kept")
    flags = ["harden", "--chains", 2, "--steps", 1, "--out"]
    assert_refused(
        "sudoku",
        [
            ([*flags, tmp_path / "harder"], "puzzles.txt is a folder: give another --out"),
            ([*flags, tmp_path / "mine"], "puzzles.txt has puzzles, which would be lost: give another --out"),
            ([*flags, tmp_path / "none", "--least", 1000], "no puzzle needs 1000 guesses: lower --least"),
        ],
    )
    assert (tmp_path / "mine" / "puzzles.txt").read_text() == "kept"
    assert not (tmp_path / "none" / "puzzles.txt").exists()
