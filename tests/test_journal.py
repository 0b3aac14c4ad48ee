"""`units.jsonl`: whatever does not stand there as it was written is one line."""

import json
import math
import os

import pytest

from experiments.journal import Journal
from mdm_jax import InputError

HEAD = {"scale": "smoke", "seed": 0, "limit": None, "settings": {"steps": {"mdm": 3}}}
ROWS = [{"method": "mdm", "oracle": "margin", "solved": 0.5, "solved_ci": [0.1, 0.9], "tokens_per_step": 1}]


def write(folder):
    """A journal of three units; its lines."""
    journal = Journal(folder, HEAD, None)
    for unit in ("a", "b", "c"):
        journal.rows(unit, lambda: ROWS)
    return (folder / "units.jsonl").read_bytes().splitlines(keepends=True)


def refused(folder, content):
    (folder / "units.jsonl").write_bytes(content)
    with pytest.raises(InputError) as caught:
        Journal(folder, HEAD, None)
    text = str(caught.value)
    assert str(folder / "units.jsonl") in text
    assert text.isprintable()
    assert len(text) <= 1000
    return text


def fail():
    raise AssertionError("it is done already")


def test_journal_holds_what_was_measured_with_null_where_there_was_no_number(tmp_path):
    journal = Journal(tmp_path, HEAD, None)
    journal.rows("a", lambda: [{"loss": math.nan, "ci": (0.5, math.inf), "name": "x"}])
    again = Journal(tmp_path, HEAD, None).rows("a", fail)
    assert again == journal.rows("a", fail) == [{"loss": None, "ci": [0.5, None], "name": "x"}]


@pytest.mark.parametrize(
    "line",
    [
        "null", "[]", "{}", "7", '"a"', "true", "x", "", " ", "NaN", "[[[", '{"unit"', "[" * 10**5, "9" * 5000,
        '{"unit": "a"}', '{"unit": "a", "seconds": 1, "rows": []}', '{"unit": "a", "seconds": NaN, "rows": [{}]}',
        '{"unit": 3, "seconds": "x", "rows": null, "crc32": 0}', '{"crc32": 0}', '{"unit": "a", "crc32": []}',
    ],
)  # fmt: skip
def test_journal_with_a_line_of_something_else_is_refused_wherever_it_stands(tmp_path, line):
    lines = write(tmp_path)
    for place in range(5):
        text = refused(tmp_path, b"".join([*lines[:place], line.encode() + b"\n", *lines[place:]]))
        assert f"line {place + 1}, is not what was written there" in text


def test_journal_in_which_anything_was_changed_is_refused(tmp_path):
    lines = write(tmp_path)
    for number, line in enumerate(lines):
        for place in range(0, len(line) - 1, 7):
            changed = bytearray(line)
            changed[place] ^= 1
            refused(tmp_path, b"".join([*lines[:number], bytes(changed), *lines[number + 1 :]]))
    refused(tmp_path, b"".join(lines[1:]))
    refused(tmp_path, b"".join(lines).replace(b"0.5", b'"0.5"', 1))
    refused(tmp_path, b"\xff\xfe" + b"".join(lines))
    refused(tmp_path, b"\n".join([*lines, b""]))
    other = json.loads(lines[1])
    del other["crc32"]
    refused(tmp_path, lines[0] + json.dumps(other).encode() + b"\n")  # as an older version wrote it


def test_journal_without_a_line_or_with_half_a_line_does_that_part_again(tmp_path):
    lines, path = write(tmp_path), tmp_path / "units.jsonl"
    for content in (lines[:2] + lines[3:], [*lines[:2], lines[2][:-9]], [*lines[:2], lines[2][:-1]]):
        path.write_bytes(b"".join(content))
        journal = Journal(tmp_path, HEAD, None)
        with pytest.raises(AssertionError, match="done already"):
            journal.rows("b", fail)
        journal.rows("b", lambda: ROWS)
        assert Journal(tmp_path, HEAD, None).rows("b", fail) == Journal(tmp_path, HEAD, None).rows("a", fail) == ROWS


def test_journal_that_is_no_file_is_one_line(tmp_path):
    path = tmp_path / "units.jsonl"
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        make()
        with pytest.raises(InputError, match=r"units\.jsonl is a .*: give a regular file"):
            Journal(tmp_path, HEAD, None)
        path.rmdir() if path.is_dir() else path.unlink()
