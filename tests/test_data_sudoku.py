"""Puzzles against a plain backtracking solver; the split, the tfds dataset and reading it back."""

import hashlib
import itertools
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_jax.data import builders, dataset
from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku import task as sudoku_task
from mdm_jax.tasks.sudoku.task import Sudoku

SIZES = sorted(sudoku.BOXES)


def peers_of(size):
    """For each cell, the other cells of its row, column and box, by definition."""
    rows, columns = sudoku.BOXES[size]

    def units(cell):
        r, c = divmod(cell, size)
        return ("row", r), ("column", c), ("box", r // rows, c // columns)

    return [[q for q in range(size * size) if q != p and set(units(p)) & set(units(q))] for p in range(size * size)]


PEERS = {size: peers_of(size) for size in SIZES}


def reference_solutions(puzzle, limit):
    """All solutions up to a limit, by backtracking on the cell with the fewest candidates."""
    cells = [int(digit) for digit in puzzle]
    size = sudoku.size_of(len(cells))
    peers = PEERS[size]
    if any(digit and digit == cells[q] for p, digit in enumerate(cells) for q in peers[p]):
        return []
    found = []

    def extend():
        best = None
        for p, digit in enumerate(cells):
            if digit == 0:
                candidates = set(range(1, size + 1)).difference(cells[q] for q in peers[p])
                if best is None or len(candidates) < len(best[1]):
                    best = p, candidates
        if best is None:
            found.append(list(cells))
            return
        for digit in best[1]:
            if len(found) < limit:
                cells[best[0]] = digit
                extend()
        cells[best[0]] = 0

    extend()
    return found


def without_each_clue(puzzle):
    """The puzzle with one given taken away, for each of its givens."""
    clues = np.flatnonzero(puzzle)
    fewer = np.repeat(puzzle[None], len(clues), axis=0)
    fewer[np.arange(len(clues)), clues] = 0
    return fewer


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("size", "num"), [(4, 40), (6, 40), (9, 12)])
def test_generate_minimal_puzzle_has_the_one_solution_that_comes_with_it(size, num):
    puzzles, solutions = sudoku.generate(num, size=size, seed=3)
    assert puzzles.dtype == solutions.dtype == np.int8
    assert puzzles.shape == solutions.shape == (num, size * size)
    for puzzle, solution in zip(puzzles, solutions, strict=True):
        assert reference_solutions(puzzle, 2) == [solution.tolist()]


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("size", "num"), [(4, 20), (6, 20), (9, 2)])
def test_generate_minimal_puzzle_becomes_ambiguous_without_any_one_clue(size, num):
    for puzzle in sudoku.generate(num, size=size, seed=4)[0]:
        for fewer in without_each_clue(puzzle):
            assert len(reference_solutions(fewer, 2)) == 2


def test_generate_minimal_9x9_in_bulk_is_minimal_and_unique():
    puzzles, solutions = sudoku.generate(300, seed=5)
    found, num_solutions = sudoku.solve(puzzles)
    np.testing.assert_array_equal(num_solutions, 1)
    np.testing.assert_array_equal(found, solutions)
    fewer = np.concatenate([without_each_clue(puzzle) for puzzle in puzzles])
    np.testing.assert_array_equal(sudoku.solve(fewer)[1], 2)


