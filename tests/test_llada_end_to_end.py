"""`python -m experiments.llada` from files to the table, with models that know all answers, none, or are random."""

import json
import shutil
import socket
import subprocess
import sys

import benchmarks
import languages
import pytest
import standin
from commands import ENV, ROOT, assert_refused, rows, run, without_times

from experiments.llada import Evaluate
from experiments.llada_tasks import read_tasks
from mdm_jax.tasks.language.settings import PAPER, TABLE
from mdm_jax.text.tokenizer import read_tokenizer

ALL = ",".join(TABLE)
GENERATED = ("--num-new", 40)
"""Tokens enough for each reference."""
SHARED = ROOT.parent / "shared" / "data"
PLUGIN = ("--plugin", "tests.standin")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return benchmarks.write(tmp_path_factory.mktemp("llada") / "data")


@pytest.fixture(scope="module")
def knowing(tmp_path_factory, data):
    """The folder of a model that knows the reference of every problem."""
    folder = tmp_path_factory.mktemp("knowing")
    languages.write_tokenizer(folder)
    flags = Evaluate(task=ALL, data=data, model="", num_new=40)
    return standin.learn(
        folder, read_tokenizer(folder), read_tasks(flags), mask_id=languages.MASK, pad_id=languages.PAD
    )


@pytest.fixture(scope="module")
def ignorant(tmp_path_factory):
    """The folder of a small Transformer with random weights, that hides no padding and has one token too many."""
    folder = tmp_path_factory.mktemp("ignorant")
    languages.write_tokenizer(folder)
    return languages.write_model(folder, max_length=1024, pad_id=None, num_extra_tokens=1)


def evaluate(model, data, out, *flags, **options):
    return run("llada", "evaluate", "--model", model, "--data", data, "--out", out, *flags, **options)


FEW_PROGRAMS = ("--batch-size", 2, "--block-length", 8)
"""Tasks of like length share what is compiled."""


@pytest.mark.parametrize(
    ("tasks", "flags"),
    [
        ("humaneval-single,gsm8k-instruct,mmlu,rocstories", ("--oracle", "margin", *FEW_PROGRAMS)),
        pytest.param(ALL, ("--oracle", "random,margin", "--batch-size", 2), marks=pytest.mark.slow),
    ],
    ids=["quick", "all"],
)
def test_model_that_knows_the_answers_is_right_everywhere(tmp_path, knowing, data, tasks, flags):
    done = evaluate(knowing, data, tmp_path, "--task", tasks, *flags, *GENERATED, *PLUGIN)
    found = {(row["dataset"], row["oracle"]): row for row in rows(tmp_path)}
    assert list(found) == [
        (name, order)
        for name in tasks.split(",")
        for order in (("likelihood",) if name == "mmlu" else flags[1].split(","))
    ]
    for (name, order), row in found.items():
        assert row["score"] == 1, row
        assert row["score_ci"][1] == 1
        is_papers = TABLE[name].num_new is None and "--block-length" not in flags
        assert row.get("paper") == (PAPER.get(TABLE[name].column, {}).get(order) if is_papers else None)
        assert "too_long" not in row
    table = [line.split() for line in done.stdout.splitlines() if line.startswith("humaneval-single")]
    assert table[-1][:3] == ["humaneval-single", "margin", "1"]
    answers = (tmp_path / "answers" / "humaneval-single-margin" / "000000.jsonl").read_text().splitlines()
    first = json.loads(answers[0])
    assert 0 < first.pop("nfe") < 40
    assert first == {"number": 0, "score": 1.0, "why": "passed", "text": "    total = x + y\n", "too_long": False}
    again = ["evaluate", "--model", knowing, "--data", data, "--out", tmp_path, "--task", tasks, "--seed", 1, *flags]
    assert_refused("llada", [([*again, *GENERATED, *PLUGIN], "is of a run with other seed")])


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the files in shared/data are not there")
def test_published_files_go_the_whole_way_with_the_settings_of_the_table(tmp_path):
    tasks, few = "humaneval-single,humaneval-multi,humaneval-span-light,humaneval,gsm8k,math,mmlu", 3
    languages.write_tokenizer(tmp_path)
    asked = read_tasks(Evaluate(task=tasks, data=SHARED, model=""), few)
    standin.learn(tmp_path, read_tokenizer(tmp_path), asked, mask_id=languages.MASK, pad_id=languages.PAD)
    evaluate(tmp_path, SHARED, tmp_path / "out", "--task", tasks, "--oracle", "margin", "--limit", few, *PLUGIN)
    assert [(row["dataset"], row["n"], row["score"]) for row in rows(tmp_path / "out")] == [
        (name, few, 1) for name in tasks.split(",")
    ]
    papers = {row["dataset"]: row.get("paper") for row in rows(tmp_path / "out")}
    assert papers == {name: PAPER.get(TABLE[name].column, {}).get("margin") for name in tasks.split(",")}


