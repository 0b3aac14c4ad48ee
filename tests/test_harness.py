"""lm-evaluation-harness runs our models on tasks of local files. Skipped without the package (`mdm_jax[lm-eval]`)."""

import importlib.util
import json
import subprocess
import sys

import benchmarks
import languages
import pytest
import standin
from commands import ENV, ROOT

from mdm_jax.text.tokenizer import read_tokenizer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")

GENERATE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: " {{{{answer}}}}"
generation_kwargs: {{until: ["Question:"], max_gen_toks: 64, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
CHOOSE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}} Answer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: "{{{{'ABCD'.index(answer)}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with the two tasks, and a model that knows their answers."""
    folder = tmp_path_factory.mktemp("harness")
    for name, form, records in (("say", GENERATE, benchmarks.GSM8K), ("choose", CHOOSE, benchmarks.MMLU)):
        benchmarks.write_lines(folder / f"{name}.jsonl", records)
        (folder / f"{name}.yaml").write_text(form.format(name=name, path=folder / f"{name}.jsonl"))
    (folder / "model").mkdir()
    languages.write_tokenizer(folder / "model")
    words = read_tokenizer(folder / "model")
    known = [
        [*words.encode(f"Question: {r['question']}\nAnswer: {r['answer']}"), *[languages.END] * 64]
        for r in benchmarks.GSM8K
    ]
    known += [words.encode(f"{r['question']} Answer: {r['answer']}") for r in benchmarks.MMLU]
    standin.write(folder / "model", known, mask_id=languages.MASK, pad_id=languages.PAD, vocab_size=words.num_tokens)
    return folder


def harness(tasks, model, *arguments):
    command = [sys.executable, "-m", "experiments.harness", "run", "--model", "mdm_jax", "--model_args", model]
    command += ["--tasks", "say,choose", "--include_path", tasks, *arguments]
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=ENV | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tasks / "cache"), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("likelihood", ["all", "left_to_right"])
def test_model_that_knows_the_answers_is_right_by_generation_and_by_likelihood(tasks, tmp_path, likelihood):
    model = f"model={tasks / 'model'},num_new=40,likelihood={likelihood},num_draws=4"
    done = harness(tasks, model, "--output_path", tmp_path, "--batch_size", 2, "--plugin", "tests.standin")
    assert done.returncode == 0, done.stderr[-3000:]
    [path] = tmp_path.rglob("results*.json")
    found = json.loads(path.read_text())["results"]
    assert found["say"]["exact_match,none"] == 1
    assert found["choose"]["acc,none"] == 1


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("model=/no/such/folder", "error: there is no folder /no/such/folder"),
        ("model={0},colour=red", "error: --model_args has no colour"),
    ],
)
def test_bad_argument_is_refused_in_one_line(tasks, model, words):
    done = harness(tasks, model.format(tasks / "model"), "--plugin", "tests.standin")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(words)
