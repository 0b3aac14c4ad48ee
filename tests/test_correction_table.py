"""The table of correction: its ways, its comparison over seeds, and the command at smoke size."""

import dataclasses
import json
import pathlib

import pytest
from commands import rows, run

from experiments.commands.reproduce import head
from experiments.correction import Reproduce
from experiments.correction_table import JUDGES, SCALES, compared, plans, ways
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import wilson


@pytest.mark.parametrize("loss", JUDGES)
def test_every_network_is_decoded_without_correction_and_with_its_own_judge(loss):
    found = [(way, *fields.values()) for way, fields, _ in ways(SCALES["small"], loss)]
    assert found == [
        *(("none", k) for k in (1, 2, 4, 8)),
        *((JUDGES[loss], k) for k in (2, 4, 8)),
        *(("remasking", n) for n in (6, 12, 24)),
        ("checked search", 4, 4),
    ]


def test_comparison_pools_the_seeds_of_a_way_and_sorts_by_network_calls():
    way = {"dataset": "hard", "loss": "plain", "n": 10}
    measured = [
        {
            **way,
            "way": "none",
            "tokens_per_step": 1,
            "repeat": 0,
            "solved": 0.5,
            "is_solved": [0, 1, 2, 3, 4],
            "nfe": 24.0,
        },
        {**way, "way": "none", "tokens_per_step": 2, "repeat": 0, "solved": 0.1, "is_solved": [9], "nfe": 12.0},
        {**way, "way": "none", "tokens_per_step": 1, "repeat": 1, "solved": 0.7, "is_solved": [*range(7)], "nfe": 24.0},
        {**way, "way": "none", "tokens_per_step": 1, "repeat": 1, "hardest_rule": "lone_single", "solved": 1.0},
        {"method": "mdm", "step": 3},
    ]
    few, many = compared(measured)
    assert (few["tokens_per_step"], few["nfe"], few["by_seed"]) == (2, 12.0, [0.1])
    assert (many["tokens_per_step"], many["solved"], many["by_seed"]) == (1, pytest.approx(0.6), [0.5, 0.7])
    assert many["solved_ci"] == [*wilson(6, 10)], "each puzzle once"


@pytest.mark.slow
def test_smoke_measures_every_way_on_both_sets(tmp_path):
    run("correction", "reproduce", "--scale", "smoke", "--data", tmp_path / "data", "--out", tmp_path / "out")
    found = [row for row in rows(tmp_path / "out") if "way" in row and "hardest_rule" not in row]
    assert [(row["loss"], row["dataset"], row["way"]) for row in found] == [
        (loss, name, way)
        for loss in JUDGES
        for name in ("6x6-normal", "6x6-hard")
        for way in ("none", JUDGES[loss], "remasking", "checked search")
    ]
    assert any("hardest_rule" in row for row in rows(tmp_path / "out"))
    assert (tmp_path / "out" / "correction.png").exists()


def test_tuned_networks_begin_with_the_shipped_weights_and_meet_the_sets_of_the_ladder(tmp_path):
    (tmp_path / "sudoku_magictour_top1465.txt").write_text("a list that is read when it is solved")
    flags = Reproduce(scale="tuned", ladder=tmp_path, out=tmp_path / "out")
    found = plans(flags)
    assert [plan.train.loss for plan in found] == ["plain", "filled", "quality"]
    assert [plan.train.steps for plan in found] == [200, 100, 100], "as many network calls"
    assert {plan.train.init_from for plan in found} == {pathlib.Path("sudoku-6m")}
    assert json.loads(json.dumps(head(flags, SCALES["tuned"], found)))["settings"]["steps"] == 100
    labels = [unit.name for unit in found[2].units]
    assert labels[:4] == [f"quality 0 normal none {k}" for k in (2, 4, 8)] + ["quality 0 normal quality 4"]
    assert {label.split()[2] for label in labels} == {"normal", "hard", "magictour_top1465"}
    assert not any("leave-one-out" in unit.name for unit in found[0].units)
    with pytest.raises(InputError, match="--ladder is for 9x9 puzzles, and --scale small has 6x6 ones"):
        plans(dataclasses.replace(flags, scale="small"))
    with pytest.raises(InputError, match="there is no such folder"):
        plans(dataclasses.replace(flags, ladder=tmp_path / "none"))
