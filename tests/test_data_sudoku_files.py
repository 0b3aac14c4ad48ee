"""Reading and writing puzzles: right files in every form, and every way in which a file can be wrong."""

import itertools
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import files as sudoku_files
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku import rules as sudoku_rules

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"

PUZZLE = ".1.4........1.3."  # 4x4 with one solution
SOLUTION = "3124421323411432"
OTHER = "1...............".replace(".", "0")


def as_text(cells, blank="0"):
    return "".join(str(cell) if cell else blank for cell in cells)


def test_read_puzzles_public_csv_gives_all_puzzles_with_their_solutions():
    path = SHARED / "sudoku_test_1k.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there: it lies beside a checkout, not in the repository")
    read = sudoku_files.read_puzzles(path)
    assert read.puzzles.shape == read.solutions.shape == (1000, 81)
    assert read.lines.tolist() == list(range(2, 1002))
    assert sudoku.is_solved(read.solutions, read.puzzles).all()
    last = path.read_text().splitlines()[-1].split(",")
    assert [as_text(read.puzzles[-1]), as_text(read.solutions[-1])] == last


@settings(max_examples=25, deadline=None)
@given(size=st.sampled_from([4, 6, 9]), blank=st.sampled_from("0."), seed=st.integers(0, 99), data=st.data())
def test_read_puzzles_text_with_comments_gives_puzzles_and_line_numbers(tmp_path_factory, size, blank, seed, data):
    puzzles, solutions = sudoku.generate(5, size=size, seed=seed)
    lines, expected = [], []
    for puzzle in puzzles:
        lines += data.draw(st.lists(st.sampled_from(["", "  ", "# a, comment", "#" + as_text(puzzle)]), max_size=2))
        lines.append(data.draw(st.sampled_from(["", " "])) + as_text(puzzle, blank))
        expected.append(len(lines))
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    path = tmp_path_factory.mktemp("puzzles") / "some.txt"
    path.write_bytes(newline.join(lines).encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig"]))))
    read = sudoku_files.read_puzzles(path, size=data.draw(st.sampled_from([None, size])))
    np.testing.assert_array_equal(read.puzzles, puzzles)
    np.testing.assert_array_equal(read.solutions, solutions)
    assert read.lines.tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        f"quizzes,solutions\n{PUZZLE},{SOLUTION}\n",
        f"solutions,quizzes\n{SOLUTION},{PUZZLE}\n",
        f"id,puzzle,solution,clues,difficulty\n7,{PUZZLE},{SOLUTION},4,0.5\n",
        f'"quizzes","solutions"\n"{PUZZLE}","{SOLUTION}"\n',
        f"quizzes,level\n{PUZZLE},3\n",
        f"Quizzes , Solutions\n{PUZZLE},\n",
        f"quizzes\n{PUZZLE}",
    ],
    ids=["plain", "swapped", "more-columns", "quoted", "no-solutions", "empty-solution", "one-column"],
)
def test_read_puzzles_csv_finds_columns_by_name(tmp_path, text):
    path = tmp_path / "some.csv"
    path.write_text(text)
    read = sudoku_files.read_puzzles(path)
    assert [as_text(row, ".") for row in read.puzzles] == [PUZZLE]
    assert [as_text(row) for row in read.solutions] == [SOLUTION]
    assert read.lines.tolist() == [2]


