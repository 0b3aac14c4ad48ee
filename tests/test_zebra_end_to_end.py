"""The Zebra commands, run as a user runs them, on puzzles small enough for seconds."""

import dataclasses
import functools
import json
import re

import commands
import numpy as np
import pytest
from commands import page_of, rows, without_orders, without_times

from experiments import zebra_given
from experiments.commands.evaluate import evaluate
from experiments.commands.reproduce import reproduce
from experiments.zebra import Evaluate, Reproduce
from experiments.zebra_table import SCALES
from mdm_jax.tasks.zebra import formats as zebra_formats
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import riddles as zebra_riddles
from mdm_jax.tasks.zebra import text as zebra_text
from mdm_jax.tasks.zebra.clues import Size, sizes_of
from mdm_jax.tasks.zebra.english import describe_clues
from mdm_jax.tasks.zebra.task import Zebra

ORDERS = ["random", "top_prob", "margin", "neg_entropy"]
TASK = {"min_houses": 3, "max_houses": 3, "min_attributes": 3, "max_attributes": 4}
TASK |= {"difficulty": None, "num_train": 200, "num_test": 8, "seed": 0}
run, run_all = functools.partial(commands.run, "zebra"), functools.partial(commands.run_all, "zebra")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The masked model's part of `reproduce` at the smallest scale, the flags of its training, and a puzzle's file."""
    folder = tmp_path_factory.mktemp("zebra")
    table = ["reproduce", "--scale", "smoke", "--methods", "mdm", "--data", folder / "data"]
    printed = run(*table, "--out", folder / "all").stdout
    flags = ["--max-houses", 3, "--max-attributes", 4, "--num-train", 200, "--num-test", 8, "--data", folder / "data"]
    flags += ["--model", "sudoku_800k", "--dtype", "float32", "--loss", "skewed", "--optimizer", "muon"]
    flags += ["--steps", 3, "--batch-size", 16, "--warmup-steps", 0, "--evaluate-limit", 8]
    clues, _ = zebra.generate(1, smallest=Size(3, 4), largest=Size(3, 4), seed=5)
    text = zebra_text.write_puzzle(clues[0])
    (folder / "one.txt").write_text(text)
    (folder / "two.txt").write_text(2 * (text.replace("\n", " ") + "\n"))
    return folder, flags, printed


@pytest.mark.slow
def test_train_says_what_it_was_trained_on_and_started_again_trains_no_step_more(trained):
    folder, flags, _ = trained
    before = (folder / "all" / "mdm" / "metrics.jsonl").read_text()
    run("train", *flags, "--out", folder / "all" / "mdm")
    assert (folder / "all" / "mdm" / "metrics.jsonl").read_text() == before
    config = json.loads((folder / "all" / "mdm" / "config.json").read_text())
    assert config["task"] == {"name": "zebra", **TASK, "layout": "in-place", "loss": "skewed", "init_from": None}
    network = {name: config["model"][name] for name in ("vocab_size", "max_length", "pad_id", "causal")}
    assert network == {"vocab_size": 21, "max_length": 12 * 13 + 12, "pad_id": 20, "causal": False}
    found = rows(folder / "all" / "mdm")
    plain = [row for row in rows(folder / "all") if row.get("oracle") in ("random", "margin") and "nfe" in row]
    assert without_times(found) == without_times(plain)
    assert {(row["dataset"], row["n"], row["nfe"]) for row in found} == {("3x3-to-3x4", 8, 12)}


@pytest.mark.slow
def test_test_set_is_what_the_run_held_out(trained):
    from mdm_jax.data import builders

    (stored,) = (trained[0] / "data").glob("zebra/*/*/dataset_info.json")
    held_out, found = builders.read_split(stored.parent, "test"), Zebra(**TASK).records("test", 8)
    assert set(found) == set(held_out)
    for name, values in found.items():
        np.testing.assert_array_equal(values, held_out[name])


@pytest.mark.slow
def test_evaluate_reports_what_the_table_says_and_by_size(trained, tmp_path):
    folder, _, _ = trained
    masked = ["evaluate", "--checkpoint", folder / "all" / "mdm"]
    done = run_all(
        [
            [*masked, "--oracle", "random,margin", "--viewer", tmp_path / "page.html", "--out", tmp_path / "whole"],
            [*masked, "--num-steps", 2, "--limit", 5, "--out", tmp_path / "steps"],
            [*masked, "--puzzles", folder / "one.txt", folder / "two.txt", "--out", tmp_path / "one"],
            [*masked, "--limit", 5, "--temperature", 0.5, "--noise", 0.1, "--out", tmp_path / "drawn"],
        ]
    )
    assert [status for status, _, _ in done] == [0, 0, 0, 0]
    table = [row for row in rows(folder / "all") if "examples" not in row]
    expected = [row for row in table if row["oracle"] in ("random", "margin")]
    assert without_orders(without_times(rows(tmp_path / "whole"))) == without_times(expected)
    assert all("tau_rules" in row for row in rows(tmp_path / "whole") if "size" not in row)
    assert not any("paper" in row for row in expected), "its figures are of larger puzzles"
    for panel in page_of(tmp_path / "page.html")["panels"]:
        filled = {position for _, position, text, *_ in panel["events"] if text is not None}
        assert len(filled) + len(panel["missing"]) == panel["targets"]
    assert [(row["n"], row["nfe"]) for row in rows(tmp_path / "steps") if "size" not in row] == [(5, 2)]
    assert {(row["temperature"], row["noise"]) for row in rows(tmp_path / "drawn") if "nfe" in row} == {(0.5, 0.1)}
    one, two = rows(tmp_path / "one")
    assert (one["dataset"], one["n"], one["nfe"]) == (str(folder / "one.txt"), 1, 12)
    assert (two["dataset"], two["n"], two["cells"]) == (str(folder / "two.txt"), 2, one["cells"])
    assert f"{folder / 'one.txt'}: read as a clue per line, 1 of 3x4 (houses x attributes), " in "\n".join(done[2][1])
    assert f"{folder / 'two.txt'}: read as a puzzle per line, 2 of 3x4 (houses x attributes), " in "\n".join(done[2][1])


def test_paper_figure_is_beside_the_same_puzzles_in_the_same_decoding_only():
    plain = Evaluate(checkpoint="runs")
    assert plain.paper("3x3-to-6x6", "mdm", "margin") == 0.983
    assert plain.paper("3x3-to-6x6", "arm_ordered", None) == 0.9117
    assert Evaluate(checkpoint="runs", tokens_per_step=1).paper("3x3-to-6x6", "mdm", "margin") == 0.983
    assert plain.paper("3x3-to-5x5", "mdm", "margin") is None
    for other in (
        {"tokens_per_step": 2},
        {"temperature": 1.0},
        {"noise": 0.5},
        {"block_length": 6},
        {"proposals": (2,)},
    ):
        assert Evaluate(checkpoint="runs", **other).paper("3x3-to-6x6", "mdm", "margin") is None


@pytest.mark.slow
def test_solve_prints_clues_grid_and_the_step_of_each_cell(trained, tmp_path):
    folder, _, _ = trained
    (tmp_path / "two.txt").write_text((folder / "one.txt").read_text())
    flags = [
        "--puzzles",
        folder / "one.txt",
        tmp_path / "two.txt",
        "--limit",
        1,
        "--checkpoint",
        folder / "all" / "mdm",
        "--oracle",
        "margin,random",
    ]
    printed = run("solve", *flags, "--viewer", tmp_path / "page.html", "--out", tmp_path).stdout
    clues = zebra_formats.read_puzzles(folder / "one.txt").puzzles[0].clues
    assert [line[2:] for line in printed.splitlines() if line.startswith("  ")][: len(clues)] == describe_clues(clues)
    assert [row["oracle"] for row in rows(tmp_path)] == ["margin", "random"]
    for row, text in zip(rows(tmp_path), printed.split("\norder ")[1:], strict=True):
        head, _, _, *lines = text.splitlines()[:6]
        assert head.startswith(f"{row['oracle']}: ")
        words = [cell.split() for line in lines for cell in re.split(r"\s{2,}", line.strip())[1:]]
        steps = [int(word[1]) for word in words if word != ["-", "?"]]
        assert len(words) == 12
        assert len(set(steps)) == len(steps) >= 1
        assert set(steps) <= set(range(1, 13))
        wrong = sum(word[-1] == "?" for word in words)
        assert row["cells"] == pytest.approx(1 - wrong / 12)
        assert head.split(": ")[1].startswith(f"{wrong} cells wrong" if wrong else "right")
    page = page_of(tmp_path / "page.html")
    assert [(panel["name"], panel["targets"]) for panel in page["panels"]] == [("margin", 12), ("random", 12)]
    assert (len(page["board"]["rows"]), page["board"]["columns"][:2]) == (3, ["nationality", "colour"])
    for row, panel in zip(rows(tmp_path), page["panels"], strict=True):
        assert row["cells"] == pytest.approx(1 - panel["wrong"] / 12)


@pytest.mark.slow
def test_solve_without_a_model_gives_the_german_the_fish(tmp_path):
    command = ["--riddle", "fish", "--viewer", tmp_path / "fish.html", "--out", tmp_path]
    printed = commands.run_alone("zebra", "solve", *command).stdout
    for line in ("The Norwegian lives in the first house.", "Who keeps the fish?", "fills in 100% of the cells"):
        assert line in printed
    (german,) = (line.split() for line in printed.splitlines() if line.split()[:2] == ["4", "German"])
    assert german[-2:] == ["fish", "25"]
    (row,) = rows(tmp_path)
    assert (row["method"], row["dataset"], row["solved"], row["cells"]) == ("deduction", "fish", 1, 1)
    (panel,) = page_of(tmp_path / "fish.html")["panels"]
    assert (panel["targets"], panel["wrong"], panel["events"][-1][0]) == (25, 0, 24)
    assert [event[0] for event in panel["events"] if event[2] == "fish"] == [24]  # the 25th, as printed


@pytest.mark.slow
def test_solve_of_a_riddle_in_words_answers_in_its_words(tmp_path):
    lines = ["colour: red, green, blue", "pet: dog, cat, fish", "drink: tea, milk, gin", "question: Who has the dog?"]
    lines += ["red directly left of tea", "fish = green", "green right of milk", "tea left of gin", "cat = house 2"]
    (tmp_path / "riddle.txt").write_text("\n".join(lines))
    done = run("solve", "--puzzles", tmp_path / "riddle.txt", "--out", tmp_path)
    assert f"{tmp_path / 'riddle.txt'}: read as a riddle, 1 of 3x3 (houses x attributes), 5 clues\n" in done.stderr
    assert "  The one whose pet is cat lives in the second house.\n  Who has the dog?\n" in done.stdout
    (first,) = (line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["1"])
    assert first[1::2] == ["red", "dog", "milk"]


def test_riddle_is_an_input_of_evaluate():
    records = Evaluate(riddle="fish", checkpoint="runs").given()["fish"]
    assert [int(number[0]) for number in sizes_of(records["clues"])] == [5, 5]
    np.testing.assert_array_equal(records["clues"][0], zebra_riddles.FISH.clues)
    assert zebra.is_solved(records["solution"], records["clues"]).all()
    for size, names in ((Size(5, 5), ["fish"]), (Size(6, 6), ["fish"]), (Size(4, 6), []), (Size(6, 4), [])):
        assert list(zebra_given.riddles(size)) == names, "reproduce meets those that fit"


@pytest.mark.slow
def test_reproduce_and_evaluate_meet_the_riddle_where_it_fits(tmp_path, monkeypatch, capsys):
    few = {"num_train": 8, "num_test": 8, "mdm": dataclasses.replace(SCALES["smoke"].mdm, steps=1, batch_size=8)}
    sizes = {"smallest": Size(5, 5), "largest": Size(5, 5)}
    monkeypatch.setitem(SCALES, "smoke", dataclasses.replace(SCALES["smoke"], **sizes, **few))
    reproduce(Reproduce(scale="smoke", methods="mdm", data=tmp_path / "data", out=tmp_path / "all"))
    printed, alone = capsys.readouterr().out, [row for row in rows(tmp_path / "all") if row["dataset"] == "fish"]
    assert [(row["oracle"], row["n"], row["nfe"]) for row in alone] == [(order, 1, 25) for order in ORDERS]
    for row in alone:
        verdict = "solved" if row["solved"] else f"{row['cells']:.0%} of the cells right"
        assert f"fish, mdm, {row['oracle']}: {verdict}\n" in printed
    table = [line.split()[1] for line in printed.splitlines() if line.startswith("mdm ") and "[" in line]
    assert table[-4:] == ORDERS, "the riddle has no line in Table 3"
    evaluate(Evaluate(checkpoint=tmp_path / "all" / "mdm", riddle="fish", out=tmp_path / "one"))
    (row,) = rows(tmp_path / "one")
    assert row["cells"] == alone[2]["cells"]
    assert (row["dataset"], row["oracle"], row["n"]) == ("fish", "margin", 1)


@pytest.mark.slow
def test_bad_input_is_one_line_and_code_two(trained, tmp_path):
    folder, flags, _ = trained
    checkpoint = ["--checkpoint", folder / "all" / "mdm", "--out", tmp_path / "out"]
    lines = (folder / "one.txt").read_text().splitlines()
    (tmp_path / "word.txt").write_text(f"{lines[0]}\nbeside LHS c 0 1 RHS c 0 2 CLUE_END\n")
    (tmp_path / "many.txt").write_text("!= LHS c 0 2 RHS c 2 2 CLUE_END\n")
    (tmp_path / "none.txt").write_text("= LHS c 0 2 RHS n 0 0 CLUE_END\n= LHS c 0 2 RHS c 2 2 CLUE_END\n" * 2)
    with (tmp_path / "none.txt").open("a") as file:
        file.write("= LHS c 0 2 RHS n 0 1 CLUE_END\n")
    (tmp_path / "long.txt").write_text("\n".join(3 * lines))
    new = [*flags, "--out", tmp_path / "new"]
    cases = [
        (["solve", "--out", tmp_path / "out"], "give a puzzle: --riddle fish, or files with --puzzles"),
        (["solve", "--riddle", "dog", "--out", tmp_path / "out"], "unknown riddle 'dog'; choose one of fish"),
        (["solve", "--riddle", "fish", "--search-width", 3], "--search-width is for a model: give --checkpoint"),
        (["solve", "--puzzles", tmp_path / "word.txt"], "word.txt:2: 'beside' is no type of clue"),
        (["solve", "--puzzles", tmp_path / "many.txt"], "many.txt has several solutions: add clues"),
        (["solve", "--puzzles", tmp_path / "none.txt"], "none.txt has no solution: its clues contradict"),
        (["solve", "--puzzles", tmp_path / "absent.txt"], "absent.txt cannot be read"),
        (["solve", "--riddle", "fish", "--puzzles", folder / "one.txt"], "leave one of them out"),
        (["solve", "--riddle", "fish", *checkpoint], "solves up to 3x4 (houses x attributes), and fish is 5x5"),
        (["evaluate", "--riddle", "fish", *checkpoint], "give a model that was trained on larger puzzles"),
        (["evaluate", *checkpoint, "--oracle", "best"], "unknown oracle 'best'"),
        (["evaluate", *checkpoint, "--limit", 0], "--limit must be a whole number"),
        (
            ["solve", "--riddle", "fish", "--limit", 0, "--out", tmp_path / "out"],
            "--limit must be a whole number, at least 1",
        ),
        (["evaluate", "--puzzles", tmp_path / "long.txt", *checkpoint], "reads up to 12 clues, "),
        (["evaluate", *checkpoint, "--keep", "dual", "--block-length", 4], "--keep is for models without padding"),
        (["evaluate", "--checkpoint", "sudoku-6m", "--out", tmp_path / "out"], "is a run of sudoku, not of zebra"),
        (["evaluate", "--checkpoint", tmp_path / "absent", "--out", tmp_path / "out"], "no folder"),
        (["train", *new, "--max-houses", 7], "--max-houses must be a whole number, at least 3 and at most 6; got 7"),
        (["train", *new, "--min-attributes", 5], "5 to 4 attributes"),
        (["train", *new, "--layout", "triples"], "--loss skewed is for masked models"),
        (["train", *new, "--evaluate-limit", 0], "--evaluate-limit must be a whole number"),
        (["train", *new, "--best-metric", "solved/greedy"], "none of the evaluation's: solved/random, solved/margin"),
        (["prepare", "--num-train", 0, "--data", tmp_path, "--out", tmp_path / "out"], "--num-train must be"),
        (["reproduce", "--scale", "smoke", "--methods", "gpt", "--out", tmp_path / "out"], "unknown method 'gpt'"),
    ]
    commands.assert_refused("zebra", cases)
    assert not (tmp_path / "new" / "config.json").exists(), "what did not start leaves no config behind"


@pytest.mark.slow
def test_reproduce_of_one_method_goes_on_where_it_was(trained, tmp_path):
    folder, _, printed = trained
    out, flags = folder / "all", ["reproduce", "--scale", "smoke", "--methods", "mdm", "--data", folder / "data"]
    found = rows(out)
    again, other, late = run_all(
        [
            [*flags, "--out", out],
            [*flags, "--out", out, "--seed", 1],
            [*flags, "--out", tmp_path / "late", "--minutes", 0],
        ]
    )
    assert [again[0], other[0], late[0]] == [0, 2, 0]
    assert rows(out) == found, "nothing was measured again"
    assert printed.split("Table 3;")[1] == again[2].split("Table 3;")[1]
    assert "give the same flags again, or another --out" in other[1][-1]
    assert late[1][-1].endswith("the same command goes on")
    assert_table(out, printed, methods=["mdm"])


@pytest.mark.slow
def test_reproduce_smoke_has_table_3_of_all_methods_and_evaluate_meets_the_autoregressive_ones(tmp_path):
    out = tmp_path / "all"
    printed = run("reproduce", "--scale", "smoke", "--data", tmp_path / "data", "--out", out).stdout
    assert_table(out, printed, methods=["mdm", "arm", "arm_ordered"])
    arm = json.loads((out / "arm" / "config.json").read_text())["model"]
    wanted = {"vocab_size": 21, "max_length": 12 * 13 + 1 + 36, "pad_id": None, "causal": True}
    assert {name: arm[name] for name in wanted} == wanted
    run("evaluate", "--checkpoint", out / "arm_ordered", "--out", tmp_path / "arm")
    expected = [row for row in rows(out) if row["method"] == "arm_ordered" and "examples" not in row]
    assert without_times(rows(tmp_path / "arm")) == without_times(expected)
    refused = ["evaluate", "--checkpoint", out / "arm", "--out", tmp_path / "none", "--num-steps", 2]
    commands.assert_refused("zebra", [(refused, "--num-steps is for masked models")])


def assert_table(out, printed, *, methods):
    found = rows(out)
    lines = printed.split("Table 3;")[1].splitlines()
    assert lines[1].split() == ["method", "order", "paper", "ours", "95%", "interval", "NFE", "puzzles/s"]
    assert [line.split()[:3] for line in lines[3:6]] == [
        ["mdm", "random", "0.769"],
        ["mdm", "top_prob", "0.985"],
        ["mdm", "margin", "0.983"],
    ]
    paper = {"arm": "0.8031", "arm_ordered": "0.9117"}
    assert [line.split()[:2] for line in lines[7 : 6 + len(methods)]] == [[name, paper[name]] for name in methods[1:]]
    plain = [row for row in found if "nfe" in row]
    assert [(row["method"], row.get("oracle")) for row in plain] == [
        *(("mdm", order) for order in ORDERS),
        *((method, None) for method in methods[1:]),
    ]
    assert {(row["n"], row["dataset"]) for row in plain} == {(8, "3x3-to-3x4")}
    for row in plain:
        alike = [part for part in found if part["method"] == row["method"] and part.get("oracle") == row.get("oracle")]
        parts = {part["size"]: part for part in alike if "size" in part}
        assert list(parts) == ["3x3", "3x4"]
        assert sum(part["n"] for part in parts.values()) == 8
        assert sum(part["n"] * part["solved"] for part in parts.values()) == pytest.approx(8 * row["solved"])
    curve = {(row["method"], row["oracle"], row["examples"]) for row in found if "examples" in row}
    assert curve == {("mdm", order, 48) for order in ("random", "margin")} | {(m, "greedy", 32) for m in methods[1:]}
    for name in ("training.png", "sizes.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert name in printed
