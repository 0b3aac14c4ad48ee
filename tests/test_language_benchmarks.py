"""Benchmarks: what they read, how they ask, and what they call right."""

import csv
import gzip
import json
import pathlib

import benchmarks
import pytest

from mdm_jax.errors import InputError
from mdm_jax.tasks.language.benchmark import Hole, Score
from mdm_jax.tasks.language.competition_math import CompetitionMath
from mdm_jax.tasks.language.gsm8k import GSM8K
from mdm_jax.tasks.language.human_eval import HumanEval, Infilling
from mdm_jax.tasks.language.mmlu import MMLU
from mdm_jax.tasks.language.roc_stories import RocStories
from mdm_jax.tasks.language.rouge import rouge
from mdm_jax.tasks.language.settings import PAPER, TABLE, settings_of

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return benchmarks.write(tmp_path_factory.mktemp("data") / "files")


def test_infilling_shows_both_sides_and_runs_all_three(folder):
    task = Infilling()
    problems = task.read(folder / "HumanEval-SingleLineInfilling.jsonl.gz")
    assert len(problems) == 6
    prompt = task.prompt(problems[0], (), 0)
    assert prompt[1:] == [Hole("    total = x + y\n"), "    return total\n"]
    assert prompt[0].endswith('    """\n')
    assert task.prompt(problems[1], (), 0)[1:] == [Hole("    return total\n")], "nothing stands behind the last line"
    for problem in problems:
        assert task.score(problem, task.reference(problem)) == Score(1.0, "passed")
    assert task.score(problems[0], "    total = x - y\n") == Score(0.0, "AssertionError")
    assert task.score(problems[0], "    total = x +\n").why.startswith("SyntaxError")
    assert task.score(problems[0], "").why.startswith("NameError")
    assert task.score(problems[0], "    import os; os._exit(0)\n") == Score(0.0, "left with code 0")


def test_human_eval_continues_a_function(folder):
    task = HumanEval()
    [problem, *_] = task.read(folder / "HumanEval.jsonl.gz")
    assert task.prompt(problem, (), 0) == 'def add(x, y):\n    """ Adds.\n    >>> add(2, 3)\n    5\n    """\n'
    assert task.score(problem, "    return x + y").value == 1
    assert task.score(problem, "    return 5").value == 1, "the tests say so"
    assert task.score(problem, "    return 6").value == 0


def test_gsm8k_shows_the_first_examples_of_the_training_file(folder):
    task = GSM8K()
    problems, shots = (task.read(folder / f"gsm8k-{split}.jsonl") for split in ("test", "train"))
    assert task.prompt(problems[0], shots, 1) == (
        "Question: Tom has 3 apples and eats one. How many?\nAnswer: He has 3-1 = <<3-1=2>>2.\n#### 2\n\n"
        "Question: Two hens lay 600 eggs each. How many?\nAnswer:"
    )
    [message] = GSM8K(chat=True).prompt(problems[0], shots, 1)
    assert message["role"] == "user"
    assert message["content"].startswith("Two hens lay 600 eggs each. How many?\nPlease reason step by step")


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (" They lay 1200.\n#### 1,200", 1),
        (" #### 1200\n\n", 1),
        (" #### $1200", 1),
        (" So it is \\boxed{1200}.", 1),
        (" 2 times 600 is 1200 eggs", 1),
        (" They lay 1200.\n#### 12", 0),
        (" ", 0),
        ("####", 0),
    ],
)
def test_gsm8k_reads_the_number_that_an_answer_comes_to(folder, answer, value):
    [problem, _] = GSM8K().read(folder / "gsm8k-test.jsonl")
    assert GSM8K().score(problem, answer).value == value


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (r" It is $\boxed{\frac{1}{2}}$.", 1),
        (r" It is $\boxed{\dfrac12}$.", 1),
        ("\nFinal Answer: The final answer is $0.5$. I hope it is correct.", 1),
        (r" $\frac{2}{4}$", 1),
        (r" It is $\boxed{2}$.", 0),
        ("\nFinal Answer: The final answer is $5$. I hope it is correct.", 0),
        ("", 0),
        (r" $9^{9^{9^{9}}}", 0),
    ],
)
def test_math_compares_what_answers_are_worth(folder, answer, value):
    problem = CompetitionMath().read(folder / "math-test.jsonl.gz")[1]
    assert CompetitionMath().score(problem, answer).value == value


