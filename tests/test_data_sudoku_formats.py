"""The formats in which Sudokus circulate: each read back, told to the user, and damaged in every place."""

import gzip
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_jax.data import puzzle_formats
from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import files as sudoku_files
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.formats import FORMATS
from mdm_jax.tasks.sudoku.text import BLANKS

PUZZLE, SOLUTION = ".1.4........1.3.", "3124421323411432"  # 4x4 with one solution
PUZZLE_9 = "1.3..5...4.9.1..3..6.....5...5.........4.....3...5.182...2..69......8.7..987....."
KNOWN = {form.name for form in FORMATS}


def table(names, row):
    """A table of this header and these rows, in a format of rows from (number, puzzle, solution)."""

    def render(pairs):
        head = [names] if names else []
        return "\n".join(head + [row.format(i=i, p=p, s=s) for i, (p, s) in enumerate(pairs)]) + "\n"

    return render


def rows_of(puzzle):
    size = sudoku.size_of(len(puzzle))
    return [puzzle[i : i + size] for i in range(0, len(puzzle), size)]


def grids(head="", between="\n\n", draw=rows_of):
    def render(pairs):
        return head + between.join("\n".join(draw(puzzle)) for puzzle, _ in pairs) + "\n"

    return render


def boxed(line, bar, space):
    """Draws boxes as programs do, with a line in a given form between the rows of boxes."""

    def draw(puzzle):
        height, width = sudoku.BOXES[sudoku.size_of(len(puzzle))]
        lines = [line]
        for i, row in enumerate(rows_of(puzzle)):
            parts = [space.join(row[j : j + width]) for j in range(0, len(row), width)]
            lines.append(f"{bar}{bar.join(parts)}{bar}")
            lines += [line] if (i + 1) % height == 0 else []
        return lines

    return draw


def banded(puzzle):
    """A grid with an empty line below each row of boxes but the last."""
    height, _ = sudoku.BOXES[sudoku.size_of(len(puzzle))]
    rows = rows_of(puzzle)
    return [line for i, row in enumerate(rows) for line in ([""] if i and i % height == 0 else []) + [row]]


HEADER, PLAIN, LINES, GRIDS = (form.name for form in FORMATS[1:])
RENDERED = {
    "sudoku-extreme": (HEADER, table("source,question,answer,rating", "puzzles2_17,{p},{s},{i}")),
    "ye": (HEADER, table("quizzes,solutions", "{p},{s}")),
    "quiz": (HEADER, table("quiz,solution", "{p},{s}")),
    "radcliffe": (HEADER, table("id,puzzle,solution,clues,difficulty", "{i},{p},{s},24,0.5")),
    "semicolons": (HEADER, table("puzzle;solution;hard", "{p};{s};yes")),
    "tabs": (HEADER, table("\tpuzzle\tsolution", "{i}\t{p}\t{s}")),
    "spaces-between": (HEADER, table("puzzle solution", "{p}   {s}")),
    "spaces-around": (HEADER, table("puzzle , solution", "  {p} , {s} ")),
    "quotes": (HEADER, table('"source","puzzle","solution"', '"a, b","{p}","{s}"')),
    "quotes-and-spaces": (HEADER, table('"puzzle" ; "solution"', '"{p}" ; "{s}"')),
    "single-quotes": (HEADER, table("'puzzle','solution'", "'{p}','{s}'")),
    "no-solutions": (HEADER, table("rating,puzzle", "{i},{p}")),
    "no-header": (PLAIN, table("", "{p},{s}")),
    "no-header-rating": (PLAIN, table("", "{i};{s};{p};ED=11.9/1.2/1.2")),
    "no-header-tabs": (PLAIN, table("", "{p}\t{s}\t{i}")),
    "no-header-spaces": (PLAIN, table("", "{p} {s}")),
    "no-header-names": (PLAIN, table("", "{p} by somebody # of note")),
    "lines": (LINES, table("", "{p}")),
    "sdm": (LINES, table("# a collection, by hand\n#", "{p} # number {i}, of note")),
    "spaced": (LINES, lambda pairs: "".join(" ".join(p) + "\n" for p, _ in pairs)),
    "rows-in-a-line": (LINES, lambda pairs: "".join(" | ".join(rows_of(p)) + "\n" for p, _ in pairs)),
    "grids": (GRIDS, grids()),
    "grids-below-one-another": (GRIDS, grids(between="\n")),
    "sdk": (GRIDS, grids("#AJane Doe\n#Chard\n[Puzzle]\n", "\n[State]\n1234\n[Puzzle]\n")),
    "euler": (GRIDS, grids("Grid 01\n", "\nGrid 02\n")),
    "bands": (GRIDS, grids(draw=banded)),
    "frames": (GRIDS, grids(draw=boxed("+-------+-------+-------+", "|", " "))),
    "simple-sudoku": (GRIDS, grids(draw=boxed("*-----------*", "|", ""))),
    "drawn-frames": (GRIDS, grids(draw=boxed("├───┼───┤", " │ ", " "))),
    "commas": (GRIDS, grids(draw=lambda puzzle: [",".join(row) for row in rows_of(puzzle)])),
    "printed": (GRIDS, grids(draw=lambda p: [sudoku_files.format_grid(digits_of(p), sudoku.size_of(len(p)))])),
}


