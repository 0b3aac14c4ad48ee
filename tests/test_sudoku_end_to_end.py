"""The Sudoku commands, run as a user runs them, on puzzles small enough for seconds."""

import collections
import dataclasses
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import commands
import jax
import numpy as np
import pytest
from commands import ENV, ROOT, page_of, rows, run_alone, without_orders, without_times
from saved import write_sudoku

import mdm_jax
from experiments import decoder_ablation as readings
from experiments import journal
from experiments.commands.prepare import load_splits
from experiments.commands.train import HELD_OUT
from experiments.common import say
from experiments.sudoku import Prepare
from mdm_jax import oracles
from mdm_jax.errors import Preempted
from mdm_jax.evaluation.puzzles import fill_in
from mdm_jax.models.weights import save_weights
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.rules import Rule, rate
from mdm_jax.tasks.sudoku.sets import generate_rated
from mdm_jax.tasks.sudoku.task import Sudoku
from mdm_jax.training.metrics import read_metrics

SHARED = ROOT.parent / "shared" / "data"
run, run_all = functools.partial(commands.run, "sudoku"), functools.partial(commands.run_all, "sudoku")


def held_out_of(task, num):
    """The first puzzles that a run of these fields in its config held out."""
    fields = {field.name: task[field.name] for field in dataclasses.fields(Sudoku)}
    return Sudoku(**fields).records("test", num)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on 4x4 puzzles."""
    folder = tmp_path_factory.mktemp("sudoku")
    flags = ["--size", 4, "--num-train", 2000, "--num-test", 64, "--data", folder / "data", "--model", "sudoku_800k"]
    flags += ["--dtype", "float32", "--steps", 60, "--batch-size", 32, "--warmup-steps", 10]
    flags += ["--checkpoint-every", 60, "--evaluate-every", 20, "--best-metric", "solved/margin", "--accumulate", 2]
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
    assert max(steps) == 60


@pytest.mark.slow
def test_train_keeps_the_checkpoint_that_did_best_on_held_out_puzzles(trained):
    folder, _ = trained
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = {line["step"]: line for line in lines if "solved/margin" in line}
    assert sorted(evaluations) == [20, 40, 60]
    assert evaluations[60]["held_out_loss_per_token"] < 0.9 * evaluations[20]["held_out_loss_per_token"]
    best = max(line["solved/margin"] for line in evaluations.values())
    run("evaluate", "--checkpoint", folder / "run" / "checkpoints" / "best", "--out", folder / "best")
    assert rows(folder / "best")[0]["solved"] == best


@pytest.mark.slow
def test_train_in_two_processes_evaluates_over_both_and_writes_its_results_once(tmp_path):
    flags = ["--size", 4, "--num-train", 500, "--num-test", 20, "--data", tmp_path / "data", "--model", "sudoku_800k"]
    flags += ["--dtype", "float32", "--steps", 4, "--batch-size", 16, "--evaluate-every", 2, "--out", tmp_path / "run"]
    flags += ["--best-metric", "held_out_loss_per_token", "--best-mode", "min", "--mesh.fsdp", 2, "--mesh.tensor", 2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        flags += ["--distributed.coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--distributed.num-processes", 2]
    environment = ENV | {"XLA_FLAGS": f"{ENV['XLA_FLAGS']} --xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-m", "experiments.sudoku", "train", *map(str, flags), "--distributed.process-id"]
    pair = [
        subprocess.Popen([*command, str(i)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=900) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], outputs[0][1][-2000:]
    assert [b"written to" in printed for printed, _ in outputs] == [True, False]
    assert {row["oracle"]: row["n"] for row in rows(tmp_path / "run")} == {"random": 20, "margin": 20}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "solved/margin" in line] == [2, 4]
    run("evaluate", "--checkpoint", tmp_path / "run" / "checkpoints" / "best", "--out", tmp_path / "one")
    trained = {row["oracle"]: row["cells"] for row in rows(tmp_path / "run")}
    assert rows(tmp_path / "one")[0]["cells"] == pytest.approx(trained["margin"], abs=0.02)


@pytest.mark.slow
def test_evaluate_reports_what_the_training_reported_and_every_selector_runs(trained):
    folder, _ = trained
    checkpoint = ["--checkpoint", folder / "run"]
    options = ["--viewer", folder / "pages" / "one.html", "--out", folder / "one"]
    printed = run("evaluate", *checkpoint, "--oracle", "margin,random", *options).stdout
    one = rows(folder / "one")
    trained_rows = {row["oracle"]: row for row in rows(folder / "run")}
    for row in one:
        assert row["solved"] == trained_rows[row["oracle"]]["solved"]
        assert row["cells"] == pytest.approx(trained_rows[row["oracle"]]["cells"])
    blanks = int((sudoku.generate(64, size=4, split="test")[0] == 0).sum(axis=1).max())
    assert one[0]["nfe"] == blanks
    assert str(folder / "pages" / "one.html") in printed
    assert "In which order" in printed
    page = page_of(folder / "pages" / "one.html")
    puzzle, solution = (part[0] for part in sudoku.generate(1, size=4, split="test"))
    for panel in page["panels"]:
        assert {i for i, _ in panel["given"]} == set(np.flatnonzero(puzzle).tolist())
        assert panel["solution"] == [str(digit) for digit in solution]
        assert sorted(event[1] for event in panel["events"]) == np.flatnonzero(puzzle == 0).tolist()
        assert sorted(event[0] for event in panel["events"]) == list(range(int((puzzle == 0).sum())))
        for _, cell, text, is_wrong, probability, _ in panel["events"]:
            assert bool(is_wrong) == (text != str(solution[cell]))
            assert 0.25 <= probability <= 1  # the likeliest of four digits
    by_oracle = {row["oracle"]: row for row in one}
    assert by_oracle["random"]["relative_jump"] == pytest.approx(1, abs=0.1)
    assert abs(by_oracle["random"]["tau_reading"]) < abs(by_oracle["random"]["left_to_rightness"]) < 0.5
    assert by_oracle["margin"]["tau_rules"] > by_oracle["random"]["tau_rules"] + 0.1
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
    done = run("solve", "--puzzles", file, "--checkpoint", folder / "run", "--out", folder / "file")
    assert rows(folder / "file")[0]["solved"] == rows(folder / "solve")[0]["solved"]
    assert f"{file}: read as one puzzle per line, 1 of 4x4, blanks .\n" in done.stderr
    grid = "\n".join(text.replace("0", "_")[i : i + 4] for i in range(0, 16, 4))
    (folder / "grid.sdk").write_text(f"{grid}\n\n{grid}\n")
    limited = ["--puzzles", folder / "grid.sdk", "--limit", 1]
    found = run_all(
        [
            ["solve", *limited, "--checkpoint", folder / "run", "--out", folder / "grid"],
            ["evaluate", *limited, "--checkpoint", folder / "run", "--out", folder / "grid"],
        ]
    )
    for status, said, _ in found:
        assert status == 0
        assert f"{folder / 'grid.sdk'}: read as grids, the first 1 of 4x4, blanks _" in said


def test_source_is_told_to_be_read_once_when_it_is_read(tmp_path, capsys):
    puzzles, _ = sudoku.generate(200, size=4, seed=1)
    (tmp_path / "some.txt").write_text("".join("".join(map(str, puzzle)) + "\n" for puzzle in puzzles))
    flags = Prepare(size=4, num_train=20, num_test=2, source=tmp_path / "some.txt", data=tmp_path / "data")
    told = f"{tmp_path / 'some.txt'}: read as one puzzle per line, 200 of 4x4, blanks 0\n"
    for times in (1, 0):
        load_splits(flags.task(), flags.data)
        assert capsys.readouterr().err.count(told) == times
    flags.task().records("test", 2, say=say)
    assert capsys.readouterr().err == told


def test_bad_input_is_one_line_and_code_two(trained, tmp_path):
    folder, flags = trained
    checkpoint = ["--checkpoint", folder / "run", "--out", tmp_path]
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("1234123412341234\n123\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    nine = "".join(map(str, sudoku.generate(1, size=9)[0][0]))
    six = ["--size", 6, "--num-train", 600, "--num-test", 8, "--data", tmp_path / "data", "--out", tmp_path / "new"]
    six += ["--model", "sudoku_800k", "--steps", 2, "--batch-size", 8]
    cases = [
        (["evaluate", *checkpoint, "--oracle", "best"], "unknown oracle 'best'"),
        (["evaluate", *checkpoint, "--num-steps", 0], "--num-steps must be a whole number, at least 1"),
        (["evaluate", *checkpoint, "--num-steps", 10**10], "at most 2147483647"),
        (["evaluate", *checkpoint, "--batch-size", 0], "--batch-size must be"),
        (["evaluate", *checkpoint, "--temperature", "inf"], "--temperature must be"),
        (["evaluate", *checkpoint, "--noise", -1], "--noise must be a number, at least 0"),
        (["evaluate", *checkpoint, "--seed", 10**20], "--seed must be a whole number"),
        (["evaluate", *checkpoint[:2], "--out", tmp_path / "short.txt"], "short.txt"),
        (["evaluate", *checkpoint, "--limit", 0], "--limit must be a whole number, at least 1"),
        (["evaluate", *checkpoint, "--temperature", -1], "--temperature must be a number, at least 0"),
        (["evaluate", *checkpoint, "--puzzles", tmp_path / "none.txt"], "none.txt"),
        (["evaluate", *checkpoint, "--puzzles", tmp_path / "empty.txt"], "empty.txt"),
        (["evaluate", *checkpoint, "--puzzles", tmp_path / "short.txt"], "short.txt:2"),
        (["evaluate", *checkpoint, "--puzzles", tmp_path / "pipe"], "pipe is a pipe: give a regular file"),
        (["train", *six, "--source", tmp_path / "pipe"], "pipe is a pipe: give a regular file"),
        (["evaluate", "--checkpoint", tmp_path / "broken", "--out", tmp_path], "broken"),
        (["evaluate", "--checkpoint", tmp_path / "absent", "--out", tmp_path], "no folder"),
        (["solve", *checkpoint], "give puzzles"),
        (["solve", *checkpoint, "12"], "puzzle 1"),
        (["solve", *checkpoint, "0" * 81], "puzzle 1"),
        (["solve", *checkpoint, "--oracle", "margin", "1" * 16], "puzzle 1"),
        (["solve", *checkpoint, nine], "solves 4x4, not 9x9"),
        (["solve", *checkpoint, nine, "--size", 6], "the puzzles are 9x9, not --size 6"),
        (["evaluate", *checkpoint, "--size", 9], "solves 4x4, not 9x9"),
        (["train", *flags, "--warmup-steps", 60], "the number of warm-up steps, 60, must be below that of all steps"),
        (["train", *flags, "--out", tmp_path / "new", "--evaluate-limit", 0], "--evaluate-limit"),
        (["train", *flags, "--out", tmp_path / "new", "--batch-size", 5000], "--batch-size 5000 is more than there"),
        (["train", *flags, "--out", tmp_path / "new", "--clues", 3], "clues"),
        (["prepare", "--size", 5, "--out", tmp_path], "5"),
        (["prepare", "--size", 4, "--data", tmp_path / "short.txt", "--out", tmp_path], "short.txt"),
        (["train", *flags, "--model", "gpt5"], "unknown preset 'gpt5'"),
        (["train", *flags, "--steps", 61], "num_steps 60 -> 61"),
        (["train", *flags, "--mesh.data", 3, "--out", tmp_path / "mesh"], "data=3"),
        (["evaluate", *checkpoint, "--keep", "dual"], "give --block-length too"),
        (["evaluate", *checkpoint, "--search-width", 2, "--temperature", 1], "no --temperature, no blocks"),
        (["evaluate", *checkpoint, "--corrector", "filled"], "give --tokens-per-step 2 or more"),
        (["evaluate", *checkpoint, "--corrector", "quality", "--tokens-per-step", 2], "has no quality head: train one"),
        (["evaluate", *checkpoint, "--corrector", "filled", "--remask-steps", 2], "--corrector goes without"),
        (["evaluate", *checkpoint, "--viewer", tmp_path / "page.txt"], "page.txt must end in .html"),
        (["solve", *checkpoint, "--viewer", tmp_path / "short.txt" / "page.html", nine], "short.txt"),
        (["evaluate", *checkpoint, "--difficulty", "easy"], "unknown difficulty 'easy'; choose from normal, hard"),
        (["evaluate", *checkpoint, "--difficulty", "normal,hard"], "hard 4x4 puzzles hardly exist"),
        (["evaluate", *checkpoint, "--difficulty", "normal", "--puzzles", tmp_path / "short.txt"], "leave one of them"),
        (["reproduce", "--scale", "smoke", "--methods", "mdm,gpt", "--out", tmp_path], "unknown method 'gpt'; choose"),
        (["train", *six, "--layout", "triples", "--loss", "reweighted"], "--loss reweighted is for masked models"),
        (["train", *six, "--layout", "ordered-triples"], "the rules do not solve every puzzle"),
        (["train", *six, "--source", tmp_path / "none.csv"], "none.csv cannot be read"),
        (["export", "--checkpoint", folder / "run", "--out", folder / "run"], "holds a run with another config"),
    ]
    commands.assert_refused("sudoku", cases)
    assert not (tmp_path / "new" / "config.json").exists(), "what did not start leaves no config behind"


@pytest.mark.slow
def test_train_from_given_weights_starts_there_and_goes_on_without_them(trained, tmp_path):
    folder, flags = trained
    weights = tmp_path / "weights"
    again = [
        *flags,
        "--steps",
        2,
        "--warmup-steps",
        1,
        "--init-from",
        weights,
        "--optimizer",
        "muon",
        "--out",
        tmp_path / "run",
    ]
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)  # as a start that died before its first checkpoint left it
    assert run_all([["export", "--checkpoint", folder / "run", "--out", weights], ["train", *again]])[1][0] == 0
    before, after = (
        [line[HELD_OUT] for line in read_metrics(path / "run") if HELD_OUT in line] for path in (folder, tmp_path)
    )
    assert len(after) == 1
    assert after[0] < 2 * before[-1] < 0.7, "two steps away; fresh parameters give log 4, 1.39"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["optimizer"]["optimizer"] == "muon"
    shutil.rmtree(weights)
    (status, said, _), (other, refused, _) = run_all([["train", *again], ["train", *again, "--out", tmp_path / "new"]])
    assert status == 0, said
    assert other == 2
    assert f"there is no folder {weights}" in refused[-1]


@pytest.mark.slow
def test_evaluate_in_one_block_with_kept_keys_and_values_is_exact(trained, tmp_path):
    flags = ["evaluate", "--checkpoint", trained[0] / "run", "--limit", 20]
    blocks = [*flags, "--block-length", 16, "--keep", "dual", "--out", tmp_path / "kept"]
    done = run_all([[*flags, "--out", tmp_path / "plain"], blocks])
    assert [status for status, _, _ in done] == [0, 0]
    (plain,), (kept,) = (without_times(rows(tmp_path / name)) for name in ("plain", "kept"))
    assert kept == plain | {"block_length": 16, "keep": "dual"}


@pytest.mark.slow
def test_evaluate_takes_tokens_back_as_the_decoder_of_that_kind_does(trained, tmp_path):
    flags = ["evaluate", "--checkpoint", trained[0] / "run", "--limit", 20, "--remask-steps", 5]
    done = run_all(
        [
            [*flags, "--viewer", tmp_path / "back.html", "--out", tmp_path / "back"],
            [*flags, "--block-length", 4],
            [*flags, "--keep", "dual"],
            [*flags, "--num-steps", 3],
        ]
    )
    assert [status for status, _, _ in done] == [0, 2, 2, 2]
    for (_, said, _), words in zip(done[1:], ("--block-length", "--keep", "exclude each other"), strict=True):
        assert words in said[-1]
    (row,) = rows(tmp_path / "back")
    assert (row["remask_steps"], row["nfe"], row["selector"]) == (5, 5, "TopK(num_steps=5, schedule=Linear())")
    model, task = mdm_jax.load(trained[0] / "run"), json.loads((trained[0] / "run" / "config.json").read_text())["task"]
    puzzles = held_out_of(task, 20)
    decode = functools.partial(
        mdm_jax.remasking_sample, model.denoiser, model.params, mask_id=0, num_steps=5, temperature=0.0, noise=0.0
    )
    filled = fill_in(decode, puzzles["puzzle"].astype(np.int32), padding=np.ones(16, np.int32)).tokens
    assert row["solved"] == sudoku.is_solved(filled, puzzles["puzzle"]).mean()
    (panel,) = page_of(tmp_path / "back.html")["panels"]
    end = dict(panel["given"]) | {i: text for _, i, text, *_ in panel["events"]}
    assert [end[i] for i in range(16)] == [str(digit) for digit in filled[0]]


@pytest.mark.slow
def test_readings_measure_every_reading_and_the_strict_ones_are_the_plain_sampler(trained, tmp_path):
    run_flags = ["--checkpoint", trained[0] / "run", "--num-steps", 2, "--limit", 4]
    done = run_all(
        [
            ["readings", *run_flags, "--noise", 0.3, "--out", tmp_path / "readings"],
            ["evaluate", *run_flags, "--oracle", "random,top_prob,margin", "--out", tmp_path / "plain"],
        ]
    )
    assert [status for status, _, _ in done] == [0, 0]
    found = {
        tuple(row[name] for name in ("decoder", "values", "noise", "oracle", "score")): row
        for row in rows(tmp_path / "readings")
    }
    scores = {"top_prob": ("probability", "log"), "margin": ("probability", "log", "log(p1-p2)")}
    expected = {
        (decoder, values, noise, oracle, score)
        for decoder in ("strict", "remasking")
        for values in ("likeliest", "drawn")
        for noise in ("none", "annealed", "constant")
        for oracle in scores
        for score in scores[oracle]
        if (noise, oracle, score) not in (("none", "top_prob", "log"), ("none", "margin", "log(p1-p2)"))
    }
    expected |= {
        (decoder, values, "none", "random", "-")
        for decoder in ("strict", "remasking")
        for values in ("likeliest", "drawn")
    }
    expected |= {("vanilla", values, "none", "random", "-") for values in ("likeliest", "drawn")}
    assert set(found) == expected
    assert len(rows(tmp_path / "readings")) == len(expected)
    for row in found.values():
        assert (row["n"], row["num_steps"], row["noise_scale"], row["dataset"]) == (4, 2, 0.3, "4x4")
        assert "paper" not in row, "its figures are of 9x9 puzzles"
    assert {row["nfe"] for reading, row in found.items() if reading[0] != "vanilla"} == {2}
    assert found["vanilla", "likeliest", "none", "random", "-"]["nfe"] <= 2
    model, task = mdm_jax.load(trained[0] / "run"), json.loads((trained[0] / "run" / "config.json").read_text())["task"]
    puzzles = held_out_of(task, 4)
    is_blank, x_init = puzzles["puzzle"] == 0, puzzles["puzzle"].astype(np.int32)
    for reading, oracle in {
        ("strict", "likeliest", "annealed", "margin", "log"): oracles.log_margin,
        ("remasking", "likeliest", "constant", "margin", "probability"): oracles.margin,
        ("remasking", "likeliest", "annealed", "top_prob", "log"): oracles.top_log_prob,
    }.items():
        decode = functools.partial(
            mdm_jax.remasking_sample,
            model.denoiser,
            model.params,
            mask_id=0,
            num_steps=2,
            oracle=oracle,
            noise=0.3,
            anneal="annealed" in reading,
            remask="remasking" in reading,
            temperature=0.0,
        )
        filled = fill_in(decode, x_init, padding=np.ones_like(x_init[0])).tokens
        assert found[reading]["cells"] == pytest.approx((filled == puzzles["solution"])[is_blank].mean(), abs=1e-4)
    for row in rows(tmp_path / "plain"):
        score = "-" if row["oracle"] == "random" else "probability"
        reading = found["strict", "likeliest", "none", row["oracle"], score]
        assert (reading["solved"], reading["cells"]) == (row["solved"], row["cells"])
    lines = done[0][2].strip().splitlines()[-34:]
    for line in lines[:-2]:
        *reading, random, top_prob, margin = line.split()
        decoder, values, noise, score = reading
        alike = "log" if noise != "none" and score != "probability" else "probability"
        shares = [
            found[decoder, values, "none", "random", "-"],
            found[decoder, values, noise, "top_prob", alike],
            found[decoder, values, noise, "margin", score],
        ]
        assert [float(random), float(top_prob), float(margin)] == [share["solved"] for share in shares]
    assert len({tuple(line.split()[:4]) for line in lines[:-2]}) == 32
    vanilla = found["vanilla", "drawn", "none", "random", "-"]["solved"]
    assert lines[-1].split()[:4] == ["vanilla", "drawn", "none", "-"]
    assert float(lines[-1].split()[4]) == vanilla


def test_readings_stand_beside_the_paper_the_nearest_first():
    paper = {"random": 0.07, "top_prob": 0.2, "margin": 0.9}
    solved = {"annealed": (0.3, 0.8), "constant": (0.1, 0.6)}
    found = [
        ("random", ("vanilla", "likeliest", "none", "-"), 0.06),
        ("random", ("strict", "drawn", "none", "-"), 0.05),
        ("margin", ("strict", "drawn", "constant", "log(p1-p2)"), 0.5),
    ]
    for noise, shares in solved.items():
        for order, share in zip(("top_prob", "margin"), shares, strict=True):
            found.append((order, ("strict", "drawn", noise, "log"), share))
    lines = readings.side_by_side(
        [
            {
                **dict(zip(readings.CHOICES, reading, strict=True)),
                "oracle": order,
                "solved": share,
                "paper": paper[order],
            }
            for order, reading, share in reversed(found)
        ]
    )
    assert lines[0] == dict.fromkeys(readings.CHOICES, "paper") | paper
    assert [line["noise"] for line in lines[1:]] == ["annealed", "constant", "constant", "none"]
    assert [line.get("distance") for line in lines[1:]] == [*(pytest.approx(x) for x in (0.1, 0.3, 0.4)), None]
    assert [lines[3][name] for name in ("score", "top_prob", "margin")] == ["log(p1-p2)", 0.1, 0.5]
    assert (lines[1]["random"], lines[1]["top_prob"], lines[1]["margin"]) == (0.05, 0.3, 0.8)
    assert lines[-1]["random"] == 0.06


@pytest.mark.slow
def test_exported_weights_answer_as_the_checkpoint_and_sets_are_asked_for_by_name(trained, tmp_path):
    run_folder = trained[0] / "run"
    whole = run_alone(
        "sudoku", "export", "--checkpoint", run_folder, "--dtype", "float32", "--out", tmp_path / "weights"
    )
    done = run_all(
        [
            ["export", "--checkpoint", run_folder, "--out", tmp_path / "small"],
            ["evaluate", "--checkpoint", tmp_path / "weights", "--difficulty", "normal", "--out", tmp_path / "normal"],
            ["evaluate", "--checkpoint", tmp_path / "small", "--limit", 8, "--out", tmp_path / "low"],
        ]
    )
    assert [status for status, _, _ in done] == [0, 0, 0]
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("weights", "small")]
    assert sizes[0] / 2 < sizes[1] < 0.51 * sizes[0], "two bytes a parameter, not four"
    assert [f"{size:,} bytes" in text for size, text in zip(sizes, (whole.stdout, done[0][2]), strict=True)] == [
        True,
        True,
    ]
    trained_rows = {row["oracle"]: row for row in rows(run_folder)}
    (row,) = rows(tmp_path / "normal")
    assert row["dataset"] == "4x4-normal"  # as all of that size are
    assert [row[name] for name in ("n", "solved", "cells")] == [
        trained_rows["margin"][name] for name in ("n", "solved", "cells")
    ]
    (row,) = rows(tmp_path / "low")
    assert (row["n"], row["dataset"]) == (8, "4x4")


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("difficulty", [None, "normal", "hard"])
def test_held_out_puzzles_are_the_first_of_the_test_side_and_the_set(tmp_path, difficulty, from_file):
    puzzles, solutions = sudoku.generate(600, size=6, seed=3, split="test")
    if from_file:  # not the order in which they are generated
        puzzles, solutions = puzzles[::-1], solutions[::-1]
    is_solved = rate(puzzles).is_solved
    chosen = np.flatnonzero({None: is_solved | True, "normal": is_solved, "hard": ~is_solved}[difficulty])[:9]
    (tmp_path / "some.txt").write_text("".join("".join(map(str, puzzle)) + "\n" for puzzle in puzzles))
    source = str(tmp_path / "some.txt") if from_file else None
    task = Sudoku(size=6, seed=3, num_train=1, num_test=9, source=source, difficulty=difficulty)
    assert task.title == "-".join(filter(None, ("some.txt" if from_file else "6x6", difficulty)))
    found = task.records("test", 9)
    np.testing.assert_array_equal(found["puzzle"], puzzles[chosen])
    np.testing.assert_array_equal(found["solution"], solutions[chosen])


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """All of `reproduce`, at the smallest scale."""
    folder = tmp_path_factory.mktemp("reproduce")
    flags = ["reproduce", "--scale", "smoke", "--data", folder / "data"]
    done = run(*flags, "--out", folder / "all")
    return folder, flags, done.stdout


ORDERS = ["random", "top_prob", "margin", "neg_entropy"]


def held_out(difficulty):
    """The puzzles that are asked at the smallest scale."""
    parts = list(generate_rated(8, size=6, difficulty=difficulty, split="test"))
    return {name: np.concatenate([part[name] for part in parts]) for name in ("puzzle", "rule")}


@pytest.mark.slow
def test_reproduce_has_a_row_for_every_method_set_order_and_number_of_tokens_per_step(reproduced):
    folder, _, printed = reproduced
    record = json.loads((folder / "all" / "results.json").read_text())
    assert (record["experiment"], record["command"], record["scale"]) == ("sudoku", "reproduce", "smoke")
    curve = [row for row in record["rows"] if "examples" in row]
    assert {(row["method"], row["oracle"]) for row in curve} == {
        ("mdm", "random"),
        ("mdm", "margin"),
        ("arm", "greedy"),
        ("arm_ordered", "greedy"),
    }
    assert max(row["examples"] for row in curve) == 4 * 16
    units = [json.loads(line) for line in (folder / "all" / "units.jsonl").read_text().splitlines()[1:]]
    assert record["seconds"] == pytest.approx(sum(unit["seconds"] for unit in units), abs=0.1)
    plain = [row for row in record["rows"] if "hardest_rule" not in row and "examples" not in row]
    found = [tuple(row.get(name) for name in ("method", "dataset", "oracle", "tokens_per_step")) for row in plain]
    expected = [("mdm", "6x6-normal", oracle, k) for oracle in ORDERS for k in (1, 36)]
    expected += [("mdm", "6x6-hard", oracle, 1) for oracle in ORDERS]
    expected += [
        (method, f"6x6-{difficulty}", None, None)
        for method in ("arm", "arm_ordered")
        for difficulty in ("normal", "hard")
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert {row["n"] for row in plain} == {8}
    sets = {f"6x6-{difficulty}": held_out(difficulty) for difficulty in ("normal", "hard")}
    for row in plain:
        if row["method"] == "mdm":
            blanks = (sets[row["dataset"]]["puzzle"] == 0).sum(axis=1).max()
            assert row["nfe"] == (blanks if row["tokens_per_step"] == 1 else 1)
    hardest = collections.Counter(Rule(rule).name.lower() for rule in sets["6x6-normal"]["rule"].max(axis=1))
    for oracle in ORDERS:
        by_rule = [row for row in record["rows"] if "hardest_rule" in row and row["oracle"] == oracle]
        assert {row["hardest_rule"]: row["n"] for row in by_rule} == hardest
        (whole,) = (
            row
            for row in plain
            if (row.get("oracle"), row["dataset"], row.get("tokens_per_step")) == (oracle, "6x6-normal", 1)
        )
        assert sum(row["solved"] * row["n"] for row in by_rule) == pytest.approx(8 * whole["solved"])
    for name in ("tokens-per-step.png", "hardest-rule.png", "examples.png"):
        assert (folder / "all" / name).read_bytes().startswith(b"\x89PNG")
        assert name in printed
    for title in ("Table 2, normal puzzles", "Table 5, hard puzzles"):
        head = printed.split(title)[1].splitlines()[1]
        assert head.split() == ["method", "order", "paper", "ours", "95%", "interval", "NFE", "puzzles/s"]


@pytest.mark.slow
def test_reproduce_takes_no_figures_of_other_weights_under_the_same_name(reproduced, tmp_path):
    folder, _, _ = reproduced
    weights, out = tmp_path / "weights", tmp_path / "out"
    argv = ["reproduce", "--scale", "smoke", "--methods", "mdm", "--checkpoint", weights, "--limit", 1, "--out", out]
    done = run_all([["export", "--checkpoint", folder / "all" / "mdm", "--out", weights], argv, argv])
    assert [status for status, _, _ in done] == [0, 0, 0]
    save_weights(weights, jax.tree.map(lambda leaf: leaf * 2, mdm_jax.load(weights).params))
    ((status, said, _),) = run_all([argv])
    assert status == 2
    assert "is of a run with other weights: give the same flags" in said[-1]


@pytest.mark.slow
def test_reproduce_goes_on_where_it_was_and_takes_in_nothing_else(reproduced, tmp_path):
    folder, flags, _ = reproduced
    units, before = folder / "all" / "units.jsonl", rows(folder / "all")
    text, metrics = units.read_text(), (folder / "all" / "mdm" / "metrics.jsonl").read_text()
    shutil.copytree(folder / "all", tmp_path / "killed")
    kept, both = text.splitlines(keepends=True), ["--difficulty", "normal,hard"]
    (tmp_path / "killed" / "units.jsonl").write_text("".join(kept[:10]) + kept[10][:30])
    again, killed, other_seed, other_limit, no_time, weights, readings, arm, mdm = run_all(
        [
            [*flags, "--out", folder / "all"],
            [*flags, "--methods", "mdm", "--out", tmp_path / "killed"],
            [*flags, "--out", folder / "all", "--seed", 1],
            [*flags, "--out", folder / "all", "--limit", 3],
            [*flags, "--out", tmp_path / "fresh", "--minutes", 0],
            [*flags, "--out", tmp_path / "weights", "--checkpoint", folder / "all" / "arm"],
            ["readings", "--checkpoint", folder / "all" / "arm", "--out", tmp_path / "readings"],
            ["evaluate", "--checkpoint", folder / "all" / "arm_ordered", "--out", tmp_path / "arm"],
            ["evaluate", "--checkpoint", folder / "all" / "mdm", *both, "--out", tmp_path / "mdm"],
        ]
    )
    assert again[0] == killed[0] == arm[0] == mdm[0] == 0
    assert units.read_text() == text, "nothing was measured again"
    assert (folder / "all" / "mdm" / "metrics.jsonl").read_text() == metrics, "nor trained"
    assert rows(folder / "all") == before
    assert without_times(rows(tmp_path / "killed")) == without_times(row for row in before if row["method"] == "mdm")
    assert (tmp_path / "killed" / "units.jsonl").read_text().startswith("".join(kept[:10]))
    for (status, said, _), words in (
        (other_seed, "is of a run with other seed:"),
        (other_limit, "is of a run with other limit:"),
        (weights, "is autoregressive"),
        (readings, "is autoregressive"),
    ):
        assert (status, len(said)) == (2, 1), said
        assert words in said[0]
    assert no_time[0] == 0
    assert len(no_time[1]) == 1
    assert no_time[1][0].endswith("the same command goes on")
    assert not (tmp_path / "fresh" / "results.json").exists()
    by_name = {
        (row["method"], row["dataset"], row.get("oracle"), row.get("tokens_per_step")): row
        for row in before
        if "hardest_rule" not in row and "examples" not in row
    }
    (row,) = rows(tmp_path / "arm")
    expected = by_name["arm_ordered", "6x6-normal", None, None]
    assert without_orders(without_times([row])) == without_times([expected])
    for row in rows(tmp_path / "mdm"):
        assert without_orders(without_times([row])) == without_times([by_name["mdm", row["dataset"], "margin", 1]])
    assert [row["dataset"] for row in rows(tmp_path / "mdm")] == ["6x6-normal", "6x6-hard"]


@pytest.mark.slow
def test_reproduce_with_weights_of_another_layout_asks_them_in_theirs(reproduced, tmp_path):
    folder, flags, _ = reproduced
    train = ["train", "--size", 6, "--difficulty", "normal", "--num-train", 500, "--num-test", 8]
    train += ["--layout", "shifted", "--loss", "reweighted", "--augment", "--model", "sudoku_800k"]
    train += ["--dtype", "float32", "--steps", 3, "--batch-size", 16, "--data", folder / "data"]
    train += ["--out", tmp_path / "run"]
    shifted = ["--methods", "mdm", "--checkpoint", tmp_path / "run", "--limit", 3, "--out", tmp_path / "out"]
    done = run_all([train, [*flags, *shifted]])
    assert [status for status, _, _ in done] == [0, 0]
    plain = [row for row in rows(tmp_path / "out") if "hardest_rule" not in row]
    assert {row["n"] for row in plain} == {3}
    assert {(row["tokens_per_step"], row["nfe"]) for row in plain} == {(1, 37), (36, 2)}  # 36 cells and the end
    assert not (tmp_path / "out" / "mdm").exists(), "nothing was trained"


def test_reproduce_stops_in_time_whatever_it_is_doing_and_keeps_nothing_of_it(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    first = journal.Journal(tmp_path, {}, minutes=0.01)
    assert first.rows("quick", lambda: [{"n": 1}]) == [{"n": 1}]
    begin = time.monotonic()
    with pytest.raises(Preempted, match="the same command goes on"):
        first.rows("slow", lambda: time.sleep(60) or [])
    assert time.monotonic() - begin < 30
    assert signal.getsignal(signal.SIGTERM) == before
    again = journal.Journal(tmp_path, {}, minutes=None)
    assert again.rows("quick", lambda: []) == [{"n": 1}]
    assert again.rows("slow", lambda: [{"n": 2}]) == [{"n": 2}]


@pytest.mark.slow
def test_demo_ends_with_a_row_per_set_and_order_and_a_picture_of_each_set(tmp_path):
    out = tmp_path / "demo"
    write_sudoku(tmp_path / "sudoku-6m", size=9)  # found before the shipped weights of that name, and quicker
    flags = ["--steps", 2, "--batch-size", 16, "--num-train", 500, "--limit", 8, "--limit-9x9", 2]
    printed = run("demo", *flags, "--data", tmp_path, "--out", out, folder=tmp_path).stdout
    found = rows(out)
    expected = [("6x6", oracle, 8) for oracle in ORDERS]
    expected += [(name, oracle, 2) for name in ("normal", "hard") for oracle in ("random", "margin")]
    assert [(row["dataset"], row["oracle"], row["n"]) for row in found] == expected
    wanted = {"method", "selector", "tokens_per_step", "solved", "solved_ci", "cells", "nfe", "per_second"}
    for row in found:
        assert wanted <= set(row)
    for name in ("accuracy.png", "order.png", "order-normal.png", "order-hard.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    for difficulty in ("normal", "hard"):
        assert str(out / f"viewer-{difficulty}.html") in printed
        page = page_of(out / f"viewer-{difficulty}.html")
        assert [(panel["name"], len(panel["given"]) + panel["targets"]) for panel in page["panels"]] == [
            ("random", 81),
            ("margin", 81),
        ]


@pytest.mark.slow
def test_demo_margin_beats_random_order(tmp_path):
    run_alone("sudoku", "demo", "--data", tmp_path, "--out", tmp_path / "demo")
    solved = {row["oracle"]: row["solved"] for row in rows(tmp_path / "demo") if row["dataset"] == "6x6"}
    assert solved["margin"] >= 0.8
    assert solved["random"] <= 0.4


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="others' puzzles, which are not ours to commit; tests of the format write their own"
)
def test_public_puzzles_are_read_and_have_the_solutions_that_the_file_gives():
    from mdm_jax.tasks.sudoku.files import read_puzzles

    path = SHARED / "sudoku_test_1k.csv"
    found = read_puzzles(path)
    stated = [line.split(",") for line in path.read_text().split()[1:]]
    for grids, column in ((found.puzzles, 0), (found.solutions, 1)):
        assert ["".join(map(str, grid)) for grid in grids] == [line[column] for line in stated]
    assert found.puzzles.shape == (1000, 81)
    givens = (found.puzzles > 0).sum(axis=1)
    assert (givens.min(), givens.max()) == (31, 36)