def test_math_has_four_fixed_examples_and_reads_folders_of_problems(folder, tmp_path):
    task = CompetitionMath()
    problem = task.read(folder / "math-test.jsonl.gz")[0]
    prompt = task.prompt(problem, (), 4)
    assert prompt.count("Problem:\n") == 5
    assert prompt.count("I hope it is correct.\n\n") == 4
    assert prompt.endswith("Problem:\nWhat is $1 + 1$?\n\nSolution:")
    for number, record in enumerate(benchmarks.MATH):
        (tmp_path / f"kind{number}").mkdir()
        (tmp_path / f"kind{number}" / "1.json").write_text(json.dumps(record))
    assert task.read(tmp_path) == task.read(folder / "math-test.jsonl.gz")


def test_math_has_four_examples_and_no_more():
    prompt = CompetitionMath().prompt(benchmarks.MATH[0], (), 4)
    assert prompt.count("Problem:") == 5
    with pytest.raises(InputError, match=r"5 examples asked for, and there are 4 for MATH: give --shots of at most"):
        CompetitionMath().prompt(benchmarks.MATH[0], (), 5)


def test_mmlu_asks_by_subject_and_reads_tables_of_subjects(folder, tmp_path):
    task = MMLU()
    problems = task.read(folder / "mmlu-test.jsonl.gz")
    assert task.prompt(problems[1], problems, 1) == (
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
        "Up is?\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nDown is?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    )
    assert task.prompt(problems[2], problems[:2], 0).count("Answer:") == 1
    with pytest.raises(InputError, match="1 examples asked for, and there are 0 of the subject law"):
        task.prompt(problems[2], problems[:2], 1)
    assert [task.score(problems[0], letter).value for letter in task.choices(problems[0])] == [0, 0, 1, 0]
    for subject in ("high_school_physics", "law"):
        with (tmp_path / f"{subject}_test.csv").open("w", newline="") as file:
            own = [problem for problem in problems if problem["subject"] == subject]
            csv.writer(file).writerows([p["question"], *p["choices"], p["answer"]] for p in own)
    assert task.read(tmp_path) == problems


def test_mmlu_as_a_conversation_ends_with_the_question(folder):
    task = MMLU(chat=True)
    problems = task.read(folder / "mmlu-test.jsonl.gz")
    turns = task.prompt(problems[1], problems, 1)
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == "C\n"
    assert turns[2]["content"].endswith("Down is?\nA. a\nB. b\nC. c\nD. d\nAnswer: ")
    assert not task.choices(problems[1])
    assert [task.score(problems[1], text).value for text in ("A", " A.", "the B", "", "C A")] == [1, 1, 0, 0, 0]


def test_roc_stories_hide_the_third_sentence_in_both_published_tables(folder, tmp_path):
    task = RocStories()
    problems = task.read(folder / "rocstories.csv")
    assert task.prompt(problems[0], (), 0) == (
        "Tom had a cat. It ran off.",
        Hole(" He looked for it all day."),
        " It was on a mat. Tom was glad.",
    )
    path = tmp_path / "cloze.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        names = [f"InputSentence{i}" for i in range(1, 5)]
        rows.writerow(
            ["InputStoryid", *names, "RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"]
        )
        rows.writerows(["id", *story[:4], "It rained.", story[4], "2"] for story in benchmarks.STORIES)
    assert task.read(path) == problems
    assert task.score(problems[0], task.reference(problems[0])).value == 1
    assert 0 < task.score(problems[0], " He looked at it.").value < 1


def test_rouge_is_as_counted_by_hand():
    # "the cat sat" and "the dog sat down": two words of three and four; no pair; a subsequence of two.
    assert rouge("The cat sat.", "the dog sat down") == pytest.approx((4 / 7, 0, 4 / 7))
    assert rouge("a b c d", "a c b d") == pytest.approx((1, 0, 3 / 4))
    assert rouge("a a b", "a b b") == pytest.approx((2 / 3, 1 / 2, 2 / 3))
    assert rouge("x", "") == (0, 0, 0)


BAD = {
    "no-json": (b"{\n", "line 1 of .* is no JSON"),
    "no-field": (b'{"question": "x"}\n', "line 1 of .* has no answer of the right type: it has question"),
    "no-object": (b"[1]\n", "has no question and no answer of the right type"),
    "wrong-type": (b'\n{"question": 1, "answer": "x"}\n', "line 2 of .* has no question of the right type"),
    "empty": (b"\n", "holds no records"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_file_is_named(tmp_path, name):
    data, words = BAD[name]
    (tmp_path / "file.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=words):
        GSM8K().read(tmp_path / "file.jsonl")
    cut = gzip.compress(data * 1000)[:-9]
    (tmp_path / "file.jsonl.gz").write_bytes(cut)
    with pytest.raises(InputError, match="is no whole gzip file"):
        GSM8K().read(tmp_path / "file.jsonl.gz")


@pytest.mark.parametrize(
    ("task", "text", "words"),
    [
        (MMLU(), '{"subject": "x", "question": "y", "choices": ["a"], "answer": "A"}', "without four choices"),
        (
            MMLU(),
            '{"subject": "x", "question": "y", "choices": ["a", "b", "c", "d"], "answer": "E"}',
            "a letter of them",
        ),
        (RocStories(), "a,b\n1,2\n", "lacks columns: wanted are sentence1"),
        (RocStories(), "sentence1,sentence2,sentence3,sentence4,sentence5\n1,2\n", "without five sentences, in line 2"),
        (RocStories(), "sentence1,sentence2,sentence3,sentence4,sentence5\n", "holds no stories"),
        (Infilling(), json.dumps(next(benchmarks.code_records())), "has no suffix"),
    ],
)
def test_record_of_another_form_is_named(tmp_path, task, text, words):
    (tmp_path / "file").write_text(text)
    with pytest.raises(InputError, match=words):
        task.read(tmp_path / "file")


def test_table_has_every_column_of_the_paper_with_its_three_orders_and_a_source_for_each_row():
    assert {settings.column for settings in TABLE.values()} - {None} == set(PAPER)
    for orders in PAPER.values():
        assert list(orders) == ["random", "top_prob", "margin"]
    assert all(settings.source for settings in TABLE.values())
    with pytest.raises(InputError, match="unknown task 'x'; choose from humaneval-single"):
        settings_of("x")


REAL = {
    "humaneval": (164, 20),
    "humaneval-single": (1033, 40),
    "humaneval-multi": (5815, 20),
    "humaneval-span": (1640, 20),
    "humaneval-span-light": (164, 20),
    "gsm8k": (1319, 200),
    "gsm8k-instruct": (1319, 0),
    "math": (5000, 200),
    "math-instruct": (5000, 0),
    "mmlu": (14042, 200),
    "mmlu-instruct": (14042, 200),
}
"""For each task the number of problems, and of those, spread evenly, whose reference is scored."""


@pytest.mark.thinned(3)
@pytest.mark.skipif(not SHARED.exists(), reason="the files in shared/data are not there")
@pytest.mark.parametrize("name", REAL)
def test_references_of_the_published_files_are_right(name):
    task, (num, tried) = TABLE[name].benchmark, REAL[name]
    path = next(path for file in task.files if (path := SHARED / file).exists())
    problems = task.read(path)
    assert len(problems) == num
    for problem in problems[:: num // tried] if tried else []:
        assert task.score(problem, task.reference(problem)).value == 1
