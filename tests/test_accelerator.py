"""The plan of an accelerator's time: each command is one that its experiment takes, and nothing is lost if cut off."""

import importlib
import json
import pathlib
import subprocess
import sys
import time

import pytest
from commands import assert_refused

from experiments import accelerator_run
from experiments.accelerator import Measure
from experiments.accelerator_plan import LEAST, MOST, Command, Slice, slices, steps_in
from experiments.common import parse
from mdm_jax.ranges import check_ranges

PLANS = slices("texts/*.txt", pathlib.Path("lists"))


def command_of(argv):
    """The flags of a command as its experiment parses them."""
    name = argv[0] if argv[0] != "throughput" else "throughput.__main__"
    commands = importlib.import_module(f"experiments.{name}").COMMANDS
    flags = parse(argv[0], "", {name: kind for name, (kind, _) in commands.items()}, argv[1:])
    check_ranges(flags)
    return flags


@pytest.mark.parametrize("name", PLANS)
def test_every_command_is_one_that_its_experiment_takes(name, tmp_path):
    rows, toys = [{"loop_ms": 10.0}], 0
    for command in PLANS[name].commands:
        flags = command_of(command.argv(rows, is_toy=False, out=str(tmp_path)))
        assert flags.out == tmp_path / command.name
        if command.toy is not None:
            command_of(command.argv([], is_toy=True, out=str(tmp_path)))
            toys += 1
    assert toys or name == "peers", "PyTorch is no part of a rehearsal"


def test_public_lists_are_solved_if_their_folder_is_given():
    def names(plans):
        return {name for name, plan in plans.items() if any(command.name == "ladder" for command in plan.commands)}

    assert names(PLANS) == {"sudoku", "sudoku-looped", "sudoku-hard"}
    assert not names(slices())


def test_slices_fit_into_fifteen_minutes_each():
    assert all(plan.seconds <= 15 * 60 for plan in PLANS.values())
    assert list(PLANS)[:2] == ["right", "cost"]


def test_training_takes_the_steps_that_fit_into_its_time(tmp_path):
    assert steps_in(30, []) == LEAST
    assert steps_in(30, [{"what": 1}, {"loop_ms": 10.0}]) == 3_000
    assert steps_in(30, [{"loop_ms": 1e-3}]) == MOST
    [train] = [command for command in PLANS["sudoku"].commands if command.name == "training"]
    folder = tmp_path / train.name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"optimizer": {"num_steps": 777}}))
    cut_off = train.argv([{"loop_ms": 21.0}], is_toy=False, out=str(tmp_path))
    assert cut_off[cut_off.index("--steps") + 1] == "777", "a training that was cut off goes on to where it was going"
    argv = train.argv([{"loop_ms": 20.0}], is_toy=False, out="x")
    assert int(argv[argv.index("--steps") + 1]) == int(0.85 * train.seconds / 0.02)


def test_command_that_is_cut_off_or_fails_keeps_its_rows_and_does_not_stop_the_next(tmp_path, monkeypatch):
    """Programs in place of experiments: one writes a row and hangs, one fails, one ends well."""
    programs = {
        "hangs": "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
        "fails": "import sys; print('no card'); sys.exit(3)",
        "ends": "pass",
    }
    real = subprocess.Popen

    def started(words, **options):
        out = words[words.index("--out") + 1]
        write = (
            "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'rows.jsonl').write_text(sys.argv[2])"
        )
        program = f"{write}\n{programs[words[2].split('.')[1]]}"
        return real([sys.executable, "-c", program, out, '{"a": 1}\n{"b'], **options)

    monkeypatch.setattr(accelerator_run.subprocess, "Popen", started)
    monkeypatch.setattr(accelerator_run, "GRACE", 0.2)
    monkeypatch.setattr(accelerator_run, "LEAST", 0.1)
    plan = Slice(
        tuple(
            Command(name, f"{name} verb", seconds, {}, {})
            for name, seconds in {"hangs": 1.5, "fails": 30, "ends": 30}.items()
        )
    )
    rows = accelerator_run.run_slice("x", plan, Measure(out=tmp_path), time.monotonic() + 100)
    assert [(row["step"], row["ended"]) for row in rows if "ended" in row] == [
        ("hangs", "cut off after 2 s"),
        ("fails", "with code 3: no card"),
        ("ends", "well"),
    ]
    assert [row["a"] for row in rows if "a" in row] == [1, 1, 1]
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == ["hangs", "hangs", "fails", "fails", "ends", "ends"]
    rows = accelerator_run.run_slice("y", plan, Measure(out=tmp_path), time.monotonic())
    assert [row["ended"] for row in rows] == ["not begun: the time is up"] * 3


def test_slice_is_measured_again_on_another_device_or_if_a_command_was_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator_run, "FOLDER", tmp_path / "results")
    (tmp_path / "results").mkdir()
    for name, device, ended in (
        ("right", "H200", "well"),
        ("cost", "H100", "well"),
        ("train", "H200", "cut off after 3 s"),
    ):
        record = {"device": device, "rows": [{"ended": "well"}, {"found": 1}, {"ended": ended}]}
        (tmp_path / "results" / f"accelerator-{name}.json").write_text(json.dumps(record))
    toy = {"device": "H200", "scale": "toy", "rows": [{"ended": "well"}]}
    (tmp_path / "accelerator-peers.json").write_text(json.dumps(toy))
    left = accelerator_run.chosen(Measure(out=tmp_path), PLANS, "H200")
    assert left[:3] == ["cost", "peers", "train"]
    assert not {"right", "text"} & set(left)
    assert accelerator_run.chosen(Measure(slices="right", out=tmp_path), PLANS, "H200") == ["right"]
    assert "text" in accelerator_run.chosen(Measure(source="x", out=tmp_path), PLANS, "H200")


def test_what_cannot_be_measured_is_one_line(tmp_path):
    out = ["--out", tmp_path / "out"]
    cases = [
        (["--minutes", "1", *out], "there is no accelerator here"),
        (["--rehearse", "--slices", "right,wrong", *out], "unknown slice 'wrong'"),
        (["--rehearse", "--slices", "text", *out], "takes a corpus: give --source"),
    ]
    assert_refused("accelerator", cases)


def rehearse(out, *flags):
    """How each command of a rehearsal ended, by slice and step."""
    words = ["--rehearse", "--minutes", "60", "--out", str(out), *flags]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.accelerator", *words], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    return {(line["slice"], line["step"]): line["ended"] for line in lines if "ended" in line}


def test_rehearsal_runs_the_slice_that_measures_the_cost_of_an_oracle(tmp_path):
    assert rehearse(tmp_path, "--slices", "cost") == {("cost", "6m"): "well", ("cost", "8b"): "well"}
    record = json.loads((tmp_path / "accelerator-cost.json").read_text())
    assert record["scale"] == "toy"
    assert {row["step"] for row in record["rows"] if row.get("overhead") is not None} == {"6m", "8b"}


@pytest.mark.slow
def test_rehearsal_runs_every_slice(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.txt").write_text(
            f"It was a dark and stormy night, number {i}; the rain fell in torrents. " * 30
        )
    ended = rehearse(tmp_path / "out", "--source", str(tmp_path / "*.txt"))
    assert {name for name, _ in ended} == set(PLANS) - {"peers"}
    assert set(ended.values()) == {"well"}, {where: how for where, how in ended.items() if how != "well"}
    assert all((tmp_path / "out" / f"accelerator-{name}.json").exists() for name in PLANS)
