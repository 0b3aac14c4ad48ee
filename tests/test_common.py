import ctypes
import dataclasses
import importlib
import json
import logging
import math
import os
import pathlib
import subprocess
import sys
import threading
import typing

import pytest

from experiments.common import Results, check_paths, is_on_cpu, main, table
from experiments.flags import DecodeFlags
from mdm_jax import Binomial, EntropyBudget, InputError, Klass, PerStep, Threshold, TopK, oracles, with_noise
from mdm_jax.ranges import Seed


@pytest.fixture(autouse=True)
def hooks(monkeypatch, tmp_path):
    """`main` sets up its whole process, which here is that of all tests."""
    import absl.logging
    import jax

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    asyncio, verbosity = logging.getLogger("asyncio").level, absl.logging.get_verbosity()
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    yield
    logging.getLogger("asyncio").setLevel(asyncio)
    absl.logging.set_verbosity(verbosity)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


@pytest.mark.parametrize(
    ("flags", "selector"),
    [
        ({}, PerStep(1)),
        ({"tokens_per_step": 3}, PerStep(3)),
        ({"num_steps": 7}, TopK(7)),
        ({"binomial_steps": 7}, Binomial(7)),
        ({"threshold": 0.5}, Threshold(0.5)),
        ({"entropy_budget": 0.1}, EntropyBudget(0.1)),
        ({"klass": 0.8}, Klass(0.8)),
    ],
)
def test_decode_flags_give_the_selector_they_name(flags, selector):
    assert DecodeFlags(**flags).selector() == selector


def test_decode_flags_that_exclude_each_other_are_named():
    with pytest.raises(InputError, match="--tokens-per-step and --threshold exclude each other"):
        DecodeFlags(tokens_per_step=1, threshold=0.5).selector()


def test_decode_flags_unknown_oracle_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown oracle 'best'.*random, left_to_right, top_prob, margin"):
        DecodeFlags(oracle="margin,best").oracles()


def test_decode_flags_noise_perturbs_every_oracle_named():
    found = DecodeFlags(oracle="margin,random", noise=0.1).oracles()
    assert found == {"margin": with_noise(oracles.margin, 0.1), "random": with_noise(oracles.random, 0.1)}


def test_results_leave_out_what_does_not_apply_and_say_where_they_come_from(tmp_path, capsys):
    results = Results("sudoku", "evaluate", out=tmp_path / "deep", seed=3)
    results.add(method="mdm", oracle="margin", solved=0.5, solved_ci=[0.25, 0.75], paper=None)
    results.finish()
    record = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert record["rows"] == [{"method": "mdm", "oracle": "margin", "solved": 0.5, "solved_ci": [0.25, 0.75]}]
    assert {"experiment", "command", "argv", "seed", "device", "jax", "commit", "seconds"} <= record.keys()
    assert (record["experiment"], record["command"], record["seed"]) == ("sudoku", "evaluate", 3)
    assert record["device"] == "cpu"
    assert record["processor"].endswith(f", {os.cpu_count()} cores")
    assert "margin" in capsys.readouterr().out


def test_results_without_a_number_are_null_and_the_file_is_whole(tmp_path, capsys):
    results = Results("sudoku", "evaluate", out=tmp_path, seed=3)
    results.add(method="\x1b[2J mdm", solved=math.nan, solved_ci=[math.inf, 0.5], parts={"a": -math.inf})
    results.finish()
    text = (tmp_path / "results.json").read_text()
    (row,) = json.loads(text, parse_constant=pytest.fail)["rows"]
    assert row == {"method": "\x1b[2J mdm", "solved": None, "solved_ci": [None, 0.5], "parts": {"a": None}}
    assert "\x1b" not in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("place", ["file", "file/deep", "folder"])
def test_results_that_cannot_be_written_are_refused_before_the_work(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "results.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot be made|is a folder"):
        Results("sudoku", "evaluate", out=tmp_path / place, seed=3)


