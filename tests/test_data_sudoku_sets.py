"""The normal and the hard set: generated, read from a file, and as a dataset on disk."""

import pathlib
import re

import numpy as np
import pytest

from mdm_jax.data import builders
from mdm_jax.data.difficulty import check_unique
from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import files as sudoku_files
from mdm_jax.tasks.sudoku import public_lists
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku import rules as sudoku_rules
from mdm_jax.tasks.sudoku.sets import generate_rated, read_rated
from mdm_jax.tasks.sudoku.symmetry import random_symmetries, transform
from mdm_jax.tasks.sudoku.task import Sudoku

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
FIELDS = {"puzzle", "solution", "order", "rule"}


def joined(parts):
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def filtered(puzzles, solutions, difficulty, num):
    """The first `num` of the difficulty, by the verdict of the rules."""
    rating = sudoku_rules.rate(puzzles)
    wanted = {None: np.ones(len(puzzles), bool), "normal": rating.is_solved, "hard": ~rating.is_solved}[difficulty]
    assert wanted.sum() >= num
    kept = np.flatnonzero(wanted)[:num]
    fields = {"puzzle": puzzles, "solution": solutions, "order": rating.order, "rule": rating.rule}
    return {name: rows[kept] for name, rows in fields.items()}


def assert_same(got, expected):
    assert set(got) == set(expected) == FIELDS
    for name, rows in got.items():
        assert rows.dtype == np.int8
        np.testing.assert_array_equal(rows, expected[name])


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("size", "num", "difficulty"),
    [(6, 40, "hard"), (6, 300, "normal"), (6, 300, None), (9, 60, "hard"), (4, 9, "normal")],
)
@pytest.mark.parametrize("split", ["train", None])
def test_generate_rated_is_the_generated_sequence_without_the_other_set(size, num, difficulty, split, monkeypatch):
    options = {"size": size, "seed": 5, "split": split}
    expected = filtered(*sudoku.generate(2400, **options), difficulty, num)
    assert_same(joined(generate_rated(num, difficulty=difficulty, **options)), expected)
    for chunk in (8, 100):
        monkeypatch.setattr("mdm_jax.data.difficulty.CHUNK", chunk)
        parts = list(generate_rated(num, difficulty=difficulty, **options))
        assert all(len(part["puzzle"]) <= chunk for part in parts)
        assert_same(joined(parts), expected)


def test_generate_rated_takes_clues_and_rates_by_them():
    records = joined(generate_rated(30, size=6, clues=14, difficulty="normal", split="test"))
    np.testing.assert_array_equal((records["puzzle"] != 0).sum(axis=1), 14)
    assert_same(records, filtered(*sudoku.generate(200, size=6, clues=14, split="test"), "normal", 30))


@pytest.mark.parametrize("difficulty", ["normal", "hard"])
def test_generate_rated_splits_share_no_solution(difficulty):
    train, test = (
        joined(generate_rated(100, size=6, difficulty=difficulty, split=split))["solution"]
        for split in ("train", "test")
    )
    assert not sudoku.in_test_split(train).any()
    assert sudoku.in_test_split(test).all()
    assert not {grid.tobytes() for grid in train} & {grid.tobytes() for grid in test}


def test_generate_rated_hard_puzzles_that_hardly_exist_end_in_one_line():
    with pytest.raises(InputError, match=r"hard 4x4 puzzles hardly exist: \d+ tried") as caught:
        joined(generate_rated(1, size=4, difficulty="hard"))
    assert "\n" not in str(caught.value)


def sequence():
    """6x6 puzzles of both splits and both sets, mixed."""
    normal = [sudoku.generate(60, size=6, seed=7, split=split) for split in ("train", "test")]
    hard = [
        [
            joined(generate_rated(8, size=6, difficulty="hard", seed=8, split=split))[name]
            for name in ("puzzle", "solution")
        ]
        for split in ("train", "test")
    ]
    puzzles, solutions = (np.concatenate(arrays) for arrays in zip(*normal, *hard, strict=True))
    mixed = np.random.default_rng(0).permutation(len(puzzles))
    return puzzles[mixed], solutions[mixed]


def write_csv(path, puzzles, solutions):
    lines = [",".join("".join(map(str, grid)) for grid in pair) for pair in zip(puzzles, solutions, strict=True)]
    path.write_text("\n".join(["quizzes,solutions", *lines]) + "\n")
    return path


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("difficulty", "num"), [("normal", 50), ("hard", 8), (None, 60)])
def test_read_rated_takes_the_first_of_a_set_and_a_split_in_the_order_of_the_file(tmp_path, split, difficulty, num):
    puzzles, solutions = sequence()
    path = write_csv(tmp_path / "some.csv", puzzles, solutions)
    here = sudoku.in_test_split(solutions) == (split == "test")
    expected = filtered(puzzles[here], solutions[here], difficulty, num)
    assert_same(read_rated(path, num, size=6, difficulty=difficulty, split=split), expected)


