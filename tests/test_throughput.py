"""The benchmark: what its rows say, at sizes that take seconds. No time is tested."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import assert_refused
from hub import FAMILIES

import mdm_jax
from experiments.common import main
from experiments.flags import resolve_dtype
from experiments.throughput import load as loading
from experiments.throughput import report, roofline
from experiments.throughput.__main__ import COMMANDS
from experiments.throughput.flags import Load, Loop, Run, model_called
from experiments.throughput.programs import operations
from experiments.throughput.workload import cases, workload
from mdm_jax import confidence
from mdm_jax.errors import InputError, RunError
from mdm_jax.models import presets
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.kinds import num_params, param_shapes, to_json
from mdm_jax.models.pretrained.llada_moe import LLADA_MOE
from mdm_jax.models.weights import save_weights
from mdm_jax.oracles import ORACLES
from mdm_jax.training.config import write_config

ROOT = pathlib.Path(__file__).parents[1]
SMALL = ["--model", "sudoku_800k", "--batch", "2", "--length", "12", "--turns", "2", "--dtype", "float32"]


def rows_of(out, *argv):
    caching = jax.config.jax_enable_compilation_cache
    main("throughput", "", COMMANDS, ["run", *SMALL, *argv, "--out", str(out)])
    jax.config.update("jax_enable_compilation_cache", caching)
    return json.loads((out / "results.json").read_text())["rows"]


def test_every_oracle_is_measured_at_both_temperatures():
    found = [(case.oracle, case.temperature) for case in cases(Run())]
    assert found == [(oracle, t) for oracle in ORACLES.values() for t in (0, 1)]


def test_run_measures_each_way_to_sample_beside_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    argv = ["--oracle", "random,log_margin", "--selector", "top_k:3", "--prompt", "2", "--compute", "all"]
    rows = rows_of(tmp_path, *argv, "--layers", "1", "--temperature", "0")
    config = Run(model="sudoku_800k", layers=1).config()
    wanted = [(name, 0) for name in ("random", "log_margin")]
    assert [(row["oracle"], row["temperature"]) for row in rows] == wanted
    for row in rows:
        assert (row["model"], row["batch"], row["length"], row["nfe"]) == ("sudoku_800k(layers=1)", 2, 12, 3)
        assert (row["selector"], row["dtype"], row["compute"]) == ("top_k:3", "float32", "all")
        assert "peer" not in row
        assert row["tokens_per_s"] == pytest.approx(10 * row["sequences_per_s"]), "the prompt never counts"
        assert row["sequences_per_s"] == pytest.approx(2 / (3 * row["ms_per_nfe"] / 1000))
        for name in ("overhead", "ms_per_nfe"):
            low, high = row[f"{name}_range"]
            assert low <= row[name] <= high
        assert row["peak_bytes"] > 4 * num_params(config), "the parameters at least"
        flops = 2 * config.forward_flops(12, num_logits=12)
        assert row["network_tflops"] == pytest.approx(flops / row["network_ms"] / 1e9)
        assert row["roofline_share"] > 0
        assert math.isfinite(row["compile_s"])
    text = (tmp_path / "table.md").read_text()
    assert text.count("\n") == 2 + len(rows)
    assert (tmp_path / "overhead.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_run_takes_selectors_shrunken_models_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    selectors = "per_step:6,threshold:0.0,entropy_budget:100,binomial:1"
    argv = ["--oracle", "margin", "--temperature", "0", "--selector", selectors, "--layers", "1", "--width", "64"]
    rows = rows_of(tmp_path, *argv, "--block-length", "6")
    assert [row["selector"] for row in rows] == selectors.split(",")
    assert [row["nfe"] for row in rows] == [2, 2, 2, 2], "in two blocks of 6"
    assert {row["model"] for row in rows} == {"sudoku_800k(layers=1, width=64)"}
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert lines == rows, "written as they come"


@pytest.mark.slow
def test_run_takes_batch_sizes_and_prompts_of_different_lengths(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    argv = ["--oracle", "margin", "--temperature", "0", "--selector", "per_step:2", "--layers", "1", "--width", "64"]
    rows = rows_of(tmp_path, *argv, "--batch", "1,3", "--prompt", "2:8")
    assert [(row["batch"], row["nfe"]) for row in rows] == [(1, 5), (3, 5)]
    for row, generated in zip(rows, (10, 10 + 7 + 4), strict=True):
        assert row["tokens_per_s"] == pytest.approx(row["sequences_per_s"] * generated / row["batch"])


@pytest.mark.slow
def test_run_with_all_logits_at_once_needs_the_memory_for_them_and_kept_keys_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    monkeypatch.setattr(confidence, "WHOLE", 0)
    monkeypatch.setattr(confidence, "CHUNK", 4 * 32_000)
    argv = ["--oracle", "margin", "--temperature", "1", "--selector", "top_k:2", "--length", "32"]
    argv += ["--model", "smdm_19m", "--layers", "1", "--width", "64"]
    (part,), (whole,) = (rows_of(tmp_path / name, *argv, "--logits", name) for name in ("open", "all"))
    assert (part["logits"], whole["logits"]) == ("open", "all")
    assert whole["peak_bytes"] - part["peak_bytes"] > 4 * (2 * 32 - 4) * 32_000
    (kept,) = rows_of(tmp_path / "kept", *argv, "--block-length", "16", "--keep", "dual")
    assert (kept["keep"], kept["nfe"]) == ("dual", 4)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("compute", "logits"), [("open", "open"), ("all", "open"), ("open", "all"), ("all", "all")])
@pytest.mark.slow
def test_all_of_the_network_is_computed_and_all_logits_made_if_asked(compute, logits):
    work = workload(Run(model="sudoku_800k", length=12, logits=logits, compute=compute), 1)
    network, nothing = work.bench().denoiser, jnp.zeros(work.x_init.shape, bool)
    every = network.features(work.params, work.x_init)
    got = network.features(work.params, work.x_init, nothing)
    assert isinstance(got, mdm_jax.Features) == (logits == "open")
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(every), jax.tree.leaves(got), strict=True)]
    assert all(same) == (compute == "all")


@pytest.mark.slow
def test_start_times_a_process_with_an_empty_cache_and_one_that_finds_its_programs(tmp_path):
    small = ["--model", "sudoku_800k", "--layers", "1", "--width", "32", "--length", "8", "--dtype", "float32"]
    main("throughput", "", COMMANDS, ["start", *small, "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["cache"] for row in rows] == ["empty", "filled"]
    assert [row["programs_found"] > 0 for row in rows] == [False, True]
    for row in rows:
        assert row["programs_compiled"] == 0, "by a call with another key, temperature and number of steps"
        assert row["process_s"] > row["first_call_s"] > 0 < row["other_call_s"]


def folder_of(path, config):
    """Written as `load` does it."""
    given = {"folder": str(path), "config": to_json(config), "seed": 3, "mask_id": config.num_tokens - 1}
    return loading.time_writing(given), loading.drawn_params(config, 3)


def test_weights_to_load_are_written_a_tensor_at_a_time_and_are_random(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "PERIOD", 10_007)
    config = TransformerConfig(vocab_size=1000, max_length=8, num_layers=16, num_heads=4, width=256, mlp_width=1024)
    config = dataclasses.replace(config, dtype="bfloat16", param_dtype="bfloat16")
    tracemalloc.start()
    try:
        written, drawn = folder_of(tmp_path, config)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written["gigabytes"] * 1e9 == pytest.approx(2 * num_params(config), rel=0.01)
    assert peak < 2 * num_params(config) / 4
    model = mdm_jax.load(tmp_path)
    assert model.task["mask_token_id"] == 999
    for path, leaf in jax.tree.leaves_with_path(model.params):
        wanted = np.asarray(functools.reduce(lambda tree, key: tree[key.key], path, drawn))
        np.testing.assert_array_equal(np.asarray(leaf), wanted)
        if leaf.ndim == 2:
            assert np.std(wanted.astype(np.float32)) == pytest.approx(0.02, rel=0.05)
            assert len(np.unique(wanted.astype(np.float32), axis=0)) == len(wanted), "no two rows are the same"
        else:
            assert (wanted == 1).all(), "the scale of a norm"


def test_weights_of_experts_to_load_are_those_of_each(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "PERIOD", 10_007)
    config = LLADA_MOE.config(dict(FAMILIES["llada_moe"][0]))
    _, drawn = folder_of(tmp_path, config)
    leaf = mdm_jax.load(tmp_path).params["layers_0"]["mlp"]["gate"]["kernel"]
    stack = drawn["layers_0"]["mlp"]["gate"]["kernel"]
    assert leaf.ndim == 3
    np.testing.assert_array_equal(np.asarray(leaf), [np.asarray(stack[i]) for i in range(len(leaf))])
    assert not np.array_equal(leaf[0], leaf[1])


def test_loading_onto_more_devices_than_there_are_is_refused():
    with pytest.raises(InputError, match=r"--fsdp 99 x --tensor 2 are 198 devices, and there are \d"):
        loading.devices_for({"fsdp": 99, "tensor": 2})


def test_load_leaves_alone_what_lies_in_its_folder_even_if_it_fails(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "precious.txt").write_text("kept")

    def failing(name, given, environment=None):
        assert pathlib.Path(given["folder"]).parent == tmp_path
        raise RunError(f"{name} failed")

    monkeypatch.setattr(loading, "_child", failing)
    with pytest.raises(RunError, match="write failed"):
        loading.load(Load(model="sudoku_800k", out=tmp_path))
    assert (tmp_path / "weights" / "precious.txt").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.mark.slow
def test_load_measures_a_cold_folder_in_a_process_of_its_own_and_samples_over_its_shards(tmp_path):
    small = ["--layers", "2", "--width", "64", "--length", "8", "--block-length", "8", "--dtype", "float32"]
    held = np.ones(1 << 30, np.uint8)  # by this process: it must not count
    main("throughput", "", COMMANDS, ["load", *small, "--fsdp", "2", "--tensor", "2", "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    config = Run(model="llada_8b", layers=2, width=64, dtype="float32").config()
    gigabytes = 4 * num_params(config) / 1e9
    assert row["gigabytes"] == pytest.approx(gigabytes, rel=0.01)
    assert row["largest_gb"] == pytest.approx(4 * 64 * config.vocab_size / 1e9)
    assert row["device_gb"] == pytest.approx(gigabytes / 4, rel=0.01), "each of four devices holds a quarter"
    assert row["process_gb"] + gigabytes < row["peak_host_gb"] < held.nbytes / 1e9
    assert row["beyond_gb"] == pytest.approx(row["peak_host_gb"] - row["process_gb"] - gigabytes, abs=1e-3)
    assert row["gb_per_s"] == pytest.approx(row["gigabytes"] / row["load_s"])
    if sys.platform == "linux" and os.major(tmp_path.stat().st_dev):
        assert row["disk_gb"] == pytest.approx(gigabytes, rel=0.2), (
            "nothing was in memory; 0 in a file system of memory"
        )
    assert row["read_gb_per_s_range"][0] <= row["read_gb_per_s"] <= row["read_gb_per_s_range"][1]
    assert row["first_call_s"] > 0 < row["tokens_per_s"]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"], "the weights are deleted"


@pytest.mark.slow
def test_sudoku_models_are_measured_at_the_81_cells_of_a_puzzle():
    assert workload(Run(), 1).x_init.shape == (1, 81)
    assert workload(Run(model="smdm_19m", layers=1), 1).x_init.shape == (1, 1024)


HUGE = str(10**30)


def test_what_cannot_be_measured_is_refused_in_one_line_before_anything_runs(tmp_path):
    out, digits = ["--out", tmp_path / "none"], "9" * 5000
    run = {
        ("--oracle", "best"): "unknown oracle 'best'; choose from random, left_to_right, top_prob, margin",
        ("--oracle", "margin,"): "unknown oracle ''",
        ("--oracle", "no_such_module:f"): "cannot import the oracle 'no_such_module:f'",
        ("--temperature", "cold"): "--temperature takes numbers with commas between them, got 'cold'",
        ("--temperature", "0,nan"): "--temperature must be a number, at least 0",
        ("--temperature", "1e39"): "--temperature must be a number",
        ("--temperature", "-1"): "--temperature must be a number, at least 0",
        ("--prompt", "12"): "--prompt takes NUMBER or LEAST:MOST, below the sequences' 12 tokens; got '12'",
        ("--prompt", "5:3"): "--prompt takes NUMBER or LEAST:MOST",
        ("--prompt", "1:2:3"): "--prompt takes NUMBER or LEAST:MOST",
        ("--prompt", "1,2"): "--prompt takes whole numbers with ':' between them",
        ("--prompt", "few"): "--prompt takes whole numbers",
        ("--prompt", "-1:3"): "--prompt must be a whole number, at least 0",
        ("--batch", "2,0"): "--batch must be a whole number, at least 1 and at most 2147483647; got 0",
        ("--batch", ""): "--batch takes whole numbers",
        ("--batch", "1.5"): "--batch takes whole numbers",
        ("--batch", HUGE): "--batch must be a whole number",
        ("--batch", digits): "--batch takes whole numbers",
        ("--batch", "2147483647"): "--batch 2147483647 times --length 12 must be at most",
        ("--turns", "0"): "--turns must be a whole number, at least 1",
        ("--turns", HUGE): "--turns must be",
        ("--layers", "0"): "--layers must be a whole number, at least 1",
        ("--layers", "-1"): "--layers must be",
        ("--layers", HUGE): "--layers must be",
        ("--width", "0"): "--width must be",
        ("--width", HUGE): "--width must be",
        ("--length", "-1"): "--length must be",
        ("--length", HUGE): "--length must be",
        ("--length", digits): "--length",
        ("--block-length", "0"): "--block-length must be",
        ("--mask-id", "10"): "--mask-id must be below 10, the rows of the embedding; got 10",
        ("--mask-id", "-1"): "--mask-id must be",
        ("--seed", "-1"): "--seed must",
        ("--selector", "top_k:x"): "--selector takes per_step:NUMBER",
        ("--selector", "best"): "--selector takes per_step:NUMBER",
        ("--selector", "top_k:0"): "--selector top_k must be a whole number, at least 1",
        ("--selector", f"margin,top_k:{digits}"): "--selector takes per_step:NUMBER",
        ("--selector", f"per_step:{HUGE}"): "--selector per_step must be",
        ("--selector", "threshold:nan"): "--selector threshold must be a number",
        ("--selector", "entropy_budget:inf"): "--selector entropy_budget must be a number",
        ("--keep", "dual"): "--keep is for decoding in blocks",
        ("--model", "gpt5"): "unknown preset 'gpt5' (there are sudoku_6m,",
        ("--model", str(tmp_path)): "holds no config.json",
    }
    trained = {
        ("--layers", "1"): "--layers and --width shrink presets",
        ("--length", "82"): "--length must be at most 81, the longest that this model takes",
    }
    others = [
        (
            ["run", "--keep", "dual", "--block-length", "9", "--logits", "all"],
            "leave --logits all and --compute all out",
        ),
        (["loop", "--batch", "-1"], "--batch must be"),
        (["loop", "--steps", "0"], "--steps must be"),
        (["loop", "--steps", HUGE], "--steps must be"),
        (["loop", "--turns", "0"], "--turns must be"),
        (["loop", "--loss", "plain,x"], "unknown loss 'x'; choose one of plain, subset,"),
        (["loop", "--length", "0"], "--length must be"),
        (["loop", "--model", "sudoku-6m", "--length", "82"], "--length must be at most 81"),
        (["memory", "--batch", "-1"], "--batch must be"),
        (["shards", "--devices", "1,99"], "--devices asks for 99 devices, and there "),
        (["memory", "--length", HUGE], "--length must be"),
        (["memory", "--model", "gpt5"], "unknown preset 'gpt5'"),
        (["start", "--length", "-1"], "--length must be"),
        (["start", "--batch", "0"], "--batch must be"),
        (["start", "--layers", "0"], "--layers must be"),
        (["start", "--model", "gpt5"], "unknown preset 'gpt5'"),
        (["load", "--fsdp", "0"], "--fsdp must be"),
        (["load", "--tensor", HUGE], "--tensor must be"),
        (["load", "--model", "gpt5"], "unknown preset 'gpt5'"),
        (["load", "--batch", "2147483647", "--length", "2"], "--batch 2147483647 times --length 2 must be at most"),
    ]
    argvs = [(["run", *SMALL, *argv, *out], words) for argv, words in run.items()]
    argvs += [(["run", "--model", "sudoku-6m", *argv, *out], words) for argv, words in trained.items()]
    assert_refused("throughput", argvs + [([*argv, *out], words) for argv, words in others])
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_start_with_weights_that_are_damaged_says_so_in_one_line(tmp_path, capfd):
    config = TransformerConfig(num_layers=1, num_heads=1, width=8, mlp_width=8, vocab_size=4, max_length=4)
    write_config(tmp_path, {"model": config.to_json()})
    path = save_weights(tmp_path, jax.tree.map(lambda leaf: np.zeros(leaf.shape), param_shapes(config)))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\1")
    with pytest.raises(SystemExit) as stop:
        main("throughput", "", COMMANDS, ["start", "--model", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    *_, before, said = capfd.readouterr().err.splitlines()
    assert before.startswith("a process with the cache empty")
    assert said.startswith(f"error: {path} is damaged: ")


def test_shrunken_model_keeps_the_width_of_its_heads():
    config = Run(model="llada_8b", layers=2, width=256).config()
    assert (config.num_layers, config.width, config.num_heads, config.head_width) == (2, 256, 2, 128)
    assert config.vocab_size == presets.get("llada_8b").vocab_size
    assert Run(model="sudoku_6m").config().num_heads == presets.get("sudoku_6m").num_heads


def test_least_time_is_that_of_the_slower_of_the_two():
    roof = roofline.Roofline(flops=100.0, bytes=10.0)
    assert roof.seconds(200, 10) == 2
    assert roof.seconds(100, 50) == 5


@pytest.mark.slow
def test_trained_model_is_measured_with_its_own_parameters_and_config(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    argv = ["--model", "sudoku-6m", "--mask-id", "0", "--batch", "1", "--length", "9", "--turns", "1"]
    argv += ["--oracle", "margin", "--temperature", "0", "--selector", "threshold:0.3"]
    main("throughput", "", COMMANDS, ["run", *argv, "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    model = mdm_jax.load("sudoku-6m")
    x_init, options = np.zeros((1, 9), int), {"selector": mdm_jax.Threshold(0.3), "temperature": 0.0}
    wanted = mdm_jax.sample(model.denoiser, model.params, jax.random.key(0), x_init, mask_id=0, **options)
    assert (row["model"], row["dtype"], row["nfe"]) == ("sudoku-6m", model.config.dtype, wanted.nfe)
    assert row["nfe"] < 9, "random parameters are sure of nothing: they reveal one token a step"


def test_model_that_is_a_preset_and_a_folder_is_the_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = presets.get("smdm_19m")
    write_config(tmp_path / "sudoku_800k", {"model": config.to_json()})
    assert model_called("sudoku_800k") == (presets.get("sudoku_800k"), None)
    assert model_called("./sudoku_800k") == (config, pathlib.Path("sudoku_800k"))
    assert Loop(model="./sudoku_800k").config("bfloat16") == dataclasses.replace(config, dtype="bfloat16")


def test_trained_model_takes_another_dtype_if_asked():
    assert Run(model="sudoku-6m").config() == mdm_jax.load("sudoku-6m").config
    config = Run(model="sudoku-6m", dtype="bfloat16").config()
    assert (config.dtype, config.param_dtype) == ("bfloat16", "bfloat16")
    params = workload(Run(model="sudoku-6m", dtype="bfloat16", mask_id=0), 1).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


def test_given_tokens_are_never_the_mask():
    x_init = np.asarray(workload(Run(model="sudoku_800k", mask_id=0, prompt="40"), 8).x_init)
    assert ((x_init == 0).sum(axis=1) == 41).all()
    assert x_init[:, :40].min() == 1
    assert x_init.max() == 9


@pytest.mark.slow
def test_own_oracle_is_measured(tmp_path, monkeypatch):
    (tmp_path / "my_throughput_orders.py").write_text(
        "def peaked(key, confidence):\n    return confidence.top_prob**2 - confidence.entropy\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    argv = ["--oracle", "my_throughput_orders:peaked", "--temperature", "0", "--selector", "top_k:3", "--layers", "1"]
    (row,) = rows_of(tmp_path, *argv)
    assert (row["oracle"], row["nfe"]) == ("my_throughput_orders:peaked", 3)


@pytest.mark.slow
def test_busy_machine_and_impossible_roofline_are_said_on_the_terminal_in_the_rows_and_in_the_table(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1.0, 1.0))
    argv = ["--oracle", "margin", "--temperature", "0", "--selector", "top_k:2", "--layers", "1", "--dtype", "auto"]
    for load, busy in ((os.cpu_count(), True), (0.0, False)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        (row,) = rows_of(tmp_path, *argv)
        said = capsys.readouterr()
        for text in (row["warning"], said.out, (tmp_path / "table.md").read_text()):
            assert "roofline_share above 1" in text
            assert ("the machine was busy before" in text) == busy
        assert "warning: " in said.out
        assert f"in {row['dtype']}, 12 tokens" in said.err


FIELDS = {"model": "sudoku_6m", "length": 81, "dtype": "float32", "batch": 16, "temperature": 0.0}
OURS = {"nfe": 8, "ms_per_nfe": 35.84, "ms_per_nfe_range": [35.0, 36.0], "network_ms": 39.94, "overhead": -0.0987}
OURS |= {"sequences_per_s": 55.8, "tokens_per_s": 4520.0, "network_tflops": 0.33, "roofline_share": 0.74}
OURS |= {"overhead_range": [-0.11, -0.09], "peak_bytes": 48_000_000, "compile_s": 2.5}
THEIRS = {"nfe": 8, "ms_per_nfe": 81.0, "sequences_per_s": 24.7, "tokens_per_s": 2000.0, "ours_is_faster": 2.258}
SHOWN = report.shows(*report.ON_TERMINAL, what=(*FIELDS, *report.WHAT))


def test_terminal_says_once_what_all_rows_share_and_the_rest_in_the_units_of_the_table():
    rows = [{**FIELDS, "oracle": name, "selector": "top_k:8", **OURS} for name in ("margin", "random")]
    shared, table = SHOWN(rows).split("\n\n")
    assert shared == "model sudoku_6m; length 81; dtype float32; batch 16; temperature 0; selector top_k:8"
    head, _, *lines = table.splitlines()
    assert head.split()[:5] == ["oracle", "ms_per_nfe", "network_ms", "overhead", "nfe"]
    assert [line.split()[:4] for line in lines] == [[n, "35.84", "39.94", "-9.9%"] for n in ("margin", "random")]
    cells = report.markdown(rows).splitlines()[2].split(" | ")
    assert {"35.84", "39.94", "-9.9%"} <= set(cells)


def test_tables_show_how_much_faster_ours_is_where_a_peer_was_compared():
    ours = {**FIELDS, "oracle": "margin", "selector": "top_k:8", **OURS}
    theirs = {**FIELDS, "oracle": "margin", "selector": "top_k:8", "peer": "torch compiled, float32", **THEIRS}
    assert "ours_is_faster" not in report.markdown([ours])
    head, _, *lines = report.markdown([ours, theirs]).splitlines()
    column = head.strip("| ").split(" | ").index("ours_is_faster")
    assert [line.strip("| ").split(" | ")[column] for line in lines] == ["-", "2.258"]
    assert "2.258" in SHOWN([ours, theirs])


def test_terminal_never_exceeds_its_width():
    rows = [
        {
            **FIELDS,
            **OURS,
            "batch": 10**b,
            "oracle": "my.deep.package.with_orders:the_first_of_them"[b:],
            "selector": f"entropy_budget:0.123456789123456789{b}",
            "temperature": 0.123456789 + b,
            "peer": f"torch compiled, float{b}",
            "model": "runs/" + "deep/" * 100,
            "warning": "the machine was busy before: load 1.5 on 2 cores; " * 5,
        }
        for b in range(8)
    ]
    lines = SHOWN(rows).splitlines()
    assert max(map(len, lines)) <= 120
    assert "ms_per_nfe" in SHOWN(rows), "the most important is never left out"


@pytest.mark.slow
def test_loop_and_memory_measure_a_trained_models_network(tmp_path):
    write_config(tmp_path / "run", {"model": tiny(presets.get("sudoku_800k")).to_json()})
    argv = ["--model", str(tmp_path / "run"), "--batch", str(jax.device_count()), "--length", "4"]
    for command, options in (("loop", ["--steps", "2", "--turns", "1"]), ("memory", [])):
        main("throughput", "", COMMANDS, [command, *argv, *options, "--out", str(tmp_path / command)])
        rows = json.loads((tmp_path / command / "results.json").read_text())["rows"]
        assert len(rows) == {"loop": 1, "memory": 6}[command]
        assert {(row["model"], row["dtype"]) for row in rows} == {(argv[1], resolve_dtype("auto"))}


@pytest.mark.slow
def test_loop_times_the_steps_of_losses_beside_the_first(tmp_path):
    write_config(tmp_path / "run", {"model": tiny(presets.get("sudoku_800k")).to_json()})
    losses = ["plain", "aligned", "filled", "quality"]
    argv = ["--model", str(tmp_path / "run"), "--batch", str(jax.device_count()), "--length", "4", "--steps", "2"]
    main(
        "throughput",
        "",
        COMMANDS,
        ["loop", *argv, "--turns", "1", "--loss", ",".join(losses), "--out", str(tmp_path / "out")],
    )
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [row["loss"] for row in rows] == losses
    for row in rows:
        assert row["of_the_first"] == pytest.approx(row["step_ms"] / rows[0]["step_ms"])


@pytest.mark.slow
def test_shards_of_a_sampler_hold_their_share_of_the_parameters(tmp_path):
    config = tiny(presets.get("sudoku_800k"))
    config = dataclasses.replace(config, width=64, mlp_width=512)
    write_config(tmp_path / "run", {"model": config.to_json()})
    argv = ["--model", str(tmp_path / "run"), "--length", "4", "--devices", "1,8", "--out", str(tmp_path / "out")]
    main("throughput", "", COMMANDS, ["shards", *argv])
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    needed = {(row["devices"], row["axis"]): row["argument_bytes"] for row in rows}
    assert list(needed) == [(1, "tensor"), (8, "tensor"), (8, "fsdp")]
    assert needed[1, "tensor"] >= 4 * num_params(config)
    assert max(needed[8, "tensor"], needed[8, "fsdp"]) < needed[1, "tensor"] / 4


@pytest.mark.slow
def test_programs_compile_the_step_and_every_sampler(tmp_path):
    write_config(tmp_path / "run", {"model": tiny(presets.get("sudoku_800k")).to_json()})
    argv = ["--model", str(tmp_path / "run"), "--batch", "2", "--length", "8", "--block-length", "4"]
    main("throughput", "", COMMANDS, ["programs", *argv, "--out", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert len({row["what"] for row in rows}) == len(rows) == 13
    assert all(row["operations"]["while"] for row in rows if "sample" in row["what"])


def test_operations_of_a_program_are_counted():
    x = jax.ShapeDtypeStruct((8,), "float32")
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda i, x: jax.lax.sort(x) - i, x)).lower(x)
    counts = operations(loop.as_text())
    assert (counts["while"], counts["sort"]) == (1, 1)
    assert "scatter" not in counts


def tiny(config):
    return dataclasses.replace(config, num_layers=1, num_heads=1, width=8, mlp_width=8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("preset", ["sudoku_6m", "sudoku_800k", "smdm_19m"])
def test_torch_network_is_ours(preset):
    torch = pytest.importorskip("torch", reason="the comparison is for those who have PyTorch")
    from experiments.throughput.torch_network import Network
    from mdm_jax.models.denoiser import make_denoiser

    work = workload(Run(model=preset, layers=2, length=20, prompt="10", dtype="float32"), 2)
    theirs = Network(work.config, work.params, torch.float32)(torch.tensor(np.asarray(work.x_init), dtype=torch.int64))
    ours = make_denoiser(work.config)(work.params, work.x_init)
    np.testing.assert_allclose(theirs.cpu().numpy(), ours, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("model", ["sudoku_800k", "smdm_19m"])
def test_torch_loops_choose_the_same_tokens(tmp_path, monkeypatch, model):
    pytest.importorskip("torch", reason="the comparison is for those who have PyTorch")
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    rows = rows_of(tmp_path, "--selector", "top_k:5", "--model", model, "--layers", "2", "--compare", "torch")
    theirs = [row for row in rows if "peer" in row]
    assert len(theirs) == 3 * len(rows) / 4
    assert {row.get("same_tokens") for row in theirs if row["oracle"] != "random"} == {1.0}
    assert not any("same_tokens" in row for row in theirs if row["oracle"] == "random")
    assert all(row["ours_is_faster"] > 0 for row in theirs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("keep", [[], ["--keep", "dual"]], ids=["whole", "kept"])
def test_torch_loops_choose_the_same_tokens_in_blocks(tmp_path, monkeypatch, keep):
    pytest.importorskip("torch", reason="the comparison is for those who have PyTorch")
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    flags = ["--selector", "per_step:2", "--model", "smdm_19m", "--layers", "2", "--compare", "torch", *keep]
    rows = rows_of(tmp_path, *flags, "--oracle", "margin,left_to_right", "--block-length", "7")
    assert [row["same_tokens"] for row in rows if "same_tokens" in row] == [1.0] * 12


@pytest.mark.slow
def test_compare_without_pytorch_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import experiments.throughput.torch_peer"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("InputError: --compare torch needs PyTorch: pip install torch")
