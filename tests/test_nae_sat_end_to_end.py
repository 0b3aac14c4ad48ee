"""The commands of the theory's experiments, run as a user runs them, at sizes for seconds."""

import json

import commands
import numpy as np
import pytest
from commands import page_of, rows, run

from experiments import hardness
from experiments.commands.train import network
from experiments.nae_sat import Train
from mdm_jax.theory import thresholds

ORDERS = ["random", "top_prob", "margin", "neg_entropy", "token_prob", "left_to_right"]
DATA = ["--num-latents", 6, "--num-observations", 12, "--num-train", 300, "--num-test", 20]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """All of Table 1 at the smallest scale, and what it printed."""
    folder = tmp_path_factory.mktemp("nae-sat")
    flags = ["reproduce", "--scale", "smoke", "--data", folder / "data", "--out", folder / "out"]
    return folder, flags, run("nae_sat", *flags).stdout


@pytest.mark.slow
def test_reproduce_smoke_has_table_1_and_goes_on_where_it_was(reproduced):
    folder, flags, printed = reproduced
    out = folder / "out"
    assert "Table 1" in printed
    found = [row for row in rows(out) if "examples" not in row]
    wanted = [(steps, name) for steps in (18, 6) for name in [*ORDERS, "vanilla"]]
    assert [(row["num_steps"], row["oracle"]) for row in found] == wanted
    assert all(row["n"] == 8 for row in found)
    curve = [row for row in rows(out) if "examples" in row]
    assert {(row["oracle"], row["method"]) for row in curve} == {("random", "mdm"), ("margin", "mdm")}
    for name in ("training-6-12.png", "steps-6-12.png"):
        assert (out / name).stat().st_size > 5000
    before = (out / "units.jsonl").read_text()
    run("nae_sat", *flags)
    assert (out / "units.jsonl").read_text() == before
    other = run("nae_sat", *flags, "--seed", 1, code=2).stderr
    assert "give the same flags again, or another --out" in other


@pytest.mark.slow
def test_train_with_the_flags_of_the_table_goes_on_with_its_run_and_has_a_row_for_two_orders(reproduced):
    folder, _, _ = reproduced
    out = folder / "out" / "6-12"
    metrics = (out / "metrics.jsonl").read_text()
    flags = ["--num-latents", 6, "--num-observations", 12, "--num-train", 200, "--data", folder / "data", "--out", out]
    flags += ["--model", "sudoku_800k", "--dtype", "float32", "--steps", 4, "--batch-size", 16, "--warmup-steps", 0]
    flags += ["--weight-decay", 0.1, "--beta2", 0.95, "--evaluate-limit", 8]
    run("nae_sat", "train", *flags)
    assert (out / "metrics.jsonl").read_text() == metrics, "no step was trained again"
    config = json.loads((out / "config.json").read_text())
    names = ("name", "num_latents", "num_observations", "length", "seed")
    assert [config["task"][name] for name in names] == ["nae_sat", 6, 12, None, 0]
    assert config["model"]["max_length"] == 18
    assert (config["model"]["vocab_size"], config["model"]["num_extra_tokens"]) == (2, 2)
    assert [(row["oracle"], row["n"], row["nfe"]) for row in rows(out)] == [("random", 8, 18), ("margin", 8, 18)]


def test_network_of_padded_sequences_takes_their_length():
    flags = Train(num_latents=6, num_observations=12, length=24, model="sudoku_800k")
    assert (flags.task().length, network(flags, flags.task()).max_length) == (24, 24)


