"""`evaluate` scores the answers of a trained model. `export` writes its weights to one file."""

import sys
from typing import Any

from experiments.commands.decode import add_row, decoders_for
from experiments.commands.flags import EvaluateFlags
from experiments.common import Results
from experiments.trained import load_run
from mdm_jax import loading


def evaluate(flags: EvaluateFlags) -> None:
    """Adds a row for each set of records, selector and order."""
    results = Results(flags.experiment, "evaluate", out=flags.out, seed=flags.seed)
    selectors, oracles = flags.selectors(), flags.oracles()
    model, task, layout = load_run(flags.experiment, flags.checkpoint)
    options: dict[str, Any] = {"batch_size": flags.batch_size, "seed": flags.seed}
    for dataset, records in flags.datasets(task).items():
        for selector in selectors:
            for name, decode, how in decoders_for(flags, model, task, layout, oracles, selector):
                fields = {"dataset": dataset, **how}
                fields["paper"] = flags.paper(dataset, layout.method, how.get("oracle"))
                progress = f"{dataset} {name}"
                decoded = add_row(results, task, layout, decode, records, fields, progress=progress, **options)
                for part in flags.parts(records, decoded):
                    results.add(**{"method": layout.method, "dataset": dataset, **how, **part})
    results.finish()


def export(flags: Any) -> None:
    """Writes weights and config, which are read without a checkpoint library."""
    path = loading.export(flags.checkpoint, flags.out, dtype=flags.dtype)
    sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")
