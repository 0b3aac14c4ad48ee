"""Reading puzzles: right files in both forms, and every way in which a file can be wrong."""

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_jax.data import sudoku, sudoku_files
from mdm_jax.errors import InputError

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
        ("a.txt", f"#\n{PUZZLE[:6]}x{PUZZLE[7:]}\n", r"a\.txt:2: row 2, column 3 is 'x': use 1 to 4"),
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
        ("a.csv", f"{PUZZLE},{SOLUTION}\n", r"a\.csv:1: no column is named quizzes"),
        ("a.csv", f"\nq,solutions\n{PUZZLE},{SOLUTION}\n", r"a\.csv:2: no column is named quizzes"),
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
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        sudoku_files.read_puzzles(tmp_path)


def test_read_puzzles_of_another_size_than_asked_for_raises(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(PUZZLE)
    with pytest.raises(InputError, match=r"a\.txt:1 has 16 cells: 81 "):
        sudoku_files.read_puzzles(path, size=9)
    with pytest.raises(InputError, match="size=7"):
        sudoku_files.read_puzzles(path, size=7)


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