@pytest.mark.parametrize(("size", "clues"), [(4, 4), (4, 7), (6, 10), (6, 20), (9, 24), (9, 40), (9, 80), (9, 81)])
@pytest.mark.parametrize("split", ["train", "test", None])
def test_generate_with_clues_has_exactly_so_many_and_one_solution(size, clues, split):
    puzzles, solutions = sudoku.generate(20, size=size, clues=clues, split=split)
    np.testing.assert_array_equal((puzzles > 0).sum(axis=1), clues)
    assert sudoku.is_solved(solutions, puzzles).all()
    np.testing.assert_array_equal(sudoku.solve(puzzles)[1], 1)


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from(SIZES),
    split=st.sampled_from(["train", "test", None]),
    clues=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(0, 2**40),
    skipped=st.integers(0, 8),
    num=st.integers(0, 8),
)
def test_generate_first_skips_into_the_same_sequence(size, split, clues, seed, first, skipped, num):
    options = {"size": size, "split": split, "seed": seed, "clues": size * size // 2 if clues else None}
    whole = sudoku.generate(skipped + num, first=first, **options)
    part = sudoku.generate(num, first=first + skipped, **options)
    for all_rows, rows in zip(whole, part, strict=True):
        np.testing.assert_array_equal(rows, all_rows[skipped:])


def test_generate_many_puzzles_are_those_made_in_small_parts():
    whole = sudoku.generate(2500, size=4, clues=6)[0]
    parts = [sudoku.generate(min(700, 2500 - i), size=4, clues=6, first=i)[0] for i in range(0, 2500, 700)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_generate_any_number_of_threads_gives_the_same_puzzles():
    before = numba.get_num_threads()
    results = []
    try:
        for threads in range(1, min(numba.config.NUMBA_NUM_THREADS, 4) + 1):
            numba.set_num_threads(threads)
            results.append(sudoku.generate(50, seed=11))
    finally:
        numba.set_num_threads(before)
    for puzzles, solutions in results:
        np.testing.assert_array_equal(puzzles, results[0][0])
        np.testing.assert_array_equal(solutions, results[0][1])


def test_generate_other_seeds_and_numbers_give_other_grids():
    grids = [sudoku.generate(200, clues=81, seed=seed)[1] for seed in range(3)]
    assert len(np.unique(np.concatenate(grids), axis=0)) == 600


def test_generate_same_version_gives_the_puzzles_it_always_gave():
    made = [sudoku.generate(20, size=size, seed=1, split=split) for size in SIZES for split in ("train", "test")]
    made.append(sudoku.generate(20, clues=30))
    content = hashlib.sha256(b"".join(array.tobytes() for pair in made for array in pair)).hexdigest()
    # When this fails on purpose, raise GENERATOR_VERSION: prepared datasets are found again by it.
    assert (sudoku.GENERATOR_VERSION, content[:16]) == (2, "fd068a36c296d164")


def test_generate_4x4_reaches_every_one_of_the_288_grids():
    grids = np.unique(sudoku.generate(20_000, size=4, clues=16)[1], axis=0)
    assert len(grids) == 288
    assert sudoku.is_solved(grids, np.zeros_like(grids)).all()


def test_generate_4x4_train_and_test_partition_all_grids():
    train, test = (
        {grid.tobytes() for grid in sudoku.generate(10_000, size=4, clues=8, split=split)[1]}
        for split in ("train", "test")
    )
    assert not train & test
    assert len(train | test) == 288


def mix(x):
    """The finaliser of splitmix64 in Python's own integers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def is_test_by_cells(grid):
    h = 0
    for digit in grid.flat:
        h = mix((h + int(digit)) % 2**64)
    return h % 16 == 0


def is_test_by_cycles(grid):
    """For each two rows, the lengths of the cycles in which one renames the other's digits; the same for columns."""
    signatures = []
    for lines in (grid, grid.T):
        total = 0
        for i, j in itertools.combinations(range(9), 2):
            renamed = dict(zip(lines[i].tolist(), lines[j].tolist(), strict=True))
            orbits = set()
            for digit in renamed:
                orbit = [digit]
                while renamed[orbit[-1]] != digit:
                    orbit.append(renamed[orbit[-1]])
                orbits.add(frozenset(orbit))
            total += mix((sum(mix(len(orbit)) for orbit in orbits) + (i // 3 == j // 3)) % 2**64)
        signatures.append(mix(total % 2**64))
    return mix(sum(signatures) % 2**64) % 16 == 0


@pytest.mark.parametrize(("size", "is_test"), [(4, is_test_by_cells), (6, is_test_by_cells), (9, is_test_by_cycles)])
def test_split_is_a_fixed_hash_of_the_solution_alone(size, is_test):
    for split, expected in (("train", False), ("test", True)):
        solutions = sudoku.generate(60, size=size, clues=size * size, split=split)[1]
        assert [is_test(grid.reshape(size, size)) for grid in solutions] == [expected] * 60
        np.testing.assert_array_equal(sudoku.in_test_split(solutions), expected)
    both = sudoku.generate(200, size=size, clues=size * size)[1]
    assert [is_test(grid.reshape(size, size)) for grid in both] == sudoku.in_test_split(both).tolist()


def test_split_puts_one_9x9_grid_in_sixteen_into_test():
    num = 8000
    share = sudoku.in_test_split(sudoku.generate(num, clues=81)[1]).mean()
    assert abs(share - 1 / 16) < 4 * np.sqrt(15 / 256 / num)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 8}, "size=8 .*4, 6 and 9"),
        ({"clues": 16}, "clues=16.* 17 to 81 .*None"),
        ({"clues": 82}, "clues=82.* 17 to 81 "),
        ({"size": 4, "clues": 3}, "clues=3.* 4 to 16 "),
        ({"clues": 2.5}, "clues=2.5 is not an integer"),
        ({"clues": -1}, "clues=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
        ({"first": -2}, "first=-2"),
        ({"num": -3}, "num=-3"),
        ({"num": "many"}, "num='many' is not an integer"),
        ({"split": "valid"}, "split='valid' .*'train', 'test' or None"),
    ],
)
def test_generate_bad_argument_raises_one_line_that_names_it(options, words):
    with pytest.raises(InputError, match=words) as caught:
        sudoku.generate(**{"num": 2, **options})
    assert "\n" not in str(caught.value)


def test_generate_unreachable_clues_raises_with_what_was_reached_and_what_to_ask_for():
    with pytest.raises(InputError, match=r"clues=17: 4096 attempts at puzzle 7 came down to 2\d givens.* 25 or more"):
        sudoku.generate(3, clues=17, first=7)


def test_solve_empty_4x4_counts_all_288_grids_or_up_to_the_limit():
    empty = np.zeros((1, 16), np.int8)
    for limit, expected in ((1, 1), (2, 2), (287, 287), (288, 288), (10_000, 288)):
        solutions, num_solutions = sudoku.solve(empty, limit=limit)
        assert num_solutions.tolist() == [expected]
        assert num_solutions.dtype == np.int32
        assert sudoku.is_solved(solutions, empty).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.sampled_from([4, 6]), limit=st.integers(1, 12))
def test_solve_partly_blanked_or_spoilt_grids_agrees_with_backtracking(data, size, limit):
    grids = sudoku.generate(4, size=size, clues=size * size, seed=data.draw(st.integers(0, 99)))[1]
    keep = data.draw(st.lists(st.booleans(), min_size=grids.size, max_size=grids.size))
    puzzles = np.where(np.reshape(keep, grids.shape), grids, 0)
    for _ in range(data.draw(st.integers(0, 2))):  # a wrong digit, often a contradiction
        cell = data.draw(st.integers(0, size * size - 1))
        puzzles[0, cell] = data.draw(st.integers(1, size))
    solutions, num_solutions = sudoku.solve(puzzles, limit=limit)
    for puzzle, solution, num in zip(puzzles, solutions, num_solutions, strict=True):
        every = reference_solutions(puzzle, 10**4 if np.count_nonzero(puzzle) > 8 else limit)
        assert num == min(len(every), limit)
        if every:
            assert sudoku.is_solved(solution[None], puzzle[None]).all()
        else:
            assert not solution.any()


def test_solve_leaves_its_input_alone_and_takes_any_integers():
    puzzles, solutions = sudoku.generate(5, seed=2)
    for given_as in (puzzles.astype(np.int64), puzzles.tolist(), np.asfortranarray(puzzles)):
        np.testing.assert_array_equal(sudoku.solve(given_as)[0], solutions)
    frozen = puzzles.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(sudoku.solve(frozen)[0], solutions)
    np.testing.assert_array_equal(frozen, puzzles)


@pytest.mark.parametrize(
    ("puzzles", "limit", "words"),
    [
        (np.zeros(81, np.int8), 2, r"shape \(81,\).*\[num, cells\]"),
        (np.zeros((2, 81)), 2, "float64"),
        (np.zeros((2, 80), np.int8), 2, "80 cells.*16, 36 or 81"),
        (np.full((1, 16), 5), 2, r"puzzles\[0, 0\] is 5.* 1 to 4"),
        (np.full((1, 16), -1), 2, r"puzzles\[0, 0\] is -1"),
        (np.zeros((1, 16), np.int8), 0, "limit=0"),
    ],
)
def test_solve_bad_input_raises_one_line_that_names_it(puzzles, limit, words):
    with pytest.raises(InputError, match=words) as caught:
        sudoku.solve(puzzles, limit=limit)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", SIZES)
def test_is_solved_any_single_wrong_cell_is_noticed(size):
    puzzle, grid = (rows[0] for rows in sudoku.generate(1, size=size, seed=8))
    cells = np.arange(size * size)
    for value in (0, -1, size + 1, 127):
        spoilt = np.repeat(grid[None].astype(np.int32), len(cells), axis=0)
        spoilt[cells, cells] = value
        assert not sudoku.is_solved(spoilt, np.repeat(puzzle[None], len(cells), axis=0)).any()
    for shift in range(1, size):
        spoilt = np.repeat(grid[None], len(cells), axis=0)
        spoilt[cells, cells] = (grid - 1 + shift) % size + 1
        assert not sudoku.is_solved(spoilt, np.zeros_like(spoilt)).any()


def test_is_solved_latin_square_with_wrong_boxes_is_not_solved():
    square = [(row + column) % 9 + 1 for row, column in itertools.product(range(9), repeat=2)]
    assert not sudoku.is_solved([square], [[0] * 81]).any()


def test_is_solved_right_grid_of_another_puzzle_is_not_solved():
    puzzles, grids = sudoku.generate(2, seed=9)
    assert sudoku.is_solved(grids, puzzles).tolist() == [True, True]
    assert sudoku.is_solved(grids[::-1], puzzles).tolist() == [False, False]
    assert sudoku.is_solved(grids[::-1], np.zeros_like(puzzles)).tolist() == [True, True]


def test_is_solved_shapes_differ_raises():
    with pytest.raises(InputError, match=r"\(1, 16\).*\(2, 16\)"):
        sudoku.is_solved(np.ones((1, 16), np.int8), np.zeros((2, 16), np.int8))


OPTIONS = {"size": 4, "clues": 6, "num_train": 8200, "num_test": 40, "seed": 5}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return Sudoku(**OPTIONS).prepare(tmp_path_factory.mktemp("datasets"))


@pytest.mark.slow
@pytest.mark.parametrize(("split", "num"), [("train", 8200), ("test", 40)])
def test_sudoku_dataset_read_back_is_what_was_generated(prepared, split, num):
    puzzles, solutions = sudoku.generate(num, size=4, clues=6, seed=5, split=split)
    for source in (prepared, prepared.data_dir, prepared.data_path):
        arrays = builders.read_split(source, split)
        assert set(arrays) == {"puzzle", "solution", "order", "rule"}
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.int8)}
        np.testing.assert_array_equal(arrays["puzzle"], puzzles)
        np.testing.assert_array_equal(arrays["solution"], solutions)