def digits_of(text):
    return [0 if character in BLANKS else int(character) for character in text]


def as_text(cells, blanks="."):
    return "".join(str(cell) if cell else blanks[i % len(blanks)] for i, cell in enumerate(cells))


def attempt(path):
    """What is read, or None and the error's message."""
    try:
        return sudoku_files.read_puzzles(path), ""
    except InputError as error:
        return None, str(error)


def write(path, text, newline="\n", encoding="utf-8", packed=False):
    data = text.replace("\n", newline).encode(encoding)
    path.write_bytes(gzip.compress(data) if packed else data)


def test_every_text_format_of_the_table_is_rendered_here():
    assert {name for name, _ in RENDERED.values()} | {FORMATS[0].name} == KNOWN


@pytest.mark.parametrize("form", RENDERED)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_puzzles_in_any_format_read_back_to_themselves_and_the_user_is_told_how(tmp_path_factory, form, data):
    size = data.draw(st.sampled_from([4, 6, 9]))
    blanks = data.draw(st.permutations(BLANKS))[: data.draw(st.integers(1, 3))]
    puzzles, solutions = sudoku.generate(data.draw(st.integers(1, 4)), size=size, seed=data.draw(st.integers(0, 99)))
    name, render = RENDERED[form]
    text = render([(as_text(p, blanks), as_text(s)) for p, s in zip(puzzles, solutions, strict=True)])
    path = tmp_path_factory.mktemp("puzzles") / data.draw(st.sampled_from(["a.csv", "a.txt", "a", "a.sdk.gz"]))
    write(
        path,
        data.draw(st.sampled_from(["", "\n", "# first\n\n"])) + text,
        data.draw(st.sampled_from(["\n", "\r\n", "\r"])),
        data.draw(st.sampled_from(["utf-8", "utf-8-sig"])),
        data.draw(st.booleans()),
    )
    limit = data.draw(st.sampled_from([None, 1, 2, 9]))
    read = sudoku_files.read_puzzles(path, size=data.draw(st.sampled_from([None, size])), limit=limit)
    np.testing.assert_array_equal(read.puzzles, puzzles[:limit])
    np.testing.assert_array_equal(read.solutions, solutions[:limit])
    found = re.fullmatch(rf"{path}: read as (.*?)( \(.*\))?, (the first )?(\d) of {size}x{size}, blanks (.*)", read.how)
    assert found, read.how
    assert found[1] == name
    assert (found[3] is not None) == (limit is not None and limit <= len(puzzles))
    assert int(found[4]) == len(read.puzzles)
    shown = {"."} if form == "printed" else {blanks[i % len(blanks)] for p in puzzles for i in np.flatnonzero(p == 0)}
    assert set(found[5].split()) <= shown
    if limit is None:
        assert set(found[5].split()) == shown


DAMAGE = ["", "\n", " ", "\t", ",", ";", "|", "?", "é", "\0", '"', "'", "#", "-", "\ud800", "[", "ab", "---", "\u0661"]