def test_read_rated_too_few_or_another_size_is_one_line(tmp_path):
    puzzles, solutions = sequence()
    path = write_csv(tmp_path / "some.csv", puzzles, solutions)
    is_normal = sudoku_rules.rate(puzzles).is_solved
    count = (is_normal & sudoku.in_test_split(solutions)).sum()
    read_rated(path, count, size=6, difficulty="normal", split="test")
    with pytest.raises(
        InputError, match=f"some.csv has {count} normal puzzles for the test split, not {count + 1}"
    ) as caught:
        read_rated(path, count + 1, size=6, difficulty="normal", split="test")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"some.csv has \d+ puzzles for the train split, not 999"):
        read_rated(path, 999, size=6, difficulty=None, split="train")
    with pytest.raises(InputError, match=r"some.csv:2.* 36"):
        read_rated(path, 1, size=9, difficulty=None, split="train")


def test_read_rated_order_and_rules_of_the_file_go_before_ours(tmp_path):
    """What a file says was solved, was: also where our rules give up."""
    puzzles, solutions = sudoku.generate(30, seed=3, split="train")
    ours = sudoku_rules.rate(puzzles)
    assert not ours.is_solved.all()
    is_blank = puzzles == 0
    order = np.where(is_blank, np.cumsum(is_blank, axis=1), 0)
    rule = np.where(is_blank, int(sudoku_rules.Rule.XY_WING), 0)
    path = tmp_path / "solver.npy"
    sudoku_files.write_solver_rows(path, puzzles, solutions, order, rule)
    expected = {"puzzle": puzzles, "solution": solutions, "order": order, "rule": rule}
    for difficulty in (None, "normal"):
        assert_same(read_rated(path, 30, size=9, difficulty=difficulty, split="train"), expected)
    with pytest.raises(InputError, match=r"has 0 hard puzzles"):
        read_rated(path, 1, size=9, difficulty="hard", split="train")


@pytest.mark.parametrize("difficulty", ["normal", "hard"])
def test_prepare_sudoku_holds_the_rated_puzzles(tmp_path, difficulty):
    builder = Sudoku(size=6, difficulty=difficulty, num_train=30, num_test=5, seed=2).prepare(tmp_path)
    assert re.fullmatch(rf"6x6-{difficulty}-[0-9a-f]{{12}}", builder.builder_config.name)
    for split, num in (("train", 30), ("test", 5)):
        expected = filtered(*sudoku.generate(1500, size=6, seed=2, split=split), difficulty, num)
        assert_same(builders.read_split(builder, split), expected)


def test_prepare_sudoku_from_a_file_holds_its_puzzles_and_is_made_anew_when_it_changes(tmp_path):
    puzzles, solutions = sequence()
    path = write_csv(tmp_path / "some.csv", puzzles, solutions)
    options = {"size": 6, "difficulty": "normal", "num_train": 20, "num_test": 10, "source": path}
    builder = Sudoku(**options).prepare(tmp_path / "data")
    assert re.fullmatch(r"6x6-file-normal-[0-9a-f]{12}", builder.builder_config.name)
    is_test = sudoku.in_test_split(solutions)
    for split, here, num in (("train", ~is_test, 20), ("test", is_test, 10)):
        assert_same(builders.read_split(builder, split), filtered(puzzles[here], solutions[here], "normal", num))
    moved = write_csv(tmp_path / "moved.csv", puzzles, solutions)
    assert Sudoku(**options | {"source": moved}).dataset == builder.builder_config.name, "the content counts"
    assert Sudoku(**options | {"seed": 5}).dataset == builder.builder_config.name, "nothing is drawn"
    write_csv(path, puzzles[::-1], solutions[::-1])
    again = Sudoku(**options).prepare(tmp_path / "data")
    assert again.builder_config.name != builder.builder_config.name
    expected = filtered(puzzles[::-1][is_test[::-1]], solutions[::-1][is_test[::-1]], "normal", 10)
    assert_same(builders.read_split(again, "test"), expected)


def test_prepare_sudoku_from_a_file_that_does_not_do_is_one_line(tmp_path):
    path = write_csv(tmp_path / "some.csv", *sequence())
    options = {"size": 6, "num_train": 20, "num_test": 10, "source": path}
    for change, words in (
        ({"num_test": 100}, r"some.csv has \d+ puzzles for the test split, not 100"),
        ({"num_train": 100, "difficulty": "hard"}, r"some.csv has \d+ hard puzzles for the train split, not 100"),
        ({"source": tmp_path / "none.csv"}, "none.csv cannot be read"),
        ({"clues": 12}, "clues=12 is for generated puzzles"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            Sudoku(**options | change).prepare(tmp_path / "data")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"difficulty": "normal"}, "9x9-normal"),
        ({"difficulty": "hard"}, "9x9-hard"),
        ({}, "9x9-minimal"),
        ({"clues": 30, "difficulty": "hard"}, "9x9-30-hard"),
        ({"clues": 30}, "9x9-30"),
    ],
)
def test_sudoku_dataset_is_named_after_its_set(options, name):
    found = Sudoku(num_train=5, num_test=5, **options).dataset
    assert re.fullmatch(rf"{name}-[0-9a-f]{{12}}", found)


