"""`evaluate` scores the answers of a trained model. `export` writes its weights to one file."""

import functools
import itertools
import sys
from typing import Any

from experiments.commands.decode import Decoded, decoders_for, measure
from experiments.commands.flags import EvaluateFlags
from experiments.commands.proposals import ways
from experiments.commands.view import Page, check_viewer, order_row, record_at, two_tables
from experiments.common import Results, Row
from experiments.trained import load_run
from mdm_jax import loading
from mdm_jax.errors import InputError
from mdm_jax.evaluation import replay
from mdm_jax.loading import Model
from mdm_jax.models.looped import LoopedDenoiser, LoopedTransformerConfig, with_loops
from mdm_jax.tasks.base import Layout
from mdm_jax.text.tokenizer import FILE, copy_tokenizer, read_tokenizer

COUNTED = 100
"""Records whose loops are counted: it takes as long as to decode them."""


def evaluate(flags: EvaluateFlags) -> None:
    """Adds a row for each set of records, selector and order."""
    check_viewer(flags.viewer)
    results = Results(flags.experiment, "evaluate", out=flags.out, seed=flags.seed)
    selectors, oracles = flags.selectors(), flags.oracles()
    model, task, layout = load_run(flags.experiment, flags.checkpoint)
    all_ways = [
        way._replace(label=", ".join(filter(None, (label, way.label))), fields=fields | way.fields)
        for label, own, fields in networks(flags, model)
        for way in ways(flags, own, layout)
    ]
    options: dict[str, Any] = {"batch_size": flags.batch_size, "seed": flags.seed}
    pages: list[Page] = []
    statistics: dict[str, None] = {}
    for dataset, records in flags.datasets(task).items():
        path = None if pages else flags.viewer  # of the first set
        pages.append(Page(path, dataset, layout, records, task.view(record_at(records, 0)), seed=flags.seed))
        for selector, way in itertools.product(selectors, all_ways):
            for name, one, how in decoders_for(flags, way.model, task, layout, oracles, selector):
                decode, how = way.keep(one), flags.about(model, task) | how | way.fields
                fields = {"dataset": dataset, **how}
                fields["paper"] = flags.paper(dataset, layout.method, how.get("oracle"))
                decoded = measure(task, layout, decode, records, progress=f"{dataset} {name}", **options)
                orders = order_row(task, records, decoded)
                statistics |= dict.fromkeys(orders)
                cost = passes(flags, way.model, layout, decoded, how)
                results.add(**{"method": layout.method, **fields, **decoded.row, **cost, **orders})
                label = (name, "" if len(selectors) == 1 else str(selector), way.label)
                pages[-1].add(", ".join(filter(None, label)), way.model, decode, decoded, how)
                for part in flags.parts(records, decoded):
                    results.add(**{"method": layout.method, "dataset": dataset, **how, **part})
    results.finish(shown=functools.partial(two_tables, statistics=tuple(statistics)))
    pages[0].write()


def networks(flags: EvaluateFlags, model: Model) -> list[tuple[str, Model, Row]]:
    """The model, or a looped one with each number of loops: label, model, and the fields of its rows."""
    if flags.settled is not None and not flags.num_loops:
        raise InputError("--settled ends the loops of --num-loops: give that too, as the most")
    if not isinstance(model.config, LoopedTransformerConfig):
        if flags.num_loops:
            raise InputError(f"--num-loops is for a looped network, and {flags.checkpoint} is none: leave it out")
        return [("", model, {})]
    if not flags.num_loops:
        return [("", model, {"num_loops": model.config.num_loops})]
    about: Row = {} if flags.settled is None else {"settled": flags.settled}
    return [
        (
            f"{num} loops",
            model._replace(params=with_loops(model.params, num, flags.settled)),
            {"num_loops": num} | about,
        )
        for num in flags.num_loops
    ]


def passes(flags: EvaluateFlags, model: Model, layout: Layout, decoded: Decoded, how: Row) -> Row:
    """What the calls of a looped network cost, in passes of its layers; `how` are the fields of its row."""
    if not isinstance(model.denoiser, LoopedDenoiser):
        return {}
    if flags.settled is None:
        return {"passes": round(how["num_loops"] * decoded.row["nfe"], 1)}
    takes_back = flags.remask_steps is not None or flags.corrector is not None
    if takes_back or flags.search_width is not None or flags.proposals:
        return {}  # the result does not say what the network was shown
    assert layout.mask_id is not None
    trace = replay.trace_of(decoded.tokens[:COUNTED], decoded.reveal_step[:COUNTED], mask_id=layout.mask_id)
    loops = replay.loops_of(model.denoiser, model.params, trace)
    return {"loops": round(loops, 2), "passes": round(loops * decoded.row["nfe"], 1)}


def export(flags: Any) -> None:
    """Writes weights and config, which are read without a checkpoint library, and the tokenizer of a run of text."""
    path = loading.export(flags.checkpoint, flags.out, dtype=flags.dtype)
    words = loading.run_folder(flags.checkpoint)[0] / FILE
    if words.exists():
        copy_tokenizer(read_tokenizer(words), flags.out)
    sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")