def test_read_puzzles_csv_under_another_name_is_known_by_its_header(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text(f"# made by hand\n\nquizzes,solutions\n\n{PUZZLE},{SOLUTION}\n")
    assert sudoku_files.read_puzzles(path).lines.tolist() == [5]


WRONG_SOLUTION = SOLUTION[:4] + "1" + SOLUTION[5:]
PUZZLE_6 = as_text(sudoku.generate(1, size=6)[0][0])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", f"{PUZZLE}\n{PUZZLE[:-1]}\n", r"a\.txt:2 has 15 cells: 16 "),
        ("a.txt", f"{PUZZLE}0\n", r"a\.txt:1 has 17 cells: 16 or 36 or 81 "),
        (
            "a.txt",
            f"#\n{PUZZLE[:6]}?{PUZZLE[7:]}\n",
            r"a\.txt:2: row 2, column 3 is '\?': use 1 to 4, and one of ",
        ),
        ("a.txt", f"{PUZZLE[:15]}5\n", r"a\.txt:1: row 4, column 4 is '5': use 1 to 4"),
        ("a.txt", f"{PUZZLE[:15]}\u0664\n", r"a\.txt:1: row 4, column 4 is '\u0664'"),
        ("a.txt", f"\n{PUZZLE}\n1..1............\n", r"a\.txt:3 is contradictory: 1 stands 2 times in row 1"),
        ("a.txt", "2.......2.......\n", r"a\.txt:1 is contradictory: 2 stands 2 times in column 1"),
        ("a.txt", "3....3..........\n", r"a\.txt:1 is contradictory: 3 stands 2 times in box 1"),
        ("a.txt", "12.......3...4..\n", r"a\.txt:1 "),
        ("a.txt", "123....4........\n", r"a\.txt:1 has no solution"),
        ("a.txt", f"{PUZZLE}\n{OTHER}\n", r"a\.txt:2 has more than one solution"),
        ("a.txt", f"{PUZZLE}\n{PUZZLE_6}\n", r"a\.txt:2 has 36 cells: 16 "),
        ("a.txt", "", r"a\.txt holds no puzzle"),
        ("a.txt", "\n# nothing\n", r"a\.txt holds no puzzle"),
        ("a.txt", PUZZLE.encode() + b"\n" + PUZZLE[:3].encode() + b"\xff\n", r"a\.txt:2: byte 0xff is not UTF-8"),
        ("a.csv", "", r"a\.csv holds no puzzle"),
        ("a.csv", "quizzes,solutions\n", r"a\.csv holds no puzzle"),
        (
            "a.csv",
            f"\nq,solutions\n{PUZZLE},{SOLUTION}\n",
            r"a\.csv:2: 'q,.*' begins no known format; ",
        ),
        ("a.csv", f"quizzes,solutions\n{PUZZLE},{SOLUTION}\n{PUZZLE}\n", r"a\.csv:3: fields: 1, .* 2"),
        ("a.csv", f'quizzes,solutions\n"{PUZZLE},{SOLUTION}\n', r"a\.csv:2: not a line of CSV"),
        ("a.csv", f"quizzes,solutions\n{PUZZLE},{WRONG_SOLUTION}\n", r"a\.csv:2: .*row 2, column 1 must be 4, not 1"),
        ("a.csv", f"quizzes,solutions\n{PUZZLE},{PUZZLE}\n", r"a\.csv:2: .*row 1, column 1 must be 3, not 0"),
        ("a.csv", f"quizzes,solutions\n{PUZZLE},{SOLUTION}1\n", r"a\.csv:2: the solution has 17 cells"),
        ("a.csv", f"quizzes,solutions\n{PUZZLE},{SOLUTION[:-1]}9\n", r"a\.csv:2: the solution: row 4, column 4 is '9'"),
    ],
)
def test_read_puzzles_bad_file_raises_one_line_with_file_and_line(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as caught:
        sudoku_files.read_puzzles(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_puzzles_missing_file_or_folder_raises_one_line(tmp_path):
    with pytest.raises(InputError, match=r"absent\.txt cannot be read: No such file"):
        sudoku_files.read_puzzles(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="is a folder: give a regular file"):
        sudoku_files.read_puzzles(tmp_path)


def test_read_puzzles_of_another_size_than_asked_for_raises(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(PUZZLE)
    with pytest.raises(InputError, match=r"a\.txt:1 has 16 cells: 81 "):
        sudoku_files.read_puzzles(path, size=9)
    with pytest.raises(InputError, match="size=7"):
        sudoku_files.read_puzzles(path, size=7)


def csv_of(num):
    """Lines of a CSV file as Radcliffe's, without line breaks."""
    puzzles, solutions = sudoku.generate(num, size=4, seed=1)
    lines = ["id,puzzle,solution,clues,difficulty"]
    lines += [
        f"{i},{as_text(puzzle, '.')},{as_text(solution)},{(puzzle > 0).sum()},0.0"
        for i, (puzzle, solution) in enumerate(zip(puzzles, solutions, strict=True), start=1)
    ]
    return lines, puzzles, solutions


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda line: line, None),
        (lambda line: f'"{line.replace(",", chr(34) + "," + chr(34))}"', None),
        (lambda line: line.replace(",", " , "), None),
        (lambda line: f"\n# note, to skip\n{line}", None),
        (lambda line: line.replace(".", "0"), None),
        (lambda line: ",".join([*line.split(",")[:2], "", *line.split(",")[3:]]), None),
        (lambda line: line.replace(",", ";"), r"{line}: fields: 1, .* 5"),
        (lambda line: f'{line},"', r"{line}: not a line of CSV"),
        (lambda line: f'"{line}', r"{line}: not a line of CSV"),
        (lambda line: f'{line[:-3]}"0.\n0"', r"{line}: not a line of CSV"),
        (lambda line: line.replace(".", "?"), r"{line}: row \d, column \d is '\?'"),
        (lambda line: line.replace(".", "5"), r"{line}: row \d, column \d is '5'"),
        (lambda line: line.replace(".", "", 1), r"{line} has 15 cells: 16 "),
        (lambda line: line.replace(".", "", 1).replace(",", ",.", 2), r"{line}: the solution has 17 cells"),
        (lambda line: line.replace(".", "\u00b2"), r"{line}: row \d, column \d is '\u00b2'"),
    ],
    ids=[
        "nothing", "quotes", "spaces", "skipped-lines", "zeros", "no-solution", "semicolons", "open-quote-at-the-end",
        "open-quote", "line-break-in-a-field", "other-character", "too-high", "too-short", "cells-in-the-wrong-field",
        "not-ascii",
    ],
)  # fmt: skip
@pytest.mark.parametrize("line", [2, 7, 8, 9, 23])
def test_read_puzzles_one_odd_line_among_blocks_is_read_or_named(tmp_path, monkeypatch, change, number, line):
    monkeypatch.setattr(sudoku_files, "BLOCK", 7)
    lines, puzzles, solutions = csv_of(22)
    expected = list(range(2, 24))
    lines[line - 1] = change(lines[line - 1])
    shift = lines[line - 1].count("\n")
    path = tmp_path / "sudoku-3m.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if number:
        with pytest.raises(InputError, match=rf"sudoku-3m\.csv:{number.format(line=line)}") as caught:
            sudoku_files.read_puzzles(path)
        assert "\n" not in str(caught.value)
        return
    read = sudoku_files.read_puzzles(path)
    np.testing.assert_array_equal(read.puzzles, puzzles)
    np.testing.assert_array_equal(read.solutions, solutions)
    assert read.lines.tolist() == [i + shift * (i >= line) for i in expected]
    assert read.order is read.rule is None


