"""What every task keeps: records become sequences and come back as answers, which are then right."""

import json
import pathlib
import re

import numpy as np
import pytest
from commands import rows

from experiments.commands.flags import TrainFlags
from experiments.commands.train import train
from mdm_jax.data.checks import lookup
from mdm_jax.errors import InputError
from mdm_jax.models import kinds
from mdm_jax.tasks.base import Generated, fields_of, take
from mdm_jax.tasks.nae_sat.task import NaeSat
from mdm_jax.tasks.sudoku.task import Sudoku
from mdm_jax.tasks.zebra.task import Zebra

NUMS = {"num_train": 20, "num_test": 6}
TASKS = {
    "sudoku": Sudoku(size=4, seed=1, difficulty="normal", **NUMS),
    "zebra": Zebra(max_houses=4, max_attributes=3, seed=1, **NUMS),
    "nae_sat": NaeSat(num_latents=5, num_observations=9, length=16, seed=1, **NUMS),
}
CASES = [(name, layout) for name, task in TASKS.items() for layout in task.layouts]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_records_written_by_a_layout_are_read_back_as_answers_that_are_right(name, layout):
    task, layout = TASKS[name], TASKS[name].layouts[layout]
    records = task.records("train", 6)
    layout.check(records)
    examples, start = layout.examples(records), layout.start(records)
    tokens, is_prompt = examples["tokens"], examples["is_prompt"]
    small = {"num_layers": 1, "num_heads": 1, "width": 2, "mlp_width": 2}
    config = kinds.from_json({"kind": "transformer", **small, **layout.network})
    assert tokens.shape == is_prompt.shape == (6, config.max_length)
    assert tokens.max() < config.num_tokens
    assert tokens[~is_prompt].max() < config.vocab_size, "what is predicted has a logit"
    assert config.causal == (layout.mask_id is None)
    if layout.mask_id is None:
        np.testing.assert_array_equal(
            np.where(start < 0, 0, start), np.where(start < 0, 0, tokens[:, : start.shape[1]])
        )
    else:
        np.testing.assert_array_equal(start == layout.mask_id, ~is_prompt)
        np.testing.assert_array_equal(start[is_prompt], tokens[is_prompt])
    answers = layout.answers(tokens)
    scores = task.score(answers, records)
    assert scores[task.metric].shape == (6,)
    assert scores[task.metric].all()
    steps = layout.steps(np.where(is_prompt, -1, 0), tokens)
    assert steps.shape == answers.shape
    record = {field: values[0] for field, values in records.items()}
    assert task.show(answers[0], steps[0], record).endswith("\n")


@pytest.mark.parametrize("name", TASKS)
def test_fields_name_the_data_and_records_are_the_first_of_a_split(name):
    task = TASKS[name]
    fields = fields_of(task)
    assert json.loads(json.dumps(fields)) == fields
    assert type(task)(**fields) == task
    assert type(task)(**fields).dataset == task.dataset
    few, more = task.records("test", 2), task.records("test", 4)
    assert set(few) == set(task.shapes())
    for field, values in take(2, more).items():
        np.testing.assert_array_equal(values, few[field])
        assert values.shape == (2, *task.shapes()[field])
    assert all(isinstance(value, float) for value in task.statistics(more).values())


@pytest.mark.slow
def test_task_of_the_documentation_is_prepared_trained_and_measured(tmp_path):
    page = (pathlib.Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    names = {"__name__": "extending"}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1), names)
    flags = {"steps": 2, "batch_size": 8, "evaluate_limit": 8, "dtype": "float32", "data": tmp_path / "data"}
    train(names["Train"](out=tmp_path / "run", **flags))
    found = [(row["dataset"], row["oracle"], row["n"], row["nfe"]) for row in rows(tmp_path / "run")]
    assert found == [("4 digits", "random", 8, 4), ("4 digits", "margin", 8, 4)]


def test_lookup_of_an_unknown_name_lists_the_known_ones():
    assert lookup("layout", {"a": 1, "b": 2}, "b") == 2
    with pytest.raises(InputError, match="unknown layout 'c'; choose one of a, b"):
        lookup("layout", {"a": 1, "b": 2}, "c")


def test_task_without_records_cannot_be_made():
    with pytest.raises(TypeError, match=r"abstract.*chunks"):
        type("Task", (Generated,), {"dataset": "", "shapes": dict})()
    with pytest.raises(TypeError, match=r"abstract.*task"):
        type("Train", (TrainFlags,), {})(model="", out=pathlib.Path())