def test_sudoku_dataset_part_of_a_split_is_that_part(prepared):
    whole, part = (builders.read_split(prepared, split)["puzzle"] for split in ("test", "test[10:13]"))
    np.testing.assert_array_equal(part, whole[10:13])


def test_sudoku_dataset_is_array_record_without_tensorflow(prepared):
    files = [path.name for path in prepared.data_path.iterdir() if path.suffix != ".json"]
    assert files
    assert all("array_record" in name for name in files)
    assert "tensorflow" not in sys.modules


def test_sudoku_dataset_prepared_again_is_not_generated_again(prepared, monkeypatch):
    monkeypatch.setattr(sudoku, "generate", lambda *args, **options: pytest.fail("generated again"))
    data_dir = prepared.data_path.parents[2]
    assert Sudoku(**OPTIONS).prepare(data_dir).data_path == prepared.data_path


@pytest.mark.parametrize(
    "change",
    [
        {"size": 6, "clues": 14},
        {"clues": None},
        {"clues": 7},
        {"difficulty": "hard"},
        {"num_train": 10},
        {"num_test": 10},
        {"seed": 6},
    ],
)
def test_sudoku_dataset_any_other_input_changes_the_name(change):
    assert Sudoku(**OPTIONS).dataset == Sudoku(**OPTIONS).dataset
    assert Sudoku(**{**OPTIONS, **change}).dataset != Sudoku(**OPTIONS).dataset


