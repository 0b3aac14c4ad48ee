"""`solve` prints answers to a few records, and the steps at which their parts were filled in."""

import sys

from experiments.commands.decode import add_row, decoders_for
from experiments.commands.flags import SolveFlags
from experiments.common import Results
from experiments.trained import load_run


def solve(flags: SolveFlags) -> None:
    """Prints the answer to every record in every order."""
    results = Results(flags.experiment, "solve", out=flags.out, seed=flags.seed)
    oracles, selector, questions = flags.oracles(), flags.selector(), flags.questions()
    assert flags.checkpoint is not None
    model, task, layout = load_run(flags.experiment, flags.checkpoint)
    flags.check_fit(task, questions)
    for question in questions:
        sys.stdout.write(question.intro)
        show = question.show or task.show
        for name, decode, how in decoders_for(flags, model, task, layout, oracles, selector):
            fields = {"dataset": question.dataset, **how}
            decoded = add_row(results, task, layout, decode, question.records, fields, seed=flags.seed)
            for i, label in enumerate(question.labels):
                record = {field: values[i] for field, values in question.records.items()}
                text = show(decoded.answers[i], decoded.steps[i], record)
                sys.stdout.write(f"\n{label}order {name}: {text}")
    results.finish()