@pytest.mark.slow
def test_evaluate_has_a_row_for_each_order_and_number_of_steps(tmp_path):
    train = [*DATA, "--data", tmp_path / "data", "--model", "sudoku_800k", "--dtype", "float32", "--steps", 2]
    train += ["--batch-size", 16, "--evaluate-limit", 8]
    run("nae_sat", "train", *train, "--out", tmp_path / "run")
    flags = ["--checkpoint", tmp_path / "run", "--limit", 10, "--batch-size", 8, "--step-counts", 18, 4]
    orders = ("left_to_right", "margin")
    flags += ["--oracle", ",".join(orders), "--viewer", tmp_path / "page.html"]
    run("nae_sat", "evaluate", *flags, "--out", tmp_path)
    found = rows(tmp_path)
    assert [(row["oracle"], row["nfe"]) for row in found] == [(name, steps) for steps in (18, 4) for name in orders]
    for row in found:
        assert 0 <= row["accuracy_ci"][0] <= row["accuracy"] <= row["accuracy_ci"][1] <= 1
        assert row["dataset"] == "N=6, P=12"
        assert row["n"] == 10
    (left_to_right,) = (row for row in found if (row["oracle"], row["nfe"]) == ("left_to_right", 18))
    assert (left_to_right["left_to_rightness"], left_to_right["tau_reading"]) == (1, 1)
    page = page_of(tmp_path / "page.html")
    assert [panel["targets"] for panel in page["panels"]] == [18] * len(found)
    assert page["board"]["sections"] == [["latents", 0], ["observations", 6]]
    for panel in page["panels"]:
        assert [text is None for text in panel["solution"]] == [True] * 6 + [False] * 12


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    evaluate = ["evaluate", "--checkpoint", "sudoku-6m"]
    cases = [
        (["train", "--num-latents", 2], "--num-latents must be a whole number, at least 3"),
        (["train", "--num-latents", 4, "--num-observations", 25], "give at most 24, all tuples"),
        (["train", "--num-train", 0], "--num-train must be a whole number, at least 1"),
        (["prepare", "--num-latents", 2], "--num-latents must be a whole number, at least 3"),
        (["train", *DATA, "--length", 10], "length=10 is too short for N + P = 18 tokens"),
        (["train", *DATA, "--evaluate-limit", 0], "--evaluate-limit must be a whole number, at least 1"),
        (["train", *DATA, "--best-metric", "nothing"], "--best-metric nothing is none of the evaluation's"),
        (["exact", "--num-latents", 30], "are too much to enumerate: give fewer latents"),
        (["exact", "--limit", 0], "--limit must be a whole number, at least 1"),
        (
            ["schedules", "--num-latents", 4, "--num-observations", 6, "--num-steps", 11],
            "numbers of at most the 10 positions",
        ),
        (["evaluate", "--checkpoint", "nowhere"], "there is no folder nowhere"),
        (evaluate, "sudoku-6m is a run of sudoku, not of nae_sat"),
        ([*evaluate, "--step-counts", 4, "--num-steps", 3], "--step-counts says how many"),
        ([*evaluate, "--remask-steps", 3], "--corrector and --proposals are for puzzles"),
    ]
    commands.assert_refused("nae_sat", [([*argv, "--out", tmp_path / "out"], words) for argv, words in cases])
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.slow
def test_exact_predictor_is_right_throughout_one_at_a_time_and_loses_with_several(tmp_path):
    flags = ["--num-latents", 6, "--num-observations", 12, "--limit", 300, "--out", tmp_path]
    run("nae_sat", "exact", *flags)
    found = {(row["oracle"], row["tokens_per_step"]): row["accuracy"] for row in rows(tmp_path)}
    for name in ORDERS:
        assert found[name, 1] == 1
        assert abs(found[name, 18] - 0.625) < 0.05
        assert name == "left_to_right" or found[name, 2] < 0.99
    assert found["left_to_right", 6] == 1  # six latents, of which none knows of another, then what follows from them
    assert (tmp_path / "exact.png").stat().st_size > 5000


@pytest.mark.slow
def test_best_schedule_loses_least_and_as_much_as_the_theorem_says(tmp_path):
    flags = ["--num-latents", 6, "--num-observations", 12, "--limit", 1000, "--num-steps", 1, 3, "--out", tmp_path]
    run("nae_sat", "schedules", *flags)
    found = {(row["schedule"], row["num_steps"]): row for row in rows(tmp_path)}
    for row in found.values():
        errors = [np.ptp(row[f"{name}_ci"]) / 2 for name in ("divergence", "measured")]
        assert abs(row["divergence"] - row["measured"]) < 2 * sum(errors)
        assert (sum(row["counts"]), row["nfe"]) == (18, len(row["counts"]))
    assert found["best", 3]["divergence"] < min(found[name, 3]["divergence"] for name in ("linear", "cosine"))
    assert found["best", 1]["counts"] == [18]
    assert (tmp_path / "schedules.png").stat().st_size > 5000


@pytest.mark.slow
def test_hardness_smoke_has_both_thresholds_and_both_starts(tmp_path):
    run("hardness", "reproduce", "--scale", "smoke", "--out", tmp_path)
    assert_both_starts(tmp_path)


@pytest.mark.slow
def test_hardness_with_a_known_threshold_has_both_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(thresholds, "condensation", lambda *args, **options: 4.5)  # the search for it takes a minute
    hardness.reproduce(hardness.Reproduce(scale="smoke", out=tmp_path))
    assert_both_starts(tmp_path)


def assert_both_starts(folder):
    found = rows(folder)
    assert {row["threshold"]: row["neighbours"] for row in found if "threshold" in row} == pytest.approx(
        {"kesten_stigum": 9, "condensation": 9}
    )
    overlaps = {(row["start"], row["neighbours"]): row["overlap"] for row in found if "start" in row}
    assert set(overlaps) == {(start, n) for start in ("planted", "random") for n in (4, 20)}
    assert min(overlaps["planted", 20], overlaps["random", 20]) > 0.9
    assert overlaps["random", 4] < 0.65
    assert next(row for row in found if "sweep_ms" in row)["numpy_ms"] > 0
    assert (folder / "hardness.png").stat().st_size > 5000


@pytest.mark.slow
def test_imbalance_smoke_compares_model_proxy_and_exact_conditionals(tmp_path):
    flags = ["reproduce", "--scale", "smoke", "--data", tmp_path / "data", "--out", tmp_path / "out"]
    run("imbalance", *flags)
    found = rows(tmp_path / "out")
    compared = ["model, exact", "model, proxy", "proxy, exact"]
    assert [(row["masked_latents"], row["compared"]) for row in found] == [(n, c) for n in (1, 2, 3) for c in compared]
    for row in found:
        low, high = row["latents_error_ci"]
        assert low <= row["latents_error"] <= high
    for name in ("imbalance-positions.png", "imbalance-latents.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5000
    positions = json.loads((tmp_path / "out" / "positions.json").read_text())
    assert [(row["masked_latents"], row["compared"]) for row in positions] == [
        (n, c) for n in (1, 2, 3) for c in compared
    ]
    assert all(len(row["mean_low_high"]) == 12 for row in positions)
    assert json.loads((tmp_path / "out" / "proxy" / "config.json").read_text())["task"]["init_from"].endswith("base")
