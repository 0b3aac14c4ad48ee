"""`evaluate`: answers the problems of tasks, each process its share, and puts the paper's table beside ours."""

import functools
import json
import pathlib
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.common import Results, Row, table
from experiments.journal import Journal
from experiments.llada import Evaluate
from experiments.llada_answers import Given, Student, answered, load_student
from experiments.llada_tasks import Asked, read_tasks
from experiments.oracles import oracle_named
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import grouped_interval
from mdm_jax.files import make_folder, write_whole
from mdm_jax.loading import identity
from mdm_jax.oracles import left_to_right
from mdm_jax.sharding import make_mesh
from mdm_jax.tasks.language.sandbox import check_sandbox
from mdm_jax.tasks.language.settings import PAPER, settings_of
from mdm_jax.tasks.language.verify import check_installed
from mdm_jax.training.distributed import any_process, gather_text, is_lead, meet
from mdm_jax.training.lock import locked
from mdm_jax.typing import Oracle

HEAD = ("tokenizer", "tokens_per_step", "temperature", "end", "end_ids", "mask_id", "seed")
"""The flags that must stay the same when an evaluation goes on; what is asked is part of the name of a unit."""
COLUMNS = {
    "dataset": "task",
    "oracle": "order",
    "paper": "paper",
    "score": "ours",
    "score_ci": "95% interval",
    "n": "n",
    "too_long": "too long",
    "nfe": "NFE",
    "per_second": "problems/s",
}
BY_LIKELIHOOD = "likelihood"
"""Stands for the order where the likeliest of several texts of one token is the answer: then there is none."""


def evaluate(flags: Evaluate) -> None:
    """Adds a row for each task and order."""
    oracles = {name: oracle_named(name) for name in flags.oracle.split(",")}
    tasks = read_tasks(flags, flags.limit)
    needs = {task.settings.needs for task in tasks}
    if "the sandbox" in needs:
        check_sandbox()
    if "math-verify" in needs:
        check_installed()
    if jax.process_count() > 1:
        meet(make_mesh())
        _agree(flags, tasks)
    with locked(flags.out):
        results = Results("llada", "evaluate", out=flags.out, seed=flags.seed)
        head = {name: _plain(getattr(flags, name)) for name in HEAD} | {"model": identity(flags.model)}
        journal = Journal(flags.out, head, None) if is_lead() else None
        sizes = {"fsdp": flags.fsdp, "tensor": flags.tensor}
        student = functools.cache(functools.partial(load_student, flags.model, flags.tokenizer, flags.mask_id, **sizes))
        for task in tasks:
            by_likelihood = bool(task.settings.benchmark.choices(task.problems[0]))
            orders: dict[str, Oracle] = {BY_LIKELIHOOD: left_to_right} if by_likelihood else oracles
            for name, oracle in orders.items():
                parts = [
                    _part(flags, journal, student, task, name, oracle, first)
                    for first in range(0, len(task.problems), flags.save_every)
                ]
                if is_lead():
                    results.add(**_row(flags, task, name, parts))
        results.finish(seconds=journal.seconds if journal else None, shown=_table)


def _agree(flags: Evaluate, tasks: Sequence[Asked]) -> None:
    """InputError in every process unless all of them were asked the same."""
    own = {name: value for name, value in vars(flags).items() if name not in ("data", "distributed", "model", "out")}
    if len(set(gather_text(f"{zlib.crc32(repr((own, tasks)).encode())} {own}"))) > 1:
        raise InputError("the processes of this run have different flags or data: start all with the same")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, pathlib.Path) else value


def _part(
    flags: Evaluate,
    journal: Journal | None,
    student: Callable[[], Student],
    task: Asked,
    name: str,
    oracle: Oracle,
    first: int,
) -> Row:
    """The scores of some problems: of the journal, or answered by all processes. Only the first one has them."""
    problems = task.problems[first : first + flags.save_every]
    prompts = [task.prompt(problem) for problem in problems]
    digest = zlib.crc32(repr((problems, prompts, task.fields)).encode())
    unit = f"{task.name} {name} {first} {digest:08x}"
    if any_process(journal is not None and journal.has(unit)):
        return journal.rows(unit, list)[0] if journal else {}

    def work() -> list[Row]:
        begin, places = time.monotonic(), range(jax.process_index(), len(problems), jax.process_count())
        own = [Given(first + i, prompts[i], problems[i]) for i in places]
        mine = json.dumps(answered(flags, student(), task, oracle, own))
        lines = [line for text in gather_text(mine) for line in json.loads(text)]
        lines.sort(key=lambda line: line["number"])
        if is_lead():
            folder = make_folder(flags.out / "answers" / f"{task.name}-{name.replace(':', '.')}")
            texts = (json.dumps(line, ensure_ascii=False) for line in lines)
            write_whole(folder / f"{first:06}.jsonl", "".join(f"{text}\n" for text in texts))
        found = {field: [line[field] for line in lines] for field in ("score", "nfe", "too_long")}
        return [{**found, "seconds": time.monotonic() - begin}]

    return (journal.rows(unit, work) if journal else work())[0]


def _row(flags: Evaluate, task: Asked, name: str, parts: Sequence[Row]) -> Row:
    """A row of results: the mean score of all problems, with those that are too long as wrong."""
    values, calls = (np.concatenate([part[field] for part in parts]) for field in ("score", "nfe"))
    # Problems with the same tests are pieces of one function.
    interval = grouped_interval(values, [problem.get("test", i) for i, problem in enumerate(task.problems)])
    num_long = sum(sum(part["too_long"]) for part in parts)
    seconds = sum(part["seconds"] for part in parts)
    is_papers = task.settings == settings_of(task.name) and (flags.tokens_per_step, flags.temperature) == (1, 0.0)
    is_papers = is_papers and flags.end == "free"
    paper = PAPER.get(task.settings.column or "", {}).get(name) if is_papers else None
    return {
        "method": "mdm",
        "dataset": task.name,
        "oracle": name,
        "tokens_per_step": flags.tokens_per_step,
        "temperature": flags.temperature or None,
        "end": None if flags.end == "free" else flags.end,
        **task.fields,
        "n": len(values),
        "score": float(values.mean()),
        "score_ci": list(interval),
        "too_long": num_long or None,
        "nfe": float(calls.mean()),
        "per_second": round(len(values) / max(seconds, 1e-3), 3),
        "paper": paper,
    }


def _table(rows: Sequence[Row]) -> str:
    """The paper's Table 4 beside ours."""
    return table(
        [{head: row.get(name) for name, head in COLUMNS.items() if name in row or name == "paper"} for row in rows]
    )
