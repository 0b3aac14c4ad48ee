"""A run whose config.json or parameters are not right: every command that reads it ends with one line."""

import json
import os

import pytest
from commands import run_all
from saved import COMMON, write, write_sudoku

from experiments.trained import load_run
from mdm_jax import InputError
from mdm_jax.loading import identity
from mdm_jax.tasks.zebra import layouts as zebra_layouts
from mdm_jax.tasks.zebra.clues import Size

ZEBRA = {"name": "zebra", "difficulty": None, "layout": "in-place", **COMMON}
ZEBRA |= {"min_houses": 3, "max_houses": 3, "min_attributes": 3, "max_attributes": 4}
NAE_SAT = {"name": "nae_sat", "num_latents": 4, "num_observations": 6, "length": None, **COMMON}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One of each kind."""
    root = tmp_path_factory.mktemp("trained")
    layout = zebra_layouts.get("in-place", Size(3, 4))
    return {
        "sudoku": write_sudoku(root / "sudoku"),
        "zebra": write(root / "zebra", ZEBRA, **layout.network),
        "nae_sat": write(root / "nae-sat", NAE_SAT, vocab_size=2, num_extra_tokens=2, max_length=10),
    }


NUMBERS = [None, "x", -1, 1.5, True, [], {}, 10**12, 10**4000, float("inf")]
TASKS = {
    ("sudoku", "size"): [*NUMBERS, 0, 5, 6, 9],
    ("sudoku", "clues"): [*NUMBERS[1:], 82],
    ("sudoku", "difficulty"): ["", "easy", 3, [], {}, "normal,hard"],
    ("sudoku", "num_train"): [*NUMBERS, 0],
    ("sudoku", "num_test"): [*NUMBERS, 0],
    ("sudoku", "seed"): NUMBERS,
    ("sudoku", "source"): [3, [], {}, True],
    ("sudoku", "layout"): [None, "x", "triples", 1, [], "question-answer"],
    ("sudoku", "name"): [None, "zebra", 3, "\x1b[2J" * 10**4],
    ("zebra", "min_houses"): [*NUMBERS, 2, 7, 4],
    ("zebra", "max_houses"): [*NUMBERS, 2, 7, 6],
    ("zebra", "min_attributes"): [*NUMBERS, 5],
    ("zebra", "max_attributes"): [*NUMBERS, 3],
    ("zebra", "num_test"): [*NUMBERS, 0],
    ("zebra", "layout"): [None, "triples", "shifted"],
    ("nae_sat", "num_latents"): [*NUMBERS, 0, 2, 5],
    ("nae_sat", "num_observations"): [*NUMBERS, 0, 7],
    ("nae_sat", "length"): [*NUMBERS[1:], 0, 9, 11],
    ("nae_sat", "seed"): NUMBERS,
}


@pytest.mark.slow
@pytest.mark.parametrize(("game", "name"), TASKS)
def test_task_that_is_none_or_not_the_networks_is_one_line(folders, tmp_path, game, name):
    folder = folders[game]
    text = (folder / "config.json").read_text()
    load_run(game, folder)
    try:
        for value in [*TASKS[game, name], "MISSING"]:
            config = json.loads(text)
            config["task"][name] = value
            if value == "MISSING":
                del config["task"][name]
            (folder / "config.json").write_text(json.dumps(config))
            with pytest.raises(InputError) as caught:
                load_run(game, folder)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) <= 1000
    finally:
        (folder / "config.json").write_text(text)


@pytest.mark.slow
def test_file_that_a_config_names_is_opened_only_if_the_user_names_it(tmp_path):
    folder = write_sudoku(tmp_path / "run")
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits for ever
    config = json.loads((folder / "config.json").read_text())
    config["task"]["source"] = str(tmp_path / "pipe")
    (folder / "config.json").write_text(json.dumps(config))
    puzzles = tmp_path / "puzzles.txt"
    puzzles.write_text("1.34.412214.43.1\n" * 3)
    evaluate = ["evaluate", "--checkpoint", folder, "--out", tmp_path / "out"]
    readings = ["readings", "--checkpoint", folder, "--out", tmp_path / "out"]
    done = run_all(
        "sudoku",
        [evaluate, readings, [*evaluate, "--puzzles", puzzles], [*evaluate, "--puzzles", puzzles, "--source", puzzles]],
    )
    assert [status for status, _, _ in done] == [2, 2, 0, 2]
    for _, said, _ in done[:2]:
        assert said[-1].startswith(f"error: the run took its puzzles from {tmp_path / 'pipe'}: to use that")
    assert "leave one of them out" in done[3][1][-1]


@pytest.mark.slow
def test_parameters_that_are_or_make_no_finite_numbers_end_every_command_with_one_line(tmp_path):
    whole = write_sudoku(tmp_path / "whole", "triples")
    huge = write_sudoku(tmp_path / "huge", "triples", scale=1e15)
    broken = write_sudoku(tmp_path / "broken", "triples")
    data = bytearray((broken / "model.safetensors").read_bytes())
    data[-2:] = b"\xff\x7f"  # of a float32: not a number
    (broken / "model.safetensors").write_bytes(data)
    puzzle = "1.34.412214.43.1"
    argvs = [
        [command, *([puzzle] if command == "solve" else []), "--checkpoint", folder, "--out", tmp_path / "out"]
        for folder in (whole, huge, broken)
        for command in ("solve", "evaluate")
    ]
    done = run_all("sudoku", argvs)
    assert [status for status, _, _ in done] == [0, 0, 1, 1, 2, 2]
    for status, said, printed in done[2:]:
        words = "predictions are not finite; the parameters may be damaged" if status == 1 else "is damaged: "
        assert words in said[-1]
        assert "solved" not in printed


def test_identity_of_weights_changes_with_the_files_and_names_the_checkpoint(tmp_path):
    first, second = (tmp_path / "run" / "checkpoints" / step for step in ("5", "10"))
    for folder in (first, second):
        folder.mkdir(parents=True)
        (folder / "arrays").write_bytes(b"1234")
    newest, best = identity(tmp_path / "run"), identity(first)
    assert newest == identity(second) == identity(tmp_path / "run" / "checkpoints")
    (second / "arrays").write_bytes(b"12345")
    assert newest != identity(tmp_path / "run")
    assert best == identity(first)
    assert identity("sudoku-6m") != identity("sudoku-6m-hard")
    with pytest.raises(InputError, match="there is no folder"):
        identity(tmp_path / "none")
