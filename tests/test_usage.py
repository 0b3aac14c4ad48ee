"""`--help` has the flags in groups, loses none of them, and ends with examples."""

import contextlib
import dataclasses
import importlib
import io
import pathlib
import re

import pytest

import experiments
from experiments import sudoku
from experiments.common import parse
from experiments.usage import GROUPS, examples_of, grouped


def help_of(command):
    said = io.StringIO()
    kinds = {name: kind for name, (kind, _) in sudoku.COMMANDS.items()}
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        parse("sudoku", sudoku.__doc__, kinds, [command, "--help"])
    return said.getvalue()


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_has_every_flag_once_under_its_group_and_ends_with_three_examples(command):
    text = help_of(command)
    fields = dataclasses.fields(sudoku.COMMANDS[command][0])
    flags = [field.name.replace("_", "-") for field in fields if field.name not in ("mesh", "distributed")]
    for flag in flags:
        assert len(re.findall(rf"^  --{flag}\b(?!-)", text, re.MULTILINE)) == 1, flag
    sections = re.split(r"^ ([a-z ]+)\n -+\n", text, flags=re.MULTILINE)
    under = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert "--num-train" in under["data"] if command == "train" else "--oracle" in under["decoding"]
    assert "--learning-rate" in under["optimisation"] if command == "train" else "--checkpoint" in under["model"]
    examples = under["examples"].split("\n")[:-1]
    assert len(examples) == 3
    assert examples[0].startswith(f"  python -m experiments.sudoku {command} ")


def test_every_command_has_three_examples():
    folder = pathlib.Path(experiments.__file__).parent
    paths = [path for path in folder.rglob("*.py") if re.search("^COMMANDS = ", path.read_text(), re.MULTILINE)]
    assert len(paths) > 10
    for path in paths:
        name = path.parent.name if path.stem == "__main__" else path.stem
        found = importlib.import_module(".".join(("experiments", *path.relative_to(folder).with_suffix("").parts)))
        for command in found.COMMANDS:
            assert len(examples_of(name, command, found.__doc__)) == 3, (path, command)


def test_flag_of_no_group_stays_with_the_options():
    lines = ["  --seed INT   of all draws", "  --other INT  something", "               else"]
    text = "usage: x\n\n options   \n ----\n" + "\n".join(lines) + "\n\nend\n"
    found = grouped(text, ["python -m x"])
    assert found.index("--other") < found.index("else") < found.index("evaluation and output") < found.index("--seed")
    assert found.endswith("python -m x\n")


def test_help_without_options_is_left_alone():
    assert grouped("usage: x\n", ["python -m x"]) == "usage: x\n"


def test_examples_are_those_of_the_command_first():
    text = (
        "A claim.\n\n    python -m experiments.x train --a 1\n    python -m experiments.x solve\n    python -m other\n"
    )
    assert [line.split()[3] for line in examples_of("x", "solve", text)] == ["solve", "train"]


def test_no_flag_is_in_two_groups():
    flags = [flag for words in GROUPS.values() for flag in words.split()]
    assert len(flags) == len(set(flags))