@pytest.mark.thinned(3)
@pytest.mark.parametrize("form", RENDERED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damaged_file_is_read_as_it_was_meant_or_named_with_its_line(tmp_path_factory, form, data):
    puzzles, solutions = sudoku.generate(3, size=data.draw(st.sampled_from([4, 6])), seed=data.draw(st.integers(0, 20)))
    text = RENDERED[form][1]([(as_text(p), as_text(s)) for p, s in zip(puzzles, solutions, strict=True)])
    kind = data.draw(st.sampled_from(["replace", "insert", "cut", "drop line", "double line"]))
    at = data.draw(st.integers(0, len(text) - 1))
    if kind == "cut":
        text = text[:at]
    elif kind in ("replace", "insert"):
        text = text[:at] + data.draw(st.sampled_from(DAMAGE)) + text[at + (kind == "replace") :]
    else:
        lines = text.splitlines(keepends=True)
        i = text.count("\n", 0, at)
        lines[i : i + 1] = [] if kind == "drop line" else [lines[i], lines[i]]
        text = "".join(lines)
    path = tmp_path_factory.mktemp("puzzles") / "a.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    read, said = attempt(path)
    if read is None:
        assert re.match(rf"{path}(:\d+| holds no puzzle)", said), said
    else:
        assert {as_text(puzzle) for puzzle in read.puzzles} <= {as_text(puzzle) for puzzle in puzzles}


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=60) | st.text("0123.*x|-+=,; \t\n\"'#[]Grid\\", max_size=80).map(str.encode), packed=...)
def test_any_bytes_at_all_are_an_error_that_names_the_file(tmp_path_factory, data, packed: bool):
    path = tmp_path_factory.mktemp("puzzles") / "a.txt"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(InputError, match=f"^{path}[: ]"):
        sudoku_files.read_puzzles(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_gzip_is_read_as_it_was_or_named(tmp_path_factory, data):
    whole = gzip.compress("\n".join(["puzzle,solution", f"{PUZZLE},{SOLUTION}"]).encode())
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    path = tmp_path_factory.mktemp("puzzles") / "a.csv.gz"
    path.write_bytes(whole[:at] if cut else whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :])
    read, said = attempt(path)
    if read is None:
        assert said.startswith(str(path))
    else:
        assert as_text(read.solutions[0]) == SOLUTION


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Dear all,\nhere they are\n", r":1: 'Dear all,' begins no known format; known are: rows of a solver "),
        ("\n# note\nhere they are\n", r":3: 'here they are' begins no known format"),
        (f"{PUZZLE},{PUZZLE},{SOLUTION}\n", r":1: 2 puzzles and 1 full grids in one line: name the columns"),
        (f"{PUZZLE},{SOLUTION},{SOLUTION}\n", r":1: 1 puzzles and 2 full grids in one line: name the columns"),
        (f"{SOLUTION},7\n", r":1: .* begins no known format"),
        ("puzzle,quiz\n", r":1: the header names two columns of one kind: rename one of them"),
        ("puzzle,answer,solution\n", r":1: the header names two columns of one kind"),
        (f"{PUZZLE},{SOLUTION}\n{PUZZLE}\n", r":2: fields: 1, but the first line has 2"),
        (f"{PUZZLE}\n{PUZZLE} by me\n", r":2 has 22 cells: 16 are wanted here"),
        ("..1.\n...2\n....\n", r":1: the grid that begins here has 3 rows, not 4"),
        ("..1.\n...2\n....\n\n....\n", r":1: the grid that begins here has 3 rows, not 4"),
        ("..1.\n...2\nGrid 2\n....\n", r":1: the grid that begins here has 2 rows, not 4"),
        ("..1.\n...\n", r":2: '...' is no row of 4 cells: use 1 to 4, and one of . 0 _ \* x for a blank"),
        ("..1.\n..5.\n", r":2: '..5.' is no row of 4 cells"),
        (".1.4\n....\n....\n1.3.\n\n.1.4\n....\n\n....\n1.3.\n", r":6: empty lines part this grid, but not where"),
        ("[Puzzle]\n", " holds no puzzle"),
        (b"PK\x03\x04rest", " is a zip archive: unpack it, "),
        (b"PAR1rest", " is Parquet: unpack it, "),
        (f"\n{PUZZLE}".encode("utf-16"), r":1: byte 0xff is not UTF-8 text: save as UTF-8"),
        (b"# " + b"a" * 70_000, r":1 is over 65,536 characters long"),
        (b"#\n" + b"1" * 3_000_000, r":2 is over 65,536 characters long"),
    ],
)
def test_what_fits_no_format_or_is_ambiguous_is_named_by_file_and_line(tmp_path, content, words):
    path = tmp_path / "a.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"^{path}{words}") as caught:
        sudoku_files.read_puzzles(path)
    if "known format" in words:
        assert all(name in str(caught.value) for name in KNOWN)


