"""The normal and the hard set of Zebra puzzles, and the tfds dataset."""

import re
import sys

import numpy as np
import pytest

from mdm_jax.data import builders
from mdm_jax.data.difficulty import check_unique
from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra import deduction as zebra_deduction
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import task as zebra_task
from mdm_jax.tasks.zebra.clues import Size
from mdm_jax.tasks.zebra.sets import generate_ordered
from mdm_jax.tasks.zebra.task import Zebra

FIELDS = ["clues", "solution", "order"]


def joined(parts):
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def filtered(puzzles, solutions, difficulty, num):
    """The first `num` of the difficulty, by the verdict of the rules."""
    found = zebra_deduction.deduce(puzzles, solutions)
    wanted = {None: np.ones(len(puzzles), bool), "normal": found.is_solved, "hard": ~found.is_solved}[difficulty]
    kept = np.flatnonzero(wanted)[:num]
    assert len(kept) == num
    return {"clues": puzzles[kept], "solution": solutions[kept], "order": found.order[kept]}


def assert_same(got, expected):
    assert list(got) == list(expected) == FIELDS
    for name, rows in got.items():
        assert rows.dtype == np.int8
        np.testing.assert_array_equal(rows, expected[name])


@pytest.mark.thinned(4)
@pytest.mark.parametrize("difficulty", ["normal", "hard", None])
@pytest.mark.parametrize("split", ["train", "test", None])
def test_generate_ordered_is_the_generated_sequence_without_the_other_set(difficulty, split, monkeypatch):
    options = {"largest": Size(4, 4), "seed": 5, "split": split}
    expected = filtered(*zebra.generate(1500, **options), difficulty, 100)
    assert_same(joined(generate_ordered(100, difficulty=difficulty, **options)), expected)
    monkeypatch.setattr("mdm_jax.data.difficulty.CHUNK", 70)
    parts = list(generate_ordered(100, difficulty=difficulty, **options))
    assert all(len(part["clues"]) <= 70 for part in parts)
    assert_same(joined(parts), expected)


def test_generate_ordered_puzzles_that_hardly_exist_end_in_one_line(monkeypatch):
    monkeypatch.setattr(
        "mdm_jax.data.difficulty.is_of", lambda records, difficulty: np.zeros(len(records["clues"]), bool)
    )
    with pytest.raises(InputError, match=r"hard puzzles hardly exist: 4096 tried in vain") as caught:
        joined(generate_ordered(1, largest=Size(3, 3), difficulty="hard"))
    assert "\n" not in str(caught.value)


def test_generated_puzzle_with_another_solution_would_be_noticed():
    puzzles, solutions = zebra.generate(3, largest=Size(3, 3))
    check_unique(zebra.solve, puzzles, solutions)
    with pytest.raises(AssertionError, match="another solution"):
        check_unique(zebra.solve, puzzles, solutions[[1, 0, 2]])
    ambiguous = np.full_like(puzzles, -1)
    ambiguous[:, 0] = [1, 12, 14, -1]
    with pytest.raises(AssertionError, match=r"another solution: \[\[1, 12, 14, -1\]"):
        check_unique(zebra.solve, ambiguous, zebra.solve(ambiguous)[0])


OPTIONS = {"max_houses": 4, "min_attributes": 4, "max_attributes": 5, "num_train": 300, "num_test": 40, "seed": 5}
SIZES = {"smallest": Size(3, 4), "largest": Size(4, 5)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return Zebra(**OPTIONS).prepare(tmp_path_factory.mktemp("datasets"))


@pytest.mark.parametrize(("split", "num"), [("train", 300), ("test", 40)])
def test_zebra_dataset_read_back_is_what_was_generated(prepared, split, num):
    expected = filtered(*zebra.generate(num, seed=5, split=split, **SIZES), None, num)
    for source in (prepared, prepared.data_dir):
        found = builders.read_split(source, split)
        assert found["clues"].shape == (num, 20, 4)
        assert_same({name: found[name] for name in FIELDS}, expected)
        assert set(found) == set(FIELDS)


def test_zebra_dataset_splits_share_no_puzzle(prepared):
    for split, expected in (("train", False), ("test", True)):
        found = builders.read_split(prepared, split)
        np.testing.assert_array_equal(zebra.in_test_split(found["clues"], found["solution"]), expected)


def test_zebra_dataset_is_array_record_without_tensorflow_under_a_name_that_says_what_it_holds(prepared):
    files = [path.name for path in prepared.data_path.iterdir() if path.suffix != ".json"]
    assert files
    assert all("array_record" in name for name in files)
    assert "tensorflow" not in sys.modules
    assert re.fullmatch(r"3x4-to-4x5-[0-9a-f]{12}", prepared.builder_config.name)


def test_zebra_dataset_prepared_again_is_not_generated_again(prepared, monkeypatch):
    monkeypatch.setattr(zebra, "generate", lambda *args, **options: pytest.fail("generated again"))
    assert Zebra(**OPTIONS).prepare(prepared.data_path.parents[2]).data_path == prepared.data_path


@pytest.mark.parametrize("difficulty", ["normal", "hard"])
def test_prepare_zebra_holds_puzzles_of_the_difficulty(tmp_path, difficulty):
    task = Zebra(max_houses=4, max_attributes=3, difficulty=difficulty, num_train=30, num_test=5)
    builder = task.prepare(tmp_path)
    assert re.fullmatch(rf"3x3-to-4x3-{difficulty}-[0-9a-f]{{12}}", builder.builder_config.name)
    for split, num in (("train", 30), ("test", 5)):
        expected = filtered(*zebra.generate(900, largest=Size(4, 3), split=split), difficulty, num)
        found = builders.read_split(builder, split)
        assert_same({name: found[name] for name in FIELDS}, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"min_houses": 4},
        {"max_attributes": 6},
        {"difficulty": "hard"},
        {"num_train": 10},
        {"num_test": 10},
        {"seed": 6},
    ],
)
def test_zebra_dataset_any_other_input_changes_the_name(change):
    assert Zebra(**OPTIONS).dataset == Zebra(**OPTIONS).dataset
    assert Zebra(**{**OPTIONS, **change}).dataset != Zebra(**OPTIONS).dataset


@pytest.mark.parametrize(("module", "name"), [(zebra, "GENERATOR_VERSION"), (zebra_task, "RULES_VERSION")])
def test_zebra_dataset_other_version_of_the_generator_or_the_rules_changes_the_name(monkeypatch, module, name):
    before = Zebra(**OPTIONS).dataset
    monkeypatch.setattr(module, name, getattr(module, name) + 1)
    assert Zebra(**OPTIONS).dataset != before


def test_zebra_dataset_of_one_size_names_it_once():
    task = Zebra(min_houses=4, max_houses=4, min_attributes=4, max_attributes=4, num_train=1, num_test=1)
    assert re.fullmatch(r"4x4-[0-9a-f]{12}", task.dataset)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_houses": 2}, "2 to 4 houses"),
        ({"min_attributes": 6}, "6 to 5 attributes"),
        ({"num_train": 0}, "num_train=0"),
        ({"difficulty": "easy"}, "difficulty='easy'"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_prepare_zebra_bad_option_raises(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        Zebra(**{**OPTIONS, **change}).prepare(tmp_path)
    assert not list(tmp_path.rglob("*.array_record*"))