def test_read_puzzles_wrong_puzzle_in_a_later_block_is_named_by_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sudoku_files, "BLOCK", 7)
    lines = csv_of(22)[0]
    path = tmp_path / "a.csv"
    for wrong, words in (
        (f"1,{OTHER},,,", "has more than one solution"),
        (f"1,{PUZZLE},{PUZZLE},,", "the solution given"),
    ):
        path.write_text("\n".join([*lines[:16], wrong, *lines[16:]]))
        with pytest.raises(InputError, match=rf"a\.csv:17:? {words}"):
            sudoku_files.read_puzzles(path)
    path.write_bytes("\n".join(lines).encode() + b"\n\xc3")
    with pytest.raises(InputError, match=r"a\.csv:24: byte 0xc3 is not UTF-8"):
        sudoku_files.read_puzzles(path)


@pytest.fixture(scope="module")
def rated():
    """Puzzles that the rules solve: puzzles, solutions, order, rule."""
    puzzles, solutions = sudoku.generate(60, seed=12)
    rating = sudoku_rules.rate(puzzles)
    return tuple(field[rating.is_solved][:30] for field in (puzzles, solutions, rating.order, rating.rule))


def rows_of(puzzle, solution, order, rule):
    """One row of 325 numbers, by a plain loop."""
    cells = sorted(range(81), key=lambda cell: (order[cell], cell))
    row = [int((puzzle > 0).sum())]
    for cell in cells:
        row += [cell // 9, cell % 9, int(solution[cell]), int(rule[cell])]
    return row


def assert_read(read, rated):
    for field, expected in zip((read.puzzles, read.solutions, read.order, read.rule), rated, strict=True):
        assert field.dtype == np.int8
        np.testing.assert_array_equal(field, expected)
    assert read.lines.tolist() == list(range(1, len(rated[0]) + 1))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", ">i4", "uint64"])
def test_read_puzzles_npy_gives_puzzles_order_and_rules(tmp_path, monkeypatch, rated, dtype):
    monkeypatch.setattr(sudoku_files, "BLOCK", 7)
    rows = np.array([rows_of(*fields) for fields in zip(*rated, strict=True)], dtype)
    for name, array in (("a.npy", rows), ("b.NPY", np.asfortranarray(rows))):
        with (tmp_path / name).open("wb") as file:
            np.save(file, array)
        assert_read(sudoku_files.read_puzzles(tmp_path / name, size=9), rated)


def test_read_puzzles_npy_givens_in_any_order_are_givens(tmp_path, rated):
    row = np.array(rows_of(*(field[0] for field in rated)))
    givens = row[1:].reshape(81, 4)[: row[0]].copy()
    row[1 : 1 + 4 * row[0]] = givens[::-1].ravel()
    np.save(tmp_path / "a.npy", row[None])
    assert_read(sudoku_files.read_puzzles(tmp_path / "a.npy"), [field[:1] for field in rated])


def test_write_solver_rows_are_those_of_a_plain_loop_and_read_back(tmp_path, monkeypatch, rated):
    monkeypatch.setattr(sudoku_files, "BLOCK", 7)
    path = tmp_path / "a.npy"
    sudoku_files.write_solver_rows(path, *rated)
    rows = np.load(path)
    assert rows.dtype == np.int8
    assert rows.tolist() == [rows_of(*fields) for fields in zip(*rated, strict=True)]
    assert_read(sudoku_files.read_puzzles(path), rated)
    sudoku_files.write_solver_rows(path, *(field.astype(np.int64) for field in rated))
    np.testing.assert_array_equal(np.load(path), rows)


def entry(k, field):
    """Where the row, column, value or strategy id (0 to 3) of cell k, from 1, is."""
    return 1 + 4 * (k - 1) + field


def as_given(row):
    """The first blank becomes a given, but stays behind the number of givens."""
    row[entry(row[0] + 1, 3)] = 0


def fewer_givens(row):
    """The last given becomes a blank, which a minimal puzzle cannot bear."""
    row[entry(row[0], 3)] = 2
    row[0] -= 1


def contradict(row):
    """Two givens of a row become the same."""
    givens = row[1 : entry(row[0] + 1, 0)].reshape(-1, 4)
    i, j = next((i, j) for i, j in itertools.combinations(range(row[0]), 2) if givens[i, 0] == givens[j, 0])
    givens[j, 2] = givens[i, 2]


def wrong_value(row):
    row[entry(81, 2)] = row[entry(81, 2)] % 9 + 1


def put(place, value):
    def change(row):
        row[place] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(0, -1), r"the number of givens, in front, is -1: 0 to 81"),
        (put(0, 82), r"the number of givens, in front, is 82: 0 to 81"),
        (put(0, 0), r"cell 1 of 81 has the strategy id 0: the first 0 cells are givens"),
        (put(0, 81), r"cell \d\d of 81 has the strategy id [2-8]: the first 81 cells are givens"),
        (put(entry(1, 0), 9), r"cell 1 of 81 has row 9, column \d: both count from 0 to 8"),
        (put(entry(30, 1), -1), r"cell 30 of 81 has row \d, column -1: both count from 0 to 8"),
        (put(slice(entry(81, 0), entry(81, 2)), [0, 0]), r"cell \d\d of 81 has row 0, column 0 like one before it"),
        (put(entry(2, 2), 0), r"cell 2 of 81 has the digit 0: 1 to 9"),
        (put(entry(81, 2), 10), r"cell 81 of 81 has the digit 10: 1 to 9"),
        (put(entry(80, 3), 1), r"cell 80 of 81 has the strategy id 1: 0 \(given\) and 2 to 8 are known"),
        (put(entry(80, 3), 9), r"cell 80 of 81 has the strategy id 9: "),
        (put(entry(1, 3), 3), r"cell 1 of 81 has the strategy id 3: the first \d\d cells are givens"),
        (as_given, r"cell \d\d of 81 has the strategy id 0: the first \d\d cells are givens"),
        (fewer_givens, r"has more than one solution"),
        (contradict, r"is contradictory: \d stands 2 times in row \d"),
        (wrong_value, r"the solution given is not that of the puzzle: row \d, column \d must be \d, not \d"),
    ],
)
@pytest.mark.parametrize("number", [1, 7, 8, 30])
def test_read_puzzles_npy_one_bad_row_is_named(tmp_path, monkeypatch, rated, change, words, number):
    monkeypatch.setattr(sudoku_files, "BLOCK", 7)
    rows = np.array([rows_of(*fields) for fields in zip(*rated, strict=True)])
    change(rows[number - 1])
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(InputError, match=rf"a\.npy:{number}:? {words}") as caught:
        sudoku_files.read_puzzles(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 324), np.int8), r"int8 of shape \(2, 324\): .* integers of shape \[num, 325\]"),
        (np.zeros(325, np.int8), r"int8 of shape \(325,\): "),
        (np.zeros((0, 325), np.int8), r"int8 of shape \(0, 325\): .* at least 1"),
        (np.zeros((2, 325)), r"float64 of shape \(2, 325\): "),
        (np.zeros((2, 325), bool), r"bool of shape \(2, 325\): "),
        (np.array([[None] * 325]), "cannot be read: it is not a whole .npy file of numbers"),
    ],
)
def test_read_puzzles_npy_of_another_array_raises_one_line(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=rf"a\.npy .*{words}") as caught:
        sudoku_files.read_puzzles(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)


