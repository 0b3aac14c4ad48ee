"""How many puzzles a trained model solves."""

import pathlib
from collections.abc import Mapping
from typing import Any

import mdm_jax
from experiments.common import Results
from experiments.flags import DecodeFlags
from experiments.puzzles.data import MaskedLayout, Records, first, limited
from experiments.puzzles.decode import add_row, asked
from experiments.trained import check_network, load_trained
from experiments.zebra.data import DATA_FIELDS, GAME, bounds, dataset_name, given, size_name, solved_by_size, test_set
from experiments.zebra.flags import Evaluate, Train
from experiments.zebra.scales import PAPER, PAPER_SET
from mdm_jax.errors import InputError
from mdm_jax.loading import Model
from mdm_jax.tasks.zebra import layouts as zebra_layouts
from mdm_jax.tasks.zebra.clues import sizes_of
from mdm_jax.tasks.zebra.layouts import Layout


def evaluate(flags: Evaluate) -> None:
    """`evaluate`: any oracles, any selector, a checkpoint, and puzzles."""
    results = Results("zebra", "evaluate", out=flags.out, seed=flags.seed)
    oracles, selector, puzzles = flags.oracles(), flags.selector(), given(flags)
    model, layout, task = load_model(flags.checkpoint, puzzles)
    for dataset, found in (puzzles or {dataset_name(task): test_set(limited(task, flags.limit))}).items():
        records = first(flags.limit, found)
        for name, decode, how in asked(flags, model, layout, oracles, selector):
            options: dict[str, Any] = {"batch_size": flags.batch_size, "seed": flags.seed}
            paper = paper_figure(flags, dataset, layout.method, how.get("oracle"))
            fields = {"dataset": dataset, **how, "paper": paper}
            filled = add_row(results, GAME, layout, decode, records, fields, progress=f"{dataset} {name}", **options)
            if len(parts := solved_by_size(records, filled.tokens)) > 1:
                for part in parts:
                    results.add(**{"method": layout.method, "dataset": dataset, **how, **part})
    results.finish()


def paper_figure(flags: DecodeFlags, dataset: str, method: str, oracle: str | None) -> float | None:
    """What Table 3 says of the same puzzles, decoded one cell at a time without noise; None if it says nothing."""
    is_same = flags.selector() == mdm_jax.PerStep(1) and flags.changed() <= {"oracle", "tokens_per_step"}
    return PAPER.get((method, oracle)) if is_same and dataset == PAPER_SET else None


def load_model(checkpoint: pathlib.Path, puzzles: Mapping[str, Records]) -> tuple[Model, Layout, dict[str, Any]]:
    """A trained model, its layout, and what it was trained on; InputError if a puzzle is larger than that."""
    model, task = load_trained(GAME.name, checkpoint, Train, (*DATA_FIELDS, "layout"))
    _, largest = bounds(task)
    for name, records in puzzles.items():
        houses, attributes = (int(numbers.max()) for numbers in sizes_of(records["clues"]))
        num_clues = records["clues"].shape[1]
        if houses > largest.houses or attributes > largest.attributes:
            raise InputError(
                f"{checkpoint} solves up to {size_name(*largest)} (houses x attributes), and {name} is "
                f"{size_name(houses, attributes)}: give a model that was trained on larger puzzles"
            )
        if num_clues > largest.max_clues:
            raise InputError(f"{checkpoint} reads up to {largest.max_clues} clues, {name} has {num_clues}: drop some")
    layout = zebra_layouts.get(task["layout"], largest)
    wanted = {"vocab_size": layout.num_tokens, "max_length": layout.length}
    wanted |= {"num_groups": layout.num_groups, "group_length": layout.group_length}
    check_network(checkpoint, model, causal=not isinstance(layout, MaskedLayout), **wanted)
    return model, layout, task
