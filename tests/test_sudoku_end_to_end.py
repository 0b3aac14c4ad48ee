"""The Sudoku commands, run as a user runs them, on puzzles small enough for seconds."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from mdm_jax.data import sudoku

ROOT = pathlib.Path(__file__).parents[1]
ENV = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
"""One device, as on a user's machine; the tests' own process has eight."""
SHARED = ROOT.parent / "shared" / "data"


def run(*argv, code=0):
    """Runs one command; what it printed."""
    command = [sys.executable, "-m", "experiments.sudoku", *map(str, argv)]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr[-2000:]
    return done


def rows(folder):
    return json.loads((folder / "results.json").read_text())["rows"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on 4x4 puzzles."""
    folder = tmp_path_factory.mktemp("sudoku")
    flags = ["--size", 4, "--num-train", 4000, "--num-test", 64, "--data", folder / "data", "--model", "sudoku_800k"]
    flags += ["--dtype", "float32", "--steps", 150, "--batch-size", 32, "--warmup-steps", 10]
    flags += ["--checkpoint-every", 150, "--evaluate-every", 50, "--best-metric", "solved/margin", "--accumulate", 2]
    flags += ["--out", folder / "run"]
    run("train", *flags)
    return folder, flags


def test_train_learns_and_started_again_goes_on_where_it_was(trained):
    folder, flags = trained
    by_oracle = {row["oracle"]: row for row in rows(folder / "run")}
    assert by_oracle["margin"]["solved"] > 0.3
    assert by_oracle["margin"]["cells"] > 0.7
    metrics = (folder / "run" / "metrics.jsonl").read_text()
    run("train", *flags)
    assert (folder / "run" / "metrics.jsonl").read_text() == metrics, "no step was trained again"
    assert {row["oracle"]: row["solved"] for row in rows(folder / "run")}["margin"] == by_oracle["margin"]["solved"]
    steps = [json.loads(line)["step"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert max(steps) == 150


def test_train_keeps_the_checkpoint_that_did_best_on_held_out_puzzles(trained):
    folder, _ = trained
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = {line["step"]: line for line in lines if "solved/margin" in line}
    assert sorted(evaluations) == [50, 100, 150]
    assert evaluations[150]["held_out_loss_per_token"] < 0.9 * evaluations[50]["held_out_loss_per_token"]
    best = max(line["solved/margin"] for line in evaluations.values())
    run("evaluate", "--checkpoint", folder / "run" / "checkpoints" / "best", "--out", folder / "best")
    assert rows(folder / "best")[0]["solved"] == best


def test_train_in_two_processes_evaluates_over_both_and_writes_its_results_once(tmp_path):
    flags = ["--size", 4, "--num-train", 500, "--num-test", 20, "--data", tmp_path / "data", "--model", "sudoku_800k"]
    flags += ["--dtype", "float32", "--steps", 4, "--batch-size", 16, "--evaluate-every", 2, "--out", tmp_path / "run"]
    flags += ["--best-metric", "held_out_loss_per_token", "--best-mode", "min", "--mesh.fsdp", 2, "--mesh.tensor", 2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        flags += ["--distributed.coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--distributed.num-processes", 2]
    environment = ENV | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-m", "experiments.sudoku", "train", *map(str, flags), "--distributed.process-id"]
    pair = [
        subprocess.Popen([*command, str(i)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs[0][1][-2000:]
    assert [b"written to" in printed for printed, _ in outputs] == [True, False]
    assert {row["oracle"]: row["n"] for row in rows(tmp_path / "run")} == {"random": 20, "margin": 20}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "solved/margin" in line] == [2, 4]
    run("evaluate", "--checkpoint", tmp_path / "run" / "checkpoints" / "best", "--out", tmp_path / "one")
    trained = {row["oracle"]: row["cells"] for row in rows(tmp_path / "run")}
    assert rows(tmp_path / "one")[0]["cells"] == pytest.approx(trained["margin"], abs=0.02)


def test_evaluate_reports_what_the_training_reported_and_every_selector_runs(trained):
    folder, _ = trained
    checkpoint = ["--checkpoint", folder / "run"]
    run("evaluate", *checkpoint, "--oracle", "margin,random", "--out", folder / "one")
    one = rows(folder / "one")
    trained_rows = {row["oracle"]: row for row in rows(folder / "run")}
    for row in one:
        assert row["solved"] == trained_rows[row["oracle"]]["solved"]
        assert row["cells"] == pytest.approx(trained_rows[row["oracle"]]["cells"])
    blanks = int((sudoku.generate(64, size=4, split="test")[0] == 0).sum(axis=1).max())
    assert one[0]["nfe"] == blanks
    run("evaluate", *checkpoint, "--num-steps", 4, "--temperature", 0.5, "--limit", 8, "--out", folder / "steps")
    assert rows(folder / "steps")[0]["nfe"] == 4
    run("evaluate", *checkpoint, "--threshold", 0.9, "--block-length", 8, "--limit", 8, "--out", folder / "threshold")
    assert rows(folder / "threshold")[0]["n"] == 8


def test_solve_prints_the_grid_and_the_order_and_keeps_the_givens(trained):
    folder, _ = trained
    puzzle = sudoku.generate(1, size=4, split="test")[0][0]
    text = "".join(map(str, puzzle))
    printed = run("solve", text, "--checkpoint", folder / "run", "--out", folder / "solve").stdout
    assert "puzzle 1, order margin" in printed
    order = printed.split("given):\n")[1].splitlines()[:4]
    steps = [cell for line in order for cell in line.split()]
    assert [cell == "." for cell in steps] == (puzzle > 0).tolist()
    assert sorted(int(cell) for cell in steps if cell != ".") == list(range(1, int((puzzle == 0).sum()) + 1))
    file = folder / "puzzles.txt"
    file.write_text(text.replace("0", ".") + "\n")
    run("solve", "--puzzles", file, "--checkpoint", folder / "run", "--out", folder / "file")
    assert rows(folder / "file")[0]["solved"] == rows(folder / "solve")[0]["solved"]


def test_bad_input_is_one_line_and_code_two(trained, tmp_path):
    folder, flags = trained
    checkpoint = ["--checkpoint", folder / "run", "--out", tmp_path]
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("1234123412341234\n123\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    nine = "".join(map(str, sudoku.generate(1, size=9)[0][0]))
    cases = [
        (["evaluate", *checkpoint, "--oracle", "best"], "unknown oracle 'best'"),
        (["evaluate", *checkpoint, "--num-steps", 0], "num_steps must be a whole number from 1"),
        (["evaluate", *checkpoint, "--num-steps", 10**10], "to 2147483647"),
        (["evaluate", *checkpoint, "--batch-size", 0], "0 at a time"),
        (["evaluate", *checkpoint, "--temperature", "inf"], "finite"),
        (["evaluate", *checkpoint, "--noise", -1], "scale must be at least 0"),
        (["evaluate", *checkpoint, "--seed", 10**20], "--seed must lie in"),
        (["evaluate", *checkpoint[:2], "--out", tmp_path / "short.txt"], "short.txt"),
        (["evaluate", *checkpoint, "--limit", 0], "--limit must be at least 1"),
        (["evaluate", *checkpoint, "--temperature", -1], "temperature must be at least 0"),
        (["evaluate", *checkpoint, "--puzzles", tmp_path / "none.txt"], "none.txt"),
        (["evaluate", *checkpoint, "--puzzles", tmp_path / "empty.txt"], "empty.txt"),
        (["evaluate", *checkpoint, "--puzzles", tmp_path / "short.txt"], "short.txt:2"),
        (["evaluate", "--checkpoint", tmp_path / "broken", "--out", tmp_path], "broken"),
        (["evaluate", "--checkpoint", tmp_path / "absent", "--out", tmp_path], "no folder"),
        (["solve", *checkpoint], "give puzzles"),
        (["solve", *checkpoint, "12"], "puzzle 1"),
        (["solve", *checkpoint, "0" * 81], "puzzle 1"),
        (["solve", *checkpoint, "--oracle", "margin", "1" * 16], "puzzle 1"),
        (["solve", *checkpoint, nine], "solves 4x4, not 9x9"),
        (["solve", *checkpoint, nine, "--size", 6], "the puzzles are 9x9, not --size 6"),
        (["evaluate", *checkpoint, "--size", 9], "solves 4x4, not 9x9"),
        (["train", *flags, "--warmup-steps", -1], "warm-up"),
        (["train", *flags, "--out", tmp_path / "new", "--evaluate-limit", 0], "--evaluate-limit"),
        (["train", *flags, "--out", tmp_path / "new", "--batch-size", 5000], "batch_size=5000"),
        (["train", *flags, "--out", tmp_path / "new", "--clues", 3], "clues"),
        (["prepare", "--size", 5, "--out", tmp_path], "5"),
        (["prepare", "--size", 4, "--data", tmp_path / "short.txt", "--out", tmp_path], "short.txt"),
        (["train", *flags, "--model", "gpt5"], "unknown preset 'gpt5'"),
        (["train", *flags, "--steps", 151], "num_steps 150 -> 151"),
        (["train", *flags, "--mesh.data", 3, "--out", tmp_path / "mesh"], "data=3"),
    ]
    code = (
        "import json, sys, traceback\n"
        "from experiments.common import main\n"
        "from experiments.sudoku.__main__ import COMMANDS\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    try:\n        main('sudoku', '', COMMANDS, argv)\n"
        "    except SystemExit as stop:\n        print('exit', stop.code, file=sys.stderr)\n"
    )
    argvs = json.dumps([[str(word) for word in argv] for argv, _ in cases])
    done = subprocess.run(
        [sys.executable, "-c", code, argvs], cwd=ROOT, env=ENV, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error:", "exit"))]
    assert len(errors) == 2 * len(cases), done.stderr
    for (argv, message), error, status in zip(cases, errors[::2], errors[1::2], strict=True):
        assert message in error, argv
        assert status == "exit 2", argv
    assert not (tmp_path / "new" / "config.json").exists(), "what did not start leaves no config behind"


def test_demo_ends_with_a_row_per_order_and_two_pictures(tmp_path):
    out = tmp_path / "demo"
    flags = ["--steps", 2, "--batch-size", 16, "--num-train", 500, "--limit", 20, "--data", tmp_path, "--out", out]
    run("demo", *flags)
    found = rows(out)
    assert [row["oracle"] for row in found] == ["random", "top_prob", "margin", "neg_entropy"]
    assert {row["dataset"] for row in found} == {"6x6"}
    for row in found:
        assert {
            "method",
            "selector",
            "tokens_per_step",
            "n",
            "solved",
            "solved_ci",
            "cells",
            "nfe",
            "per_second",
        } <= set(row)
    for name in ("accuracy.png", "order.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_demo_margin_beats_random_order(tmp_path):
    run("demo", "--data", tmp_path, "--out", tmp_path / "demo")
    solved = {row["oracle"]: row["solved"] for row in rows(tmp_path / "demo")}
    assert solved["margin"] >= 0.8
    assert solved["random"] <= 0.4


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not beside the checkout")
def test_public_puzzles_are_read_and_have_the_solutions_that_the_file_gives():
    from mdm_jax.data.sudoku_files import read_puzzles

    found = read_puzzles(SHARED / "sudoku_test_1k.csv")
    assert found.puzzles.shape == (1000, 81)
    assert sudoku.is_solved(found.solutions, found.puzzles).all()
    givens = (found.puzzles > 0).sum(axis=1)
    assert (givens.min(), givens.max()) == (31, 36)
    assert np.issubdtype(found.puzzles.dtype, np.integer)