def test_read_puzzles_npy_damaged_absent_or_of_another_size_raises_one_line(tmp_path, rated):
    path = tmp_path / "a.npy"
    sudoku_files.write_solver_rows(path, *rated)
    with pytest.raises(InputError, match=r"a\.npy holds puzzles of 81 cells.* 16 are wanted"):
        sudoku_files.read_puzzles(path, size=4)
    whole = path.read_bytes()
    np.savez(tmp_path / "b.npz", whole)
    header = whole.index(b"{")
    for data in (
        b"",
        whole[:5],
        whole[:40],
        whole[:-1],
        whole[:header] + b"(" + whole[header + 1 :],
        whole[:header] + b"0" + whole[header + 1 :],
        b"quizzes\n" + b"0" * 81,
        (tmp_path / "b.npz").read_bytes(),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.npy cannot be read: it is not a whole .npy file") as caught:
            sudoku_files.read_puzzles(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"absent\.npy cannot be read: No such file"):
        sudoku_files.read_puzzles(tmp_path / "absent.npy")


def test_write_solver_rows_of_what_is_not_a_solved_puzzle_raises_and_writes_nothing(tmp_path, monkeypatch, rated):
    monkeypatch.setattr(sudoku_files, "BLOCK", 7)

    def changed(field, change):
        fields = [array.copy() for array in rated]
        change(fields[field])
        return fields

    blank, given = np.flatnonzero(rated[0][9] == 0)[0], np.flatnonzero(rated[0][9])[0]
    cases = [
        (changed(0, lambda puzzles: puzzles.__setitem__((9, 0), 10)), r"puzzles\[9, 0\] is 10"),
        (changed(1, lambda grids: grids.__setitem__((9, blank), 0)), r"solutions\[9\] is not a full and right answer"),
        (changed(1, lambda grids: grids.__setitem__(9, grids[8])), r"solutions\[9\] is not"),
        (changed(2, lambda order: order.__setitem__((9, blank), -1)), r"order\[9\] is not 0 for givens and 1, 2, "),
        (changed(2, lambda order: order.__setitem__((9, blank), order[9].max() + 1)), r"order\[9\] is not"),
        (changed(2, lambda order: order.__setitem__((9, [given, blank]), order[9, [blank, given]])), r"order\[9\] is"),
        (
            changed(3, lambda rule: rule.__setitem__((9, blank), 1)),
            rf"rule\[9, {blank}\] is 1: 0 for givens and 2 to 8",
        ),
        (changed(3, lambda rule: rule.__setitem__((9, given), 2)), rf"rule\[9, {given}\] is 2"),
        (changed(3, lambda rule: rule.__setitem__((9, blank), 0)), rf"rule\[9, {blank}\] is 0"),
        ([*rated[:3], rated[3][:5]], r"rule: int8 of shape \(5, 81\): integers of shape \[num, 81\]"),
        ([*rated[:3], rated[3] / 2], r"rule: float\d+ of shape"),
        ([field[:0] for field in rated], "at least 1"),
        ([np.zeros((1, 16), np.int8)] * 4, r"shape \(1, 16\)"),
    ]
    for fields, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            sudoku_files.write_solver_rows(tmp_path / "a.npy", *fields)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"a\.txt: .* end in \.npy"):
        sudoku_files.write_solver_rows(tmp_path / "a.txt", *rated)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"a\.npy cannot be written: No such file or directory"):
        sudoku_files.write_solver_rows(tmp_path / "absent" / "a.npy", *rated)


