"""`solve` prints answers to a few records, and the steps at which their parts were filled in."""

import sys
from typing import Any

from experiments.commands.decode import add_row, decoders_for
from experiments.commands.flags import SolveFlags
from experiments.commands.view import Page, check_viewer, record_at
from experiments.common import Results
from experiments.trained import load_run


def solve(flags: SolveFlags) -> None:
    """Prints the answer to every record in every order."""
    check_viewer(flags.viewer)
    results = Results(flags.experiment, "solve", out=flags.out, seed=flags.seed)
    oracles, selector, questions = flags.oracles(), flags.selector(), flags.questions()
    assert flags.checkpoint is not None
    model, task, layout = load_run(flags.experiment, flags.checkpoint)
    flags.check_fit(task, questions)
    pages: list[Page] = []
    answers: list[dict[str, Any]] = []
    for question in questions:
        sys.stdout.write(question.intro)
        show = question.show or task.show
        view = (question.view or task.view)(record_at(question.records, 0))
        path = None if pages else flags.viewer  # of the first question
        pages.append(Page(path, question.dataset, layout, question.records, view, seed=flags.seed))
        for name, decode, how in decoders_for(flags, model, task, layout, oracles, selector):
            fields = {"dataset": question.dataset, **how}
            decoded = add_row(results, task, layout, decode, question.records, fields, seed=flags.seed)
            pages[-1].add(name, model, decode, decoded, how)
            answered = {"answers": decoded.answers.tolist(), "steps": decoded.steps.tolist()}
            answers.append({"dataset": question.dataset, "order": name, **answered})
            for i, label in enumerate(question.labels):
                record = record_at(question.records, i)
                text = show(decoded.answers[i], decoded.steps[i], record)
                sys.stdout.write(f"\n{label}order {name}: {text}")
    results.finish(fields={"decoded": answers})
    pages[0].write()