def test_how_tells_which_columns_were_taken_and_which_were_not(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"source,question,answer,rating\nme,{PUZZLE},{SOLUTION},3\n")
    assert sudoku_files.read_puzzles(path).how == (
        f"{path}: read as a table with a header (commas between fields; puzzles in 'question'; solutions in 'answer'; "
        f"not used: 'source', 'rating'), 1 of 4x4, blanks ."
    )
    path.write_text(f"7\t{PUZZLE.replace('.', '0')}\n")
    assert sudoku_files.read_puzzles(path).how == (
        f"{path}: read as a table without header (tabs between fields; puzzles in column 2; no solutions; not used: "
        f"column 1), 1 of 4x4, blanks 0"
    )


def test_array_is_known_by_its_content_too_and_said_to_be_read_as_one(tmp_path):
    puzzles, solutions = sudoku.generate(40, seed=12)
    from mdm_jax.tasks.sudoku import rules as sudoku_rules

    rating = sudoku_rules.rate(puzzles)
    fields = [field[rating.is_solved] for field in (puzzles, solutions, rating.order, rating.rule)]
    sudoku_files.write_solver_rows(tmp_path / "a.npy", *fields)
    (tmp_path / "a.npy").rename(tmp_path / "other")
    read = sudoku_files.read_puzzles(tmp_path / "other", limit=3)
    np.testing.assert_array_equal(read.order, fields[2][:3])
    assert read.how == f"{tmp_path / 'other'}: read as rows of a solver, the first 3 of 9x9"


def test_limit_reads_no_further_than_it_has_to(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("puzzle\n" + f"{PUZZLE}\n" * 9 + "nonsense\n")
    for limit in (1, 2, 4):  # it reads as many lines at a time
        assert sudoku_files.read_puzzles(path, limit=limit).lines.tolist() == list(range(2, 2 + limit))
    with pytest.raises(InputError, match=r":11 has 8 cells"):
        sudoku_files.read_puzzles(path, limit=10)
    for limit in (0, -1, 1.5):
        with pytest.raises(InputError, match="limit must be a whole number, at least 1"):
            sudoku_files.read_puzzles(path, limit=limit)


def test_pipe_and_device_are_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match=f"^{path} is a (pipe|device): give a regular file"):
            sudoku_files.read_puzzles(path)
    with pytest.raises(InputError, match=r"cannot be read: .*null"):
        sudoku_files.read_puzzles("a\0b")


def test_gzip_that_unpacks_to_far_more_than_puzzles_do_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(f"{PUZZLE}\n".encode() + b"\n" * 4_000_000))
    assert len(sudoku_files.read_puzzles(path).puzzles) == 1, "a small one is nobody's trouble"
    monkeypatch.setattr(puzzle_formats, "_BOMB_SIZE", 1 << 20)
    with pytest.raises(InputError, match=f"^{path} unpacks to over 30 times its size"):
        sudoku_files.read_puzzles(path)


@pytest.mark.parametrize("form", ["lines", "spaced", "rows-in-a-line", "grids", "bands", "frames", "simple-sudoku"])
@pytest.mark.parametrize("blank", BLANKS)
def test_puzzle_on_the_command_line_may_be_drawn_as_in_a_file(form, blank):
    for puzzle in (PUZZLE, PUZZLE_9):
        text = RENDERED[form][1]([(puzzle.replace(".", blank), "")])
        assert as_text(sudoku_files.parse_puzzle(text)) == puzzle


def test_two_or_half_a_grid_on_the_command_line_are_one_line():
    grid = "\n".join(rows_of(PUZZLE))
    for text, words in (
        (f"{grid}\n\n{grid}", "^it is 2 grids: give one at a time"),
        (grid[:-1], "^it:4: '1.3' is no row of 4 cells"),
        (grid[:-5], "^it:1: the grid that begins here has 3 rows, not 4"),
        ("[State]\n1234", "^it is 0 grids"),
    ):
        with pytest.raises(InputError, match=words):
            sudoku_files.parse_puzzle(text, "it")