def test_parse_puzzle_right_text_gives_cells():
    cells = sudoku_files.parse_puzzle(f" {PUZZLE}\n")
    assert cells.dtype == np.int8
    assert cells.tolist() == [int(character) for character in PUZZLE.replace(".", "0")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "^puzzle has 0 cells"),
        (PUZZLE[:15], "^puzzle has 15 cells"),
        ("?" + PUZZLE[1:], "^puzzle: row 1, column 1 is '\\?'"),
        ("11" + "." * 14, "^puzzle is contradictory"),
        ("." * 81, "^puzzle has more than one solution"),
        (
            ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4.........",
            "^puzzle has no solution",
        ),
    ],
)
def test_parse_puzzle_bad_text_raises_one_line(text, words):
    with pytest.raises(InputError, match=words):
        sudoku_files.parse_puzzle(text)


def test_parse_puzzle_message_carries_the_callers_name_for_it():
    with pytest.raises(InputError, match=r"^--puzzle has 1 cells"):
        sudoku_files.parse_puzzle("1", where="--puzzle")


def test_format_grid_draws_boxes_of_each_size():
    assert sudoku_files.format_grid([1, 2, 3, 4, 3, 4, 1, 2] + [0] * 8, 4) == "\n".join(
        ["1 2 | 3 4", "3 4 | 1 2", "----+----", ". . | . .", ". . | . ."]
    )
    six = sudoku_files.format_grid(np.arange(36) % 7, 6).split("\n")
    assert six[:3] == [". 1 2 | 3 4 5", "6 . 1 | 2 3 4", "------+------"]
    assert len(six) == 8
    nine = sudoku_files.format_grid(np.full(81, 9), 9).split("\n")
    assert len(nine) == 11
    assert nine[3] == nine[7] == "------+-------+------"
    assert {nine[i] for i in range(11) if i not in (3, 7)} == {"9 9 9 | 9 9 9 | 9 9 9"}


def test_format_grid_wrong_number_of_cells_raises():
    with pytest.raises(InputError, match=r"\(80,\).*\(81,\)"):
        sudoku_files.format_grid(np.zeros(80, np.int8), 9)