MODULES = ["sudoku", "zebra", "nae_sat", "text", "throughput.__main__", "imbalance", "hardness"]
PLACES = ["gs://bucket/run", "s3://bucket/run", "https://host/a.csv", "GS://b", "/dev/zero", "PIPE"]


@pytest.mark.parametrize("place", PLACES)
def test_flag_that_names_another_place_or_a_pipe_is_refused_by_every_command(tmp_path, monkeypatch, place):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    given = pathlib.Path(place.replace("PIPE", "pipe"))
    for module in MODULES:
        for kind, _ in importlib.import_module(f"experiments.{module}").COMMANDS.values():
            fields = {field.name: field for field in dataclasses.fields(kind)}
            needed = {key: f.default_factory for key, f in fields.items() if f.default is dataclasses.MISSING}
            needed = {key: f() if f is not dataclasses.MISSING else pathlib.Path("x") for key, f in needed.items()}
            for key, hint in typing.get_type_hints(kind).items():
                if pathlib.Path in (hint, *typing.get_args(hint)):
                    value = (given,) if typing.get_origin(hint) is tuple else given
                    with pytest.raises(InputError, match=f"^--{key.replace('_', '-')}: .*(gcsfuse|regular file)"):
                        check_paths(kind(**needed | {key: value}))
    assert os.listdir(tmp_path) == ["pipe"]


def test_table_aligns_columns_and_leaves_gaps_where_a_row_has_no_value():
    lines = table([{"oracle": "margin", "n": 5}, {"oracle": "random", "n": 10, "paper": 0.5}]).splitlines()
    assert lines[0] == "oracle   n  paper"
    assert lines[2:] == ["margin   5", "random  10    0.5"]


def test_table_shows_intervals_and_of_a_long_list_its_length():
    lines = table([{"solved_ci": (0.25, 0.5), "is_solved": list(range(468))}, {"is_solved": []}]).splitlines()
    assert lines[2:] == ["[0.25, 0.5]  [468 values]", "                       []"]


def test_results_print_no_long_list_and_write_all_of_it(tmp_path, capsys):
    results = Results("aligned", "reproduce", out=tmp_path, seed=3)
    results.add(solved=0.936, is_solved=list(range(468)))
    results.finish()
    assert max(map(len, capsys.readouterr().out.splitlines()[:4])) < 40
    assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["is_solved"] == list(range(468))


@dataclasses.dataclass(frozen=True)
class Fails:
    """Fails as asked."""

    defect: bool = False
    seed: Seed = 0


@dataclasses.dataclass(frozen=True)
class Other:
    """Another command."""


def fail(flags):
    raise ZeroDivisionError if flags.defect else InputError("three is\nno crowd")


COMMANDS = {"fail": (Fails, f"{__name__}:fail"), "other": (Other, f"{__name__}:other")}