def test_generated_puzzle_with_another_solution_would_be_noticed():
    puzzles, solutions = sudoku.generate(3, size=4, seed=0)
    check_unique(sudoku.solve, puzzles, solutions)
    with pytest.raises(AssertionError, match=r"another solution: \[0, 0, 0, 0"):
        check_unique(sudoku.solve, np.zeros_like(puzzles), solutions)
    with pytest.raises(AssertionError, match="another solution"):
        check_unique(sudoku.solve, puzzles, solutions[[1, 0, 2]])


SEVENTEEN_GIVENS = (
    "000000010400000000020000000000050407008000300001090000300400200050100000000806000",
    "000000012000035000000600070700000300000400800100000000000120000080000040050000600",
    "000000012008030000000000040120500000000004700060000000507000300000620000000100000",
    "000000023480000000010000000503000060000010800000000000170000400000602000000300005",
)
"""From the list of all puzzles of 17 givens."""


def test_puzzles_of_17_givens_and_what_symmetry_makes_of_them_are_not_trained_on():
    puzzles = np.array([[*map(int, text)] for text in SEVENTEEN_GIVENS], np.int8)
    solutions, counts = sudoku.solve(puzzles)[:2]
    assert (counts == 1).all()
    moves = random_symmetries(np.random.default_rng(1), len(puzzles), 9)
    assert public_lists.is_related(transform(solutions, *moves)).all()


def test_public_lists_are_whole():
    """46,301 hashes of puzzles with 17 givens, and those of the other lists."""
    known = np.load(public_lists.FILE)
    assert (known.dtype, len(known)) == (np.uint64, 49_950)
    assert (np.diff(known) > 0).all()


def test_generated_puzzles_of_a_public_list_are_trained_on_by_none(monkeypatch):
    options = {"difficulty": None, "seed": 3}
    every = joined(generate_rated(6, **options, split="train"))
    known = public_lists.hashes(every["solution"][[1, 4]])
    monkeypatch.setattr(public_lists, "_known", lambda: known)
    left = joined(generate_rated(4, **options, split="train"))
    np.testing.assert_array_equal(left["puzzle"], every["puzzle"][[0, 2, 3, 5]])
    held_out = joined(generate_rated(3, **options, split="test"))
    monkeypatch.setattr(public_lists, "_known", lambda: public_lists.hashes(held_out["solution"]))
    assert_same(joined(generate_rated(3, **options, split="test")), held_out)


def test_name_of_a_set_at_9x9_changes_with_the_lists(monkeypatch, tmp_path):
    source = tmp_path / "some.txt"
    source.write_text(SEVENTEEN_GIVENS[0] + "\n")
    options = [{"size": 6}, {"size": 9}, {"size": 9, "source": source}]
    names = [Sudoku(num_train=1, num_test=1, **one).dataset for one in options]
    np.save(tmp_path / "others.npy", np.arange(3, dtype=np.uint64))
    monkeypatch.setattr(public_lists, "FILE", tmp_path / "others.npy")
    changed = [Sudoku(num_train=1, num_test=1, **one).dataset for one in options]
    assert [new == old for new, old in zip(changed, names, strict=True)] == [True, False, False]


@pytest.mark.skipif(not SHARED.exists(), reason="the files in shared/data are not there")
def test_puzzles_of_the_public_lists_and_what_symmetry_makes_of_them_are_not_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    related = []
    for path in sorted(SHARED.glob("sudoku_*")):
        read = sudoku_files.read_puzzles(path)
        moves = random_symmetries(rng, len(read.puzzles), 9)
        puzzles, solutions = (transform(grids, *moves) for grids in (read.puzzles, read.solutions))
        assert public_lists.is_related(solutions).all(), path.name
        related.append((puzzles[:150], solutions[:150]))
    assert len(related) >= 4
    others = sudoku.generate(60, clues=30, split="train")
    assert not public_lists.is_related(others[1]).any()
    both = [np.concatenate(grids) for grids in zip(*related, others, strict=True)]
    path = write_csv(tmp_path / "some.csv", *both)
    options = {"size": 9, "difficulty": None, "split": "train"}
    np.testing.assert_array_equal(read_rated(path, 60, **options)["puzzle"], others[0])
    with pytest.raises(InputError, match="has 60 puzzles for the train split, not 61"):
        read_rated(path, 61, **options)