@pytest.mark.parametrize(("module", "name"), [(sudoku, "GENERATOR_VERSION"), (sudoku_task, "RATING_VERSION")])
def test_sudoku_dataset_other_version_of_the_generator_or_the_rating_changes_the_name(monkeypatch, module, name):
    before = Sudoku(**OPTIONS).dataset
    monkeypatch.setattr(module, name, getattr(module, name) + 1)
    assert Sudoku(**OPTIONS).dataset != before


def test_prepare_after_an_interruption_starts_again_and_is_right(tmp_path, monkeypatch):
    options = {"size": 4, "clues": None, "num_train": 30, "num_test": 5, "seed": 0}
    generate = sudoku.generate

    def interrupted(num, *, split, **others):
        if split == "test":
            raise KeyboardInterrupt
        return generate(num, split=split, **others)

    with monkeypatch.context() as patched:
        patched.setattr(sudoku, "generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Sudoku(**options).prepare(tmp_path)
    name = Sudoku(**options).dataset
    killed = tmp_path / "sudoku" / name / "incomplete.ABCDEF_2.0.0"  # what kill -9 would leave
    killed.mkdir(parents=True)
    (killed / "sudoku-train.array_record-00000-of-00001").write_bytes(b"half a file")
    builder = Sudoku(**options).prepare(tmp_path)
    np.testing.assert_array_equal(
        builders.read_split(builder, "test")["solution"], generate(5, size=4, split="test")[1]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 5}, "size=5"),
        ({"clues": 99}, "clues=99"),
        ({"num_train": 0}, "num_train=0"),
        ({"difficulty": "easy"}, "difficulty='easy'"),
        ({"source": "some.csv"}, "clues=6"),
    ],
)
def test_prepare_sudoku_bad_option_raises_and_writes_nothing(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        Sudoku(**{**OPTIONS, **change}).prepare(tmp_path)
    assert not list(tmp_path.iterdir())


def test_read_split_unknown_or_empty_split_raises(prepared):
    with pytest.raises(InputError, match=r"'valid'.*train \(8200\), test \(40\)"):
        builders.read_split(prepared, "valid")
    for nothing in ("test[:0]", "test[5:5]", "test[90:]"):
        with pytest.raises(InputError, match="cannot be read"):
            builders.read_split(prepared, nothing)


def test_read_split_nothing_prepared_raises(tmp_path):
    with pytest.raises(InputError, match=r"nowhere holds no prepared dataset"):
        builders.read_split(tmp_path / "nowhere", "train")
    task = Sudoku(**OPTIONS)
    config = dataset.Config(task.dataset, task.shapes(), {"train": 1, "test": 1}, task.chunks)
    builder = dataset.builder_class(task.name, task.version)(
        data_dir=str(tmp_path), config=config, file_format="array_record"
    )
    with pytest.raises(InputError, match="prepare it first"):
        builders.read_split(builder, "train")


def test_digest_tells_apart_parts_that_run_together_or_differ_in_kind():
    inputs = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("abc", ""),
        (b"abc",),
        ("1",),
        (1,),
        (b"1",),
        (1.0,),
        (None,),
        ("None",),
    ]
    digests = {builders.digest(*parts) for parts in inputs}
    assert len(digests) == len(inputs)
    assert all(len(digest) == 12 and int(digest, 16) >= 0 for digest in digests)