def test_main_input_error_is_one_line_and_code_two_and_a_defect_keeps_its_traceback(capsys):
    with pytest.raises(SystemExit) as stop:
        main("x", "", COMMANDS, ["fail"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: three is no crowd\n"
    with pytest.raises(ZeroDivisionError):
        main("x", "", COMMANDS, ["fail", "--defect"])
    with pytest.raises(SystemExit) as stop:
        main("x", "", COMMANDS, ["fail", "--seed", "-1"])
    assert stop.value.code == 2
    assert "--seed must be a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["nothing"], ["fail", "--wrong", "1"], ["fail", "--defect", "maybe"]])
def test_main_flags_that_cannot_be_parsed_are_one_line_and_code_two(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main("x", "", COMMANDS, argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "python -m experiments.x --help" in error


@dataclasses.dataclass(frozen=True)
class Needs:
    """Needs what it is given."""

    data: pathlib.Path
    """a folder, of which so much is said here that it takes several lines of the help, and one of them names
    --seed and --out"""
    model: str
    """a name"""
    size: typing.Literal["the smallest of all", "one in the middle", "the largest of all"] = "one in the middle"
    """of it"""


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["needs"], "required: --data, --model"),
        (["needs", "--model", "m"], "required: --data"),
        (["needs", "--bogus", "3"], "required: --data, --model; Unrecognized options: --bogus 3"),
        (["fail", "--bogus"], "Unrecognized options: --bogus"),
        (["needs", "--seed", "1"], "required: --data, --model; Unrecognized options: --seed 1"),
        (["fail", "--seed"], "Missing value for argument '--seed'. Expected 1 values."),
        (["fail", "--seed", "x"], "Error parsing --seed: invalid literal for int() with base 10: 'x'"),
        (["nothing"], "Unrecognized options: nothing; Available subcommands: needs, fail, other"),
        ([], "Expected one of {needs, fail, other}."),
        (
            ["needs", "--size", "3"],
            "invalid choice '3' for argument '--size'. Expected one of "
            "('the smallest of all', 'one in the middle', 'the largest of all').",
        ),
    ],
)
def test_flags_that_cannot_be_parsed_are_named_and_nothing_of_the_box_around_them(
    argv, words, columns, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stop:
        main("x", "", {"needs": (Needs, f"{__name__}:fail")} | COMMANDS, argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {words}; see python -m experiments.x --help\n"


@pytest.mark.parametrize(
    ("module", "argv", "words"),
    [
        ("llada", ["evaluate", "--out", "o"], "required: --task, --data, --model"),
        ("proteins", ["recover", "--out", "o"], "required: --model, --sequences"),
        ("throughput.__main__", ["run", "--bogus"], "Unrecognized options: --bogus"),
    ],
)
def test_missing_and_unknown_flags_of_the_experiments_are_named(module, argv, words, capsys):
    name = module.partition(".")[0]
    with pytest.raises(SystemExit) as stop:
        main(name, "", importlib.import_module(f"experiments.{module}").COMMANDS, argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {words}; see python -m experiments.{name} --help\n"


@pytest.mark.parametrize(
    "command", ["demo", "prepare", "train", "evaluate", "solve", "reproduce", "readings", "export"]
)
def test_help_is_printed_without_importing_jax(command):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['sudoku', '{command}', '--help']\n"
        "try:\n    runpy.run_module('experiments.sudoku', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'jax', 'numpy', 'numba', 'flax'} & sys.modules.keys(), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--seed" in done.stdout
    assert "--out" in done.stdout


@pytest.mark.slow
def test_programs_compiled_once_are_read_from_disk_by_the_next_process(tmp_path):
    program = (
        "from experiments.common import cache_compilations; cache_compilations()\n"
        "import jax, jax.monitoring\n"
        "names = []\n"
        "jax.monitoring.register_event_listener(lambda name, **kw: names.append(name))\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8))).block_until_ready()\n"
        "print(len([name for name in names if 'cache_hits' in name]))"
    )
    default = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    chosen = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "chosen")}
    for variables, folder in ((default, tmp_path / "cache" / "mdm_jax" / "compiled"), (chosen, tmp_path / "chosen")):
        env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"} | variables
        hits = [
            int(subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True).stdout)
            for _ in range(2)
        ]
        assert hits[0] == 0
        assert hits[1] > 0
        assert any(folder.iterdir())


FILL_TWICE = """
import ctypes, resource, sys
from experiments.common import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = libc.malloc(1 << 28)
    ctypes.memset(piece, 1, 1 << 28)
    libc.free(piece)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_cpu_is_all_there_is_unless_a_plugin_or_the_environment_says_otherwise(monkeypatch, tmp_path):
    for platforms, expected in {"cpu": True, "cpu,cuda": True, "cuda,cpu": False, "tpu": False}.items():
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
        assert is_on_cpu() is expected
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "jax_plugins").mkdir()
    importlib.invalidate_caches()
    assert not is_on_cpu()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc gives freed memory back like that")
def test_memory_once_freed_is_not_fetched_from_the_system_again():
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", FILL_TWICE, word], env=env, capture_output=True, check=True).stdout)
        for word in ("leave", "keep")
    )
    assert given_back >= (1 << 28) // (1 << 21), "256 MiB anew, in pages of 2 MiB at the most"
    assert kept < 20