@pytest.mark.slow
def test_model_that_knows_nothing_is_wrong_about_everywhere(tmp_path, ignorant, data):
    tasks = "humaneval-single,gsm8k-instruct,rocstories"
    evaluate(ignorant, data, tmp_path, "--task", tasks, "--oracle", "margin", *GENERATED, *FEW_PROGRAMS)
    found = {row["dataset"]: row["score"] for row in rows(tmp_path)}
    assert found.pop("rocstories") < 0.1
    assert found == dict.fromkeys(tasks.split(",")[:-1], 0)


@pytest.mark.slow
def test_result_depends_on_no_cut_into_parts_and_an_unfinished_run_goes_on(tmp_path, ignorant, data):
    flags = ("--task", "humaneval-single", "--oracle", "random", "--temperature", 1.0, "--batch-size", 3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evaluate(ignorant, data, whole, *flags)
    evaluate(ignorant, data, parts, *flags, "--save-every", 3, "--limit", 4)
    folder = parts / "answers" / "humaneval-single-random"
    first = (folder / "000000.jsonl").read_text()
    shutil.rmtree(parts / "answers")
    evaluate(ignorant, data, parts, *flags, "--save-every", 3)
    assert sorted(path.name for path in folder.iterdir()) == ["000003.jsonl"], "the first is not redone"
    text = first + (folder / "000003.jsonl").read_text()
    expected = (whole / "answers" / "humaneval-single-random" / "000000.jsonl").read_text()
    assert texts(text) == texts(expected)
    assert without_nfe(rows(parts)) == without_nfe(rows(whole))
    again = evaluate(ignorant, data, parts, *flags, "--save-every", 3)
    assert "s; written to" in again.stdout
    with (parts / "units.jsonl").open("a") as file:
        file.write('{"unit": "humaneval-si')  # killed while it wrote
    evaluate(ignorant, data, parts, *flags, "--save-every", 3)
    assert without_nfe(rows(parts)) == without_nfe(rows(whole))


def texts(lines):
    return [json.loads(line)["text"] for line in lines.splitlines()]


def without_nfe(found):
    """Rows without what depends on how problems share batches."""
    return [{name: value for name, value in row.items() if name != "nfe"} for row in without_times(found)]


@pytest.mark.slow
def test_problem_that_is_too_long_for_the_model_counts_as_wrong(tmp_path, data):
    folder = tmp_path / "short"
    folder.mkdir()
    languages.write_tokenizer(folder)
    languages.write_model(folder, max_length=80)
    evaluate(folder, data, tmp_path, "--task", "humaneval-single,mmlu", "--oracle", "margin")
    found = {row["dataset"]: row for row in rows(tmp_path)}
    assert found["humaneval-single"]["n"] == 6
    assert 0 < found["humaneval-single"]["too_long"] < 6
    assert found["mmlu"]["too_long"] == found["mmlu"]["n"] == 3
    assert found["mmlu"]["score"] == 0


@pytest.mark.slow
def test_mmlu_takes_the_likeliest_letter_of_a_random_model(tmp_path, ignorant, data):
    evaluate(ignorant, data, tmp_path, "--task", "mmlu", "--shots", 1)
    lines = (tmp_path / "answers" / "mmlu-likelihood" / "000000.jsonl").read_text().splitlines()
    assert all(json.loads(line)["text"] in (" A", " B", " C", " D") for line in lines)
    assert len(lines) == 3


def test_show_prints_what_is_asked_with_the_hole_in_brackets(tmp_path, data):
    done = run(
        "llada",
        "show",
        "--task",
        "humaneval-single,math-instruct,gsm8k",
        "--data",
        data,
        "--number",
        1,
        "--out",
        tmp_path,
    )
    assert "    total = x + y\n⟦    return total\n⟧\n--- a right answer\n    return total\n" in done.stdout
    assert "Question: Tom has 3 apples and eats one. How many?\nAnswer:\n--- a right answer\n He has" in done.stdout
    assert [(row["dataset"], row["problems"]) for row in rows(tmp_path)] == [
        ("humaneval-single", 6),
        ("math-instruct", 2),
        ("gsm8k", 2),
    ]
    assert all("source" in row for row in rows(tmp_path))
    assert [rows(tmp_path)[1][name] for name in ("num_new", "block_length")] == [512, 64]
    assert rows(tmp_path)[2]["shots"] == 5


def test_file_of_one_task_is_found_with_the_examples_beside_it(tmp_path, data):
    run("llada", "show", "--task", "gsm8k", "--data", data / "gsm8k-test.jsonl", "--out", tmp_path)


def test_bad_input_is_refused_in_one_line(tmp_path, data, ignorant):
    causal = tmp_path / "causal"
    causal.mkdir()
    languages.write_tokenizer(causal)
    languages.write_model(causal, causal=True)
    bare, few = tmp_path / "bare", tmp_path / "few"
    languages.write_model(bare)
    few.mkdir()
    languages.write_tokenizer(few)
    languages.write_model(few, vocab_size=200)
    here = ("--out", tmp_path / "out", "--model", ignorant)
    single = ("evaluate", *here, "--task", "humaneval-single", "--data", data)
    assert_refused(
        "llada",
        [
            (
                ("evaluate", *here, "--task", "humaneval-triple", "--data", data),
                "unknown task 'humaneval-triple'; choose",
            ),
            (("evaluate", *here, "--task", "mmlu", "--data", tmp_path), "holds no mmlu-test.jsonl.gz or"),
            (("evaluate", *here, "--task", "mmlu", "--data", tmp_path / "none"), "No such file"),
            (("evaluate", *here, "--task", "mmlu,math", "--data", data / "math-test.jsonl.gz"), "give a folder"),
            (("evaluate", *here, "--task", "mmlu", "--data", data / "gsm8k-test.jsonl"), "has no subject"),
            ((*single, "--oracle", "best"), "unknown oracle 'best'"),
            ((*single, "--model", tmp_path / "none"), "there is no folder"),
            ((*single, "--model", causal), "is a causal model"),
            ((*single, "--model", bare), "tokenizer.json"),
            ((*single, "--model", few), "it is the tokenizer of another model"),
            ((*single, "--mask-id", 5000), "mask_id"),
            ((*single, "--limit", 0), "--limit must be a whole number, at least 1"),
            ((*single, "--fsdp", 3), "--fsdp 3 x --tensor 1 are 3 devices, and there are 1"),
            ((*single, "--temperature", -1), "--temperature"),
            (
                ("show", "--task", "gsm8k", "--data", data, "--number", 2, "--out", tmp_path),
                "is none of the 2 problems",
            ),
        ],
    )


def started(number, coordinator, *flags):
    """A process of a run of two."""
    together = ("--distributed.coordinator", coordinator, "--distributed.num-processes", "2")
    together += ("--distributed.process-id", str(number), "--distributed.heartbeat", "10")
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.llada", "evaluate", *map(str, flags), *together],
        cwd=ROOT,
        env=ENV | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_two(*flags, other=()):
    """Exit code and what it wrote, stdout and stderr, of each of two processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [started(0, coordinator, *flags), started(1, coordinator, *flags, *other)]
    ends = [process.communicate(timeout=120) for process in pair]
    return [(process.returncode, *said) for process, said in zip(pair, ends, strict=True)]


@pytest.mark.slow
def test_two_processes_take_half_of_the_problems_each_and_give_the_table_of_one(tmp_path, ignorant, data):
    flags = ("--model", ignorant, "--data", data, "--task", "humaneval-single", "--oracle", "random")
    flags += ("--temperature", 1.0, "--batch-size", 3)
    (code, table, _), (other, nothing, _) = run_two(*flags, "--out", tmp_path / "two")
    assert (code, other) == (0, 0)
    assert "humaneval-single" in table
    assert "humaneval-single" not in nothing
    run("llada", "evaluate", *flags, "--out", tmp_path / "one")
    assert without_nfe(rows(tmp_path / "two")) == without_nfe(rows(tmp_path / "one"))
    lines = [(tmp_path / name / "answers/humaneval-single-random/000000.jsonl").read_text() for name in ("two", "one")]
    assert texts(lines[0]) == texts(lines[1])


@pytest.mark.slow
def test_two_processes_with_different_flags_both_say_so(tmp_path, ignorant, data):
    flags = ("--model", ignorant, "--data", data, "--task", "humaneval-single", "--out", tmp_path)
    for code, _, said in run_two(*flags, other=("--limit", 2)):
        assert code == 2
        assert "error: the processes of this run have different flags or data" in said
