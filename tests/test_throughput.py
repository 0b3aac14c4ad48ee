"""The benchmark: what its rows say, at sizes that take seconds. No time is tested."""

import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import assert_refused

from experiments.common import main
from experiments.throughput import roofline
from experiments.throughput.__main__ import COMMANDS
from experiments.throughput.flags import Run
from experiments.throughput.workload import cases, workload
from mdm_jax import confidence
from mdm_jax.models import presets
from mdm_jax.models.denoiser import TransformerDenoiser
from mdm_jax.oracles import ORACLES

ROOT = pathlib.Path(__file__).parents[1]
SMALL = ["--model", "sudoku_800k", "--batch", "2", "--length", "12", "--turns", "2", "--dtype", "float32"]


def rows_of(out, *argv):
    caching = jax.config.jax_enable_compilation_cache
    main("throughput", "", COMMANDS, ["run", *SMALL, *argv, "--out", str(out)])
    jax.config.update("jax_enable_compilation_cache", caching)
    return json.loads((out / "results.json").read_text())["rows"]


def test_run_measures_every_oracle_at_both_temperatures(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    rows = rows_of(tmp_path, "--selector", "top_k:3", "--prompt", "2", "--compute", "all")
    assert [(row["oracle"], row["temperature"]) for row in rows] == [(name, t) for name in ORACLES for t in (0, 1)]
    for row in rows:
        assert (row["model"], row["batch"], row["length"], row["nfe"]) == ("sudoku_800k", 2, 12, 3)
        assert (row["selector"], row["dtype"], row["compute"]) == ("top_k:3", "float32", "all")
        assert "peer" not in row
        assert row["tokens_per_s"] == pytest.approx(10 * row["sequences_per_s"]), "the prompt never counts"
        assert row["sequences_per_s"] == pytest.approx(2 / (3 * row["ms_per_nfe"] / 1000))
        for name in ("overhead", "ms_per_nfe"):
            low, high = row[f"{name}_range"]
            assert low <= row[name] <= high
        assert row["peak_bytes"] > 4 * 800_000, "the parameters at least"
        flops = 2 * presets.get("sudoku_800k").forward_flops(12, num_logits=12)
        assert row["network_tflops"] == pytest.approx(flops / row["network_ms"] / 1e9)
        assert row["roofline_share"] > 0
        assert math.isfinite(row["compile_s"])
    text = (tmp_path / "table.md").read_text()
    assert text.count("\n") == 2 + len(rows)
    assert (tmp_path / "overhead.png").read_bytes().startswith(b"\x89PNG")


def test_run_takes_selectors_shrunken_models_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    selectors = "per_step:4,per_step:6,top_k:3,threshold:0.0,entropy_budget:100,binomial:1"
    argv = ["--oracle", "margin", "--temperature", "0", "--selector", selectors, "--layers", "1", "--width", "64"]
    rows = rows_of(tmp_path, *argv, "--block-length", "6")
    assert [row["selector"] for row in rows] == selectors.split(",")
    assert [row["nfe"] for row in rows] == [4, 2, 6, 2, 2, 2], "in two blocks of 6"
    assert {row["model"] for row in rows} == {"sudoku_800k(layers=1, width=64)"}
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert lines == rows, "written as they come"


def test_run_takes_batch_sizes_and_prompts_of_different_lengths(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    argv = ["--oracle", "margin", "--temperature", "0", "--selector", "per_step:2", "--layers", "1", "--width", "64"]
    rows = rows_of(tmp_path, *argv, "--batch", "1,3", "--prompt", "2:8")
    assert [(row["batch"], row["nfe"]) for row in rows] == [(1, 5), (3, 5)]
    for row, generated in zip(rows, (10, 10 + 7 + 4), strict=True):
        assert row["tokens_per_s"] == pytest.approx(row["sequences_per_s"] * generated / row["batch"])


def test_run_with_all_logits_at_once_needs_the_memory_for_them_and_kept_keys_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtype: roofline.Roofline(1e12, 1e10))
    monkeypatch.setattr(confidence, "WHOLE", 0)
    monkeypatch.setattr(confidence, "TILE", 4 * 32_000)
    argv = ["--oracle", "margin", "--temperature", "1", "--selector", "top_k:2", "--length", "32"]
    argv += ["--model", "smdm_19m", "--layers", "1", "--width", "64"]
    (part,), (whole,) = (rows_of(tmp_path / name, *argv, "--logits", name) for name in ("open", "all"))
    assert (part["logits"], whole["logits"]) == ("open", "all")
    assert whole["peak_bytes"] - part["peak_bytes"] > 4 * (2 * 32 - 4) * 32_000
    (kept,) = rows_of(tmp_path / "kept", *argv, "--block-length", "16", "--keep", "dual")
    assert (kept["keep"], kept["nfe"]) == ("dual", 4)


def test_all_of_the_network_is_computed_if_asked(monkeypatch):
    config = workload(Run(model="sudoku_800k", length=12), 1).config
    whole = []
    monkeypatch.setattr(TransformerDenoiser, "__call__", lambda *args: whole.append(1) or TransformerDenoiser.at(*args))
    monkeypatch.setattr(TransformerDenoiser, "at", lambda self, *args, ways=1: jnp.zeros((1, 12, config.vocab_size)))
    (case,) = cases(Run(oracle="margin", temperature="0", selector="top_k:2"))
    for compute in ("open", "all"):
        work = workload(Run(model="sudoku_800k", length=12, logits="all", compute=compute), 1)
        work.bench().sampled(case, work.params, jax.random.key(0), work.x_init)
        assert bool(whole) == (compute == "all")


def test_start_times_a_process_with_an_empty_cache_and_one_that_finds_its_programs(tmp_path):
    small = ["--model", "sudoku_800k", "--layers", "1", "--width", "32", "--length", "8", "--dtype", "float32"]
    main("throughput", "", COMMANDS, ["start", *small, "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["cache"] for row in rows] == ["empty", "filled"]
    assert [row["programs_found"] > 0 for row in rows] == [False, True]
    for row in rows:
        assert row["programs_compiled"] == 0, "by a call with another key, temperature and number of steps"
        assert row["process_s"] > row["first_call_s"] > 0 < row["other_call_s"]


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
        (["loop", "--batch", "-1"], "--batch must be"),
        (["loop", "--steps", "0"], "--steps must be"),
        (["loop", "--steps", HUGE], "--steps must be"),
        (["loop", "--turns", "0"], "--turns must be"),
        (["loop", "--length", "0"], "--length must be"),
        (["loop", "--model", "sudoku-6m", "--length", "82"], "--length must be at most 81"),
        (["memory", "--batch", "-1"], "--batch must be"),
        (["memory", "--length", HUGE], "--length must be"),
        (["memory", "--model", "gpt5"], "unknown preset 'gpt5'"),
        (["start", "--length", "-1"], "--length must be"),
        (["start", "--batch", "0"], "--batch must be"),
        (["start", "--layers", "0"], "--layers must be"),
        (["start", "--model", "gpt5"], "unknown preset 'gpt5'"),
    ]
    argvs = [(["run", *SMALL, *argv, *out], words) for argv, words in run.items()]
    argvs += [(["run", "--model", "sudoku-6m", *argv, *out], words) for argv, words in trained.items()]
    assert_refused("throughput", argvs + [([*argv, *out], words) for argv, words in others])
    assert not (tmp_path / "none").exists()


def test_shrunken_model_keeps_the_width_of_its_heads():
    config = Run(model="llada_8b", layers=2, width=256).config()
    assert (config.num_layers, config.width, config.num_heads, config.head_width) == (2, 256, 2, 128)
    assert config.vocab_size == presets.get("llada_8b").vocab_size
    assert Run(model="sudoku_6m").config().num_heads == presets.get("sudoku_6m").num_heads


def test_least_time_is_that_of_the_slower_of_the_two():
    roof = roofline.Roofline(flops=100.0, bytes=10.0)
    assert roof.seconds(200, 10) == 2
    assert roof.seconds(100, 50) == 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("preset", ["sudoku_6m", "sudoku_800k", "smdm_19m"])
def test_torch_network_is_ours(preset):
    torch = pytest.importorskip("torch", reason="the comparison is for those who have PyTorch")
    from experiments.throughput.torch_peer import Network
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


def test_compare_without_pytorch_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import experiments.throughput.torch_peer"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("InputError: --compare torch needs PyTorch: pip install torch")
