"""The table of correction: its ways, its comparison over seeds, and the command at smoke size."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from commands import rows, run

from experiments.commands.reproduce import head
from experiments.correction import Reproduce
from experiments.correction_report import compared, plot_sets
from experiments.correction_table import JUDGES, SCALES, plans, sets_of, ways
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.loading import Model
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.report import heat
from mdm_jax.tasks.sudoku.task import Sudoku


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


def test_puzzles_beyond_singles_are_held_out_normal_ones_that_need_another_rule():
    sets = sets_of(Reproduce(scale="paper", limit=7), Sudoku(difficulty="normal", num_train=1, num_test=60))
    assert list(sets) == ["normal", "hard", "beyond singles"]
    records = sets["beyond singles"]()
    every = Sudoku(difficulty="normal", num_train=1, num_test=60).records("test", 60)
    needed = every["rule"].max(axis=1)
    assert 7 < (needed >= 4).sum() < 40, "some of them, and more than are asked for"
    np.testing.assert_array_equal(records["puzzle"], every["puzzle"][needed >= 4][:7])
    sets = sets_of(Reproduce(), Sudoku(size=6, num_train=1, num_test=1))
    assert list(sets) == ["6x6-normal", "6x6-hard"], "at 6x6 hardly any puzzle needs more"


def test_picture_of_the_sets_goes_from_easy_to_hard_and_pools_the_seeds(tmp_path, monkeypatch):
    def measured(dataset, repeat, *parts, nfe=30.0, **steps):
        row = {
            "loss": "plain",
            "way": "none",
            "repeat": repeat,
            "dataset": dataset,
            **(steps or {"tokens_per_step": 2}),
        }
        yield row | {"nfe": nfe, "n": 9, "solved": 0.5}
        for rule, solved in parts:
            yield row | {"hardest_rule": rule, "n": 3, "solved": solved}

    both = [
        *measured("zebra_list", 0),
        *measured("a_list", 0, remask_steps=15),
        *measured("hard", 0, nfe=31.0),
        *measured("normal", 0, ("xy_wing", 0.0), ("unique_rectangle", 0.0), ("lone_single", 1.0)),
        *measured("beyond singles", 0, ("xy_wing", 1.0), ("unique_rectangle", 0.25), nfe=40.0),
        *measured("hard", 1, nfe=33.0),
        *measured("normal", 1, ("lone_single", 0.0)),
        *measured("beyond singles", 1, ("xy_wing", 0.5), nfe=42.0),
    ]
    drawn = []
    monkeypatch.setattr(heat, "heat_map", lambda path, groups, **words: drawn.append(groups))
    plot_sets(tmp_path / "sets.png", both)
    [[ways]] = drawn
    assert ways == {
        "plain: none, 2 a step": {
            "lone\nsingle\n(3)": heat.Cell(0.5, "30 calls"),
            "xy\nwing\n(3)": heat.Cell(0.75, "41 calls"),  # those of the set beyond singles alone
            "unique\nrectangle\n(3)": heat.Cell(0.25, "40 calls"),
            "zebra\nlist\n(9)": heat.Cell(0.5, "30 calls"),
            "hard\n(9)": heat.Cell(0.5, "32 calls"),
        },
        "plain: none, 15 steps": {"a\nlist\n(9)": heat.Cell(0.5, "30 calls")},
    }
    columns = list(ways["plain: none, 2 a step"])
    assert [column.split("\n")[0] for column in columns] == ["lone", "xy", "unique", "zebra", "hard"], "as measured"
    drawn.clear()
    plot_sets(tmp_path / "sets.png", [row for row in both if row["dataset"] == "normal"])
    [[ways]] = drawn
    assert ways["plain: none, 2 a step"]["xy\nwing\n(3)"].share == 0.0, "there is no other set"


def test_rows_of_puzzles_beyond_singles_say_which_rule_they_need(monkeypatch):
    [plan] = [
        plan
        for plan in plans(Reproduce(scale="paper", limit=5))
        if plan.train.loss == "filled" and plan.train.seed == 0
    ]
    names = [unit.name for unit in plan.units]
    unit = plan.units[names.index("filled 0 beyond singles none 8")]
    config = TransformerConfig(vocab_size=10, max_length=81, width=8, num_heads=1, num_layers=1, mlp_width=8)
    model = Model(config, init_params(config, jax.random.key(0)), make_denoiser(config))
    whole, *parts = unit.work(model)
    assert whole["dataset"] == "beyond singles"
    assert sum(part["n"] for part in parts) == whole["n"] == 5
    assert not {part["hardest_rule"] for part in parts} & {"lone_single", "hidden_single"}


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
    for name in ("correction.png", "correction-sets.png"):
        assert (tmp_path / "out" / name).exists()


def test_tuned_networks_begin_with_the_shipped_weights_and_meet_the_sets_of_the_ladder(tmp_path):
    (tmp_path / "sudoku_magictour_top1465.txt").write_text("a list that is read when it is solved")
    flags = Reproduce(scale="tuned", ladder=tmp_path, out=tmp_path / "out")
    found = plans(flags)
    assert [plan.train.loss for plan in found] == ["plain", "filled", "quality"] * 2, "two seeds"
    assert [plan.train.steps for plan in found] == [200, 100, 100] * 2, "as many network calls"
    assert {plan.train.init_from for plan in found} == {pathlib.Path("sudoku-6m")}
    assert json.loads(json.dumps(head(flags, SCALES["tuned"], found)))["settings"]["steps"] == 100
    labels = [unit.name for unit in found[2].units]
    assert labels[:4] == [f"quality 0 normal none {k}" for k in (2, 4, 8)] + ["quality 0 normal quality 4"]
    assert {label.split()[2] for label in labels} == {"normal", "hard", "magictour_top1465", "beyond"}
    assert not any("leave-one-out" in unit.name for unit in found[0].units)
    with pytest.raises(InputError, match="--ladder is for 9x9 puzzles, and --scale small has 6x6 ones"):
        plans(dataclasses.replace(flags, scale="small"))
    with pytest.raises(InputError, match="there is no such folder"):
        plans(dataclasses.replace(flags, ladder=tmp_path / "none"))
