"""Numbers that make no sense are refused by the name of their flag, before anything runs; what flags make of others."""

import commands
import pytest

from experiments import flags as shared
from experiments.flags import DecodeFlags, RunFlags, resolve_dtype
from mdm_jax.errors import InputError
from mdm_jax.ranges import check_ranges
from mdm_jax.training.loop import LoopConfig
from mdm_jax.training.state import OptimizerConfig

HUGE = str(10**30)
TRAIN = [
    ("--beta1", "1"),
    ("--beta2", "1.0"),
    ("--weight-decay", "nan"),
    ("--weight-decay", "-100"),
    ("--learning-rate", "inf"),
    ("--learning-rate", "0"),
    ("--final-fraction", "2"),
    ("--clip-norm", "0"),
    ("--clip-norm", "-1"),
    ("--ema-decay", "1"),
    ("--dropout", "1"),
    ("--steps", "0"),
    ("--steps", HUGE),
    ("--warmup-steps", "-1"),
    ("--batch-size", HUGE),
    ("--accumulate", "0"),
    ("--checkpoint-every", "0"),
    ("--log-every", "0"),
    ("--keep", HUGE),
    ("--max-skipped", "0"),
    ("--evaluate-limit", "0"),
    ("--num-train", HUGE),
    ("--num-test", HUGE),
    ("--mesh.fsdp", "0"),
    ("--mesh.data", "-2"),
    ("--distributed.timeout", "nan"),
    ("--distributed.heartbeat", "0"),
    ("--distributed.num-processes", "0"),
]
DECODE = [
    ("--limit", "0"),
    ("--limit", HUGE),
    ("--batch-size", "0"),
    ("--noise", "nan"),
    ("--threshold", "nan"),
    ("--temperature", "1e39"),
    ("--temperature", "-1"),
    ("--entropy-budget", "-1"),
    ("--tokens-per-step", "0"),
    ("--num-steps", HUGE),
    ("--remask-steps", "0"),
    ("--binomial-steps", "0"),
    ("--block-length", HUGE),
]
OTHERS = {
    "sudoku": [
        ("reproduce", "--minutes", "-1"),
        ("reproduce", "--minutes", "nan"),
        ("reproduce", "--limit", "0"),
        ("demo", "--limit", "0"),
        ("demo", "--limit-9x9", "0"),
        ("demo", "--steps", "0"),
        ("readings", "--noise", "nan"),
        ("readings", "--num-steps", "0"),
    ],
    "zebra": [("reproduce", "--minutes", "inf"), ("solve", "--limit", "0")],
    "nae_sat": [("reproduce", "--minutes", "-1"), ("exact", "--limit", HUGE), ("exact", "--num-latents", "0")],
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("experiment", OTHERS)
def test_number_out_of_its_range_is_refused_by_name(experiment, tmp_path):
    decode = [(("--checkpoint", tmp_path, flag, value), flag) for flag, value in DECODE]
    cases = [("evaluate", *argv, "--out", tmp_path / "out") for argv, _ in decode]
    cases += [("train", flag, value, "--out", tmp_path / "out") for flag, value in TRAIN]
    cases += [(*argv, "--out", tmp_path / "out") for argv in OTHERS[experiment]]
    commands.assert_refused(experiment, [(argv, f"error: {argv[-4]} must be a ") for argv in cases])
    assert not (tmp_path / "out").exists()


def test_batch_larger_than_the_data_is_refused_before_its_rows_are_listed(tmp_path):
    argv = ["train", "--num-train", "1000", "--data", tmp_path, "--batch-size", "1000000000", "--out", tmp_path / "out"]
    commands.assert_refused("sudoku", [(argv, "--batch-size 1000000000 is more than there is to train on, 1000")])


def test_run_flags_reach_the_optimizer_and_the_loop():
    flags = RunFlags(steps=50, beta1=0.5, beta2=0.6, clip_norm=3.0, ema_decay=0.7, log_every=7, keep=5, seed=9)
    assert flags.optimizer_config() == OptimizerConfig(
        num_steps=50, warmup_steps=5, beta1=0.5, beta2=0.6, clip_norm=3.0, ema_decay=0.7
    )
    assert flags.loop() == LoopConfig(checkpoint_every=500, log_every=7, keep=5, seed=9)


def test_threshold_and_budget_may_be_infinite():
    check_ranges(DecodeFlags(threshold=float("inf")))
    check_ranges(DecodeFlags(threshold=float("-inf"), entropy_budget=float("inf")))
    with pytest.raises(InputError):
        check_ranges(DecodeFlags(entropy_budget=float("nan")))


@pytest.mark.parametrize(
    ("backend", "units", "dtype"),
    [
        ("gpu", "", "bfloat16"),
        ("cpu", "flags : fma avx2 avx512f", "float32"),
        ("cpu", "flags : avx512f avx512_bf16", "bfloat16"),
        ("cpu", "flags : amx_bf16 amx_tile", "bfloat16"),
    ],
)
def test_dtype_auto_is_bfloat16_where_there_are_units_for_it(monkeypatch, tmp_path, backend, units, dtype):
    (tmp_path / "cpuinfo").write_text(units)
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    monkeypatch.setattr(shared, "CPU", tmp_path / "cpuinfo")
    assert resolve_dtype("auto") == dtype
    assert resolve_dtype("float32") == "float32"
    monkeypatch.setattr(shared, "CPU", tmp_path / "absent")
    assert resolve_dtype("auto") == ("bfloat16" if backend == "gpu" else "float32")
