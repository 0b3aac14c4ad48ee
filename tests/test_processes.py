"""Runs as processes of their own: killed, asked to stop, two at a time, and one that loses the other."""

import random
import shutil
import signal
import subprocess
import sys
import time

import chex
import pytest
import tiny
from commands import ENV

from mdm_jax.sharding import make_mesh
from mdm_jax.training.metrics import read_metrics

STEPS = ("--steps", "400", "--checkpoint-every", "10")
ONE_DEVICE = {"XLA_FLAGS": ENV["XLA_FLAGS"]}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of 400 steps in one process on 2x2x1 devices that nothing disturbs."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    tiny.finish(tiny.run(folder, *STEPS, "--mesh.fsdp", "2"))
    return folder


def wait_for(condition, process, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended with {process.returncode}: {process.stderr.read()[-2000:]}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def steps_written(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_run_killed_at_20_random_moments_ends_bit_for_bit_as_if_never_killed(tmp_path, alone):
    folder, draw = tmp_path / "run", random.Random(0)
    kills = {"starting": 0, "training": 0}
    for number in range(20):
        process = tiny.run(folder, *STEPS, "--mesh.fsdp", "2", "--delay", "0.01")
        if number % 4 == 0:  # at any moment from the start on: imports, restoring, compiling
            time.sleep(draw.uniform(0.0, 4.0))
        else:  # while it trains and saves, again and again
            before = steps_written(folder)
            wait_for(lambda before=before: steps_written(folder) not in (0, before), process)
            time.sleep(draw.uniform(0.0, 3.0))
        assert process.poll() is None, "it was over before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        kills["training" if number % 4 else "starting"] += 1
    assert kills == {"starting": 5, "training": 15}
    reached = max((int(step.name) for step in (folder / "checkpoints").iterdir() if step.name.isdigit()), default=0)
    print("checkpoint reached", reached)
    assert 0 < reached < 400
    said = tiny.finish(tiny.run(folder, *STEPS, "--mesh.fsdp", "2"))
    assert not [line for line in said if not line.startswith("goes on from step")], "no checkpoint was damaged"
    chex.assert_trees_all_equal(tiny.final_state(folder), tiny.final_state(alone))
    assert read_metrics(folder) == read_metrics(alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_run_that_is_asked_to_stop_saves_and_says_where(tmp_path, number, code):
    folder = tmp_path / "run"
    arguments = ("--steps", "100", "--checkpoint-every", "1000", "--delay", "0.05")
    process = tiny.run(folder, *arguments, **ONE_DEVICE)
    wait_for(lambda: steps_written(folder) > 20, process)
    process.send_signal(number)
    said = tiny.finish(process, code=code)
    steps = [int(step.name) for step in (folder / "checkpoints").iterdir()]
    assert len(steps) == 1
    where = folder / "checkpoints" / str(steps[0])
    assert said == [f"asked to stop: step {steps[0]} of 100 is saved in {where}; the same command goes on"]
    assert len(read_metrics(folder)) == steps[0]
    tiny.train(folder, steps=100)
    tiny.train(tmp_path / "alone", steps=100)
    chex.assert_trees_all_equal(tiny.final_state(folder).params, tiny.final_state(tmp_path / "alone").params)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_a_run_at_once_in_the_middle_of_an_evaluation_that_never_ends(tmp_path, number):
    process = tiny.run(tmp_path / "run", "--steps", "400", "--endless", "3")
    try:
        wait_for(lambda: steps_written(tmp_path / "run") >= 2, process)
        time.sleep(1.0)  # it stands in a loop of XLA's by now, or will
        process.send_signal(number)
        time.sleep(0.5)
        assert process.poll() is None, "the first one asks"
        process.send_signal(number)
        said = tiny.finish(process, code=128 + number, timeout=10)
    finally:
        process.kill()
    assert said == [f"ended at once by a second signal ({number.name}); what was saved is good"]


@pytest.mark.slow
def test_two_processes_stop_together_where_one_of_them_gets_ctrl_c(tmp_path):
    folder = tmp_path / "run"
    pair = tiny.run_two(folder, "--steps", "400", "--checkpoint-every", "1000", "--delay", "0.01", "--mesh.fsdp", "2")
    wait_for(lambda: steps_written(folder) > 20, pair[0])
    pair[1].send_signal(signal.SIGINT)
    for process, code in zip(pair, (0, 130), strict=True):
        assert any("is saved in" in line for line in tiny.finish(process, code=code))


@pytest.mark.slow
def test_two_processes_wait_for_the_one_that_compiles_for_longer_than_gloo_would(tmp_path):
    arguments = ("--steps", "20", "--mesh.fsdp", "2", "--mesh.tensor", "2")
    pair = tiny.run_two(tmp_path / "run", *arguments, alone=("--late", "35"))
    for process in pair:
        tiny.finish(process)
    assert len(losses(tmp_path / "run")) == 20


@pytest.mark.slow
def test_two_processes_train_beside_two_busy_loops_with_one_of_their_caches_empty(tmp_path):
    folder, loop = tmp_path / "run", [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(loop) for _ in range(2)]
    try:
        for steps in ("20", "20"):
            shutil.rmtree(folder, ignore_errors=True)
            pair = tiny.run_two(folder, "--steps", steps, "--mesh.fsdp", "8", caches=("warm", "empty"))
            for process in pair:
                tiny.finish(process, timeout=300)
            shutil.rmtree(tmp_path / "empty")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert len(losses(folder)) == 20


def losses(folder):
    return [line["loss_per_token"] for line in read_metrics(folder)]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    for process in tiny.run_two(tmp_path / "run", "--steps", "6", "--mesh.fsdp", "2"):
        tiny.finish(process)
    tiny.train(tmp_path / "alone", steps=6, mesh=make_mesh(4, 2, 1))
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    assert len(losses(tmp_path / "run")) == 6


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [("--mesh.fsdp", "2", "--mesh.tensor", "2"), ("--mesh.tensor", "8")])
def test_two_processes_train_as_one_and_one_goes_on_with_what_they_saved(tmp_path, alone, mesh):
    folder = tmp_path / "run"
    pair = tiny.run_two(folder, "--steps", "400", "--checkpoint-every", "1000", "--delay", "0.01", *mesh)
    wait_for(lambda: steps_written(folder) > 20, pair[0])
    pair[1].terminate()  # one of them is told; both stop after the same step
    for process in pair:
        said = tiny.finish(process, code=0)
        assert any("is saved in " in line for line in said), said
    reached = len(losses(folder))
    assert [step.name for step in (folder / "checkpoints").iterdir()] == [str(reached)]
    assert losses(folder) == pytest.approx(losses(alone)[:reached], rel=1e-4)
    tiny.finish(tiny.run(folder, *STEPS, "--mesh.tensor", "4"))
    assert losses(folder) == pytest.approx(losses(alone), rel=1e-2)
    chex.assert_trees_all_close(tiny.final_state(folder).params, tiny.final_state(alone).params, atol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_process_whose_peer_is_killed_ends_in_one_line_and_the_run_goes_on_from_a_good_checkpoint(
    tmp_path, alone, victim
):
    folder = tmp_path / "run"
    pair = tiny.run_two(folder, *STEPS, "--delay", "0.02", "--mesh.fsdp", "2")
    wait_for(lambda: (folder / "checkpoints" / "20").exists(), pair[0])
    pair[victim].kill()
    survivor = pair[1 - victim]
    said = tiny.finish(survivor, code=75, timeout=60)
    pair[victim].communicate()
    assert said[-1].startswith("error: ")
    assert "another process" in said[-1]
    assert "start" in said[-1]
    assert "Traceback" not in "".join(said)
    reached = len(losses(folder))
    assert 20 <= reached < 400
    said = tiny.finish(tiny.run(folder, *STEPS, "--mesh.fsdp", "2"))
    assert not [line for line in said if not line.startswith("goes on from step")], "no checkpoint was damaged"
    assert len(losses(folder)) == 400
    chex.assert_trees_all_close(tiny.final_state(folder).params, tiny.final_state(alone).params, atol=2e-2)


@pytest.mark.slow
def test_process_that_fails_alone_does_not_hold_the_other_for_minutes(tmp_path):
    pair = tiny.run_two(tmp_path / "run", *STEPS, "--mesh.fsdp", "2", alone=("--mesh.tensor", "3"))
    said = tiny.finish(pair[1], code=2, timeout=60)
    assert "fsdp=2 x tensor=3 do not use 8 devices" in said[0]
    said = tiny.finish(pair[0], code=75, timeout=60)
    assert said[-1].startswith("error: ")


@pytest.mark.slow
def test_two_processes_agree_that_a_checkpoint_which_one_of_them_cannot_read_is_damaged(tmp_path):
    folder = tmp_path / "run"
    arguments = ("--steps", "20", "--checkpoint-every", "10", "--mesh.fsdp", "8")
    for process in tiny.run_two(folder, *arguments):
        tiny.finish(process)
    whole = tiny.final_state(folder)
    pair = tiny.run_two(folder, *arguments, alone=("--unreadable", "20"))
    said = [line for process in pair for line in tiny.finish(process)]
    assert any(line.startswith("checkpoint 20 ") and "was passed over" in line for line in said), said
    assert (folder / "damaged" / "20").is_dir()
    chex.assert_trees_all_close(tiny.final_state(folder).params, whole.params, atol=1e-6)
