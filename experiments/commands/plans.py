"""The flags of `reproduce`, and what a table is made of: the models of a reproduction, and what is measured on each.

Nothing heavy is imported before the verb runs.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from experiments.commands.flags import TrainFlags
from mdm_jax.ranges import Count, Range, Seed

if TYPE_CHECKING:
    from experiments.common import Row
    from mdm_jax.loading import Model
    from mdm_jax.tasks.base import Layout


class Unit(NamedTuple):
    """A part of a reproduction that is done and recorded as a whole."""

    name: str
    """the name in the journal"""
    work: "Callable[[Model], list[Row]]"


class Plan(NamedTuple):
    """One model of a reproduction, and what is measured on it."""

    train: TrainFlags
    """how it is trained, once a unit needs it"""
    layout: "Layout"
    units: Sequence[Unit]
    model: "Model | None" = None
    """a model that is trained already"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceFlags:
    """The flags of `reproduce`."""

    experiment: ClassVar[str]
    table: ClassVar[str]
    """The module of the table. It holds `SCALES`, the settings by `scale`; `plans(flags)`, the models and what is
    measured on each; and `report(flags, rows)`, which prints the table and returns the paths of the pictures."""
    scale: str
    """how large the reproduction is; each table names its scales"""
    minutes: Annotated[float, Range(0, 1e6)] | None = None
    """save and stop after this long; the same command goes on"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Seed = 0
    """of the data, the parameters and all draws"""
    out: pathlib.Path
    """folder of the runs, units.jsonl, pictures and results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodsFlags(ReproduceFlags):
    """The flags of `reproduce` for a table that compares methods."""

    methods: str = "mdm,arm,arm_ordered"
    """which models, with commas"""
    limit: Count | None = None
    """the number of held-out puzzles of each set, from the first (None: all)"""
