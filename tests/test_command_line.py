"""`mdm-jax generate`, as a user runs it, and what its screen shows."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import toy
from commands import ENV, ROOT, assert_refused, page_of
from languages import write_model, write_tokenizer

import mdm_jax
from mdm_jax.arguments import parser
from mdm_jax.command_line import main, selector_of
from mdm_jax.text.prompts import gaps
from mdm_jax.text.watch import HEAT, Screen, plain

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder)
    return write_model(folder)


def test_command_prints_what_generate_gives_and_writes_it_as_json_lines(folder, tmp_path, capsys):
    (tmp_path / "asked.jsonl").write_text(
        '"the cat"\n\n{"infill": "f(x):[3]y[2]", "id": 7}\n{"tokens": [20, 21]}\n'
        '{"messages": [{"role": "user", "content": "the"}]}\n'
    )
    options = ["--num-new", "4", "--num-steps", "2", "--temperature", "0.7", "--seed", "3", "--end", "never"]
    main(
        [
            *("generate", "--model", str(folder), "--prompt", "on", "--infill", r"x\[0][2]z"),
            *("--prompts", str(tmp_path / "asked.jsonl"), "--json", str(tmp_path / "found.jsonl"), *options),
        ]
    )
    chat = [{"role": "user", "content": "the"}]
    asked = ["on", gaps(r"x\[0][2]z"), "the cat", gaps("f(x):[3]y[2]"), [20, 21], chat]
    found = mdm_jax.generate(
        mdm_jax.load(folder),
        asked,
        tokenizer=folder,
        num_new=4,
        selector=mdm_jax.TopK(2),
        temperature=0.7,
        seed=3,
        end="never",
    )
    printed = capsys.readouterr().out
    assert all(f"\n{got.text}\n" in printed for got in found)
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [line.pop("prompt") for line in lines] == [
        "on",
        ["x[0]", "[2]", "z"],
        "the cat",
        ["f(x):", "[3]", "y", "[2]"],
        [20, 21],
        chat,
    ]
    assert lines == [json.loads(json.dumps(got._asdict())) for got in found]


@pytest.mark.slow
def test_texts_of_a_file_are_prompts_and_chat_makes_them_messages(folder, tmp_path, capsys):
    (tmp_path / "asked.txt").write_text('the cat\r\n\n"a" [2]\n')
    out = tmp_path / "found.jsonl"
    main(
        [
            *("generate", "--model", str(folder), "--prompts", str(tmp_path / "asked.txt"), "--chat"),
            *("--num-new", "4", "--num-steps", "2", "--json", str(out)),
        ]
    )
    assert [json.loads(line)["prompt"] for line in out.read_text().splitlines()] == [
        [{"role": "user", "content": "the cat"}],
        [{"role": "user", "content": '"a" [2]'}],
    ]


def test_bad_input_is_refused_in_one_line(folder, tmp_path):
    (tmp_path / "untold").mkdir()
    write_model(tmp_path / "untold")
    (tmp_path / "bad.jsonl").write_text('"a"\n{"prompt": 3}\n')
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "tokenizer.json").write_text("{}")
    given = ["generate", "--model", folder]
    one = [*given, "--prompt", "the"]
    assert_refused(
        "mdm-jax",
        [
            ([], "required: command; see mdm-jax --help"),
            (["generate", "--prompt", "a"], "required: --model; see mdm-jax generate --help"),
            (given, "there is no prompt: give --prompt"),
            (
                [*one, "--num-new", "0"],
                "--num-new: it must be a whole number, at least 1 and at most 2147483647; got",
            ),
            ([*one, "--num-new", "some"], "--num-new: it must be a whole number"),
            ([*one, "--top-p", "1.5"], "--top-p: it must be a number, above 0 and at most 1; got 1.5"),
            ([*one, "--temperature", "nan"], "--temperature: it must be a number"),
            ([*one, "--threshold", "abc"], "--threshold: it must be a number; got 'abc'"),
            ([*one, "--num-steps", "2", "--threshold", "0.5"], "--threshold: not allowed with argument --num-steps"),
            ([*one, "--end", "soon"], "--end: invalid choice: 'soon'"),
            ([*one, "--suppress", "1,x"], "--suppress: it must be a whole number"),
            ([*one, "--suppress", "5,99999"], "a suppressed id is 99999, and the model's vocabulary has 280 tokens"),
            ([*one, "--oracle", "best"], "unknown oracle 'best'; choose from random, left_to_right"),
            ([*one, "--infill", "x[0]"], r"for the text write \[0]"),
            ([*one, "--json", tmp_path], "is no file in a folder that there is"),
            ([*one, "--watch", "--prompt", "cat"], "--watch shows one prompt, and there are 2"),
            ([*given, "--prompts", tmp_path / "bad.jsonl"], "line 2 of"),
            ([*given, "--prompts", tmp_path / "empty.txt"], "holds no prompt"),
            ([*given, "--prompts", tmp_path / "none.txt"], "none.txt cannot be read: No such file"),
            ([*one, "--tokenizer", tmp_path / "tokenizer.json"], "cannot be read as a tokenizer"),
            (
                ["generate", "--model", tmp_path / "untold", "--prompt", "a"],
                "give --tokenizer, or token ids",
            ),
            (
                ["generate", "--model", tmp_path / "nowhere", "--prompt", "a"],
                "a Hugging Face folder, or shipped weights (sudoku",
            ),
            ([*one, "--num-new", "200"], "and the model takes 128"),
            ([*one, "--fsdp", "2"], "devices"),
        ],
    )


@pytest.mark.slow
def test_command_on_a_terminal_shows_the_order_and_elsewhere_plain_text_and_the_page_plays_it(folder, tmp_path):
    command = [sys.executable, "-m", "mdm_jax.command_line", "generate", "--model", str(folder), "--prompt", "the cat"]
    command += ["--num-new", "4", "--seed", "1", "--watch", "--viewer", str(tmp_path / "page.html")]
    flat = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, check=False)
    assert (flat.returncode, b"\x1b" in flat.stdout) == (0, False)
    ours, theirs = os.openpty()
    with subprocess.Popen(command, cwd=ROOT, env=ENV | {"COLUMNS": "80", "LINES": "24"}, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := read_terminal(ours):
            shown += chunk
    os.close(ours)
    assert process.returncode == 0
    frames = shown.split(b"\x1b[J")[1:]
    assert [frame.decode().count("·") for frame in frames] == [3, 2, 1, 0]
    assert frames[0].startswith(b"the cat")
    (panel,) = page_of(tmp_path / "page.html")["panels"]
    assert (panel["name"], panel["targets"]) == ("margin", 4)
    assert sorted(event[0] for event in panel["events"]) == [0, 1, 2, 3]
    texts = [event[2] for event in sorted(panel["events"], key=lambda event: event[1])]
    assert "".join(texts).strip() in flat.stdout.decode()


def read_terminal(file):
    try:
        return os.read(file, 1 << 16)
    except OSError:  # how Linux says that the other side is closed
        return b""


def test_screen_draws_each_step_over_the_last_and_colours_by_order(monkeypatch):
    monkeypatch.setenv("COLUMNS", "6")
    monkeypatch.setenv("LINES", "4")
    stream = io.StringIO()
    screen = Screen(lambda before, token: chr(token), stream)
    text = np.array([ord(c) for c in "ab\x1b世d"])
    screen(np.where([False, True, True, True, True], -1, text), np.array([-1] * 5))
    assert stream.getvalue() == "\r\x1b[Ja····\n"
    stream.truncate(0)
    screen(text, np.array([-1, 0, 2, 1, 2]))
    frame = stream.getvalue().lstrip("\0")
    assert frame.startswith("\x1b[1A\r\x1b[Ja")
    first, middle, last = HEAT[0], HEAT[len(HEAT) // 2], HEAT[-1]
    coloured = re.findall(r"\x1b\[38;5;(\d+)m([^\x1b]*)\x1b\[0m", frame)
    assert coloured == [(str(first), "b"), (str(last), r"\x1"), (str(last), "b"), (str(middle), "世"), (str(last), "d")]
    assert plain("a\x1b[31m\tb\n") == "a\\x1b[31m\tb\n"


@pytest.mark.parametrize(
    ("flags", "selector"),
    [
        ([], mdm_jax.PerStep(1)),
        (["--tokens-per-step", "3"], mdm_jax.PerStep(3)),
        (["--num-steps", "3"], mdm_jax.TopK(3)),
        (["--threshold", "0.5"], mdm_jax.Threshold(0.5)),
        (["--entropy-budget", "0.5"], mdm_jax.EntropyBudget(0.5)),
        (["--klass", "0.9"], mdm_jax.Klass(0.9)),
        (["--binomial-steps", "4"], mdm_jax.Binomial(4)),
    ],
)
def test_every_selector_has_its_flag(flags, selector):
    assert selector_of(parser().parse_args(["generate", "--model", "DIR", *flags])) == selector
