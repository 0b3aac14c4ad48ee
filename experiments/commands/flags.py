"""The flags of the verbs, and what an experiment tells a verb, as methods. Nothing heavy is imported before it runs.

An experiment derives its own flags from these classes: fields of its own, other defaults, and the methods that say
which task it is and what belongs to its claim.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from experiments.flags import DecodeFlags, RunFlags
from mdm_jax.ranges import Count, Decay, Range

if TYPE_CHECKING:
    from experiments.commands.decode import Decoded
    from experiments.common import Row
    from mdm_jax.loading import Model
    from mdm_jax.models.config import ModelConfig
    from mdm_jax.tasks.base import Layout, Records, Task
    from mdm_jax.typing import Array, Params, Selector


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskFlags:
    """Which data."""

    experiment: ClassVar[str]
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Annotated[int, Range(0, below=1 << 32)] = 0
    """of the data, the parameters and all draws"""

    def task(self) -> "Task":
        """The task that the flags name."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareFlags(TaskFlags):
    """Of `prepare`."""

    out: pathlib.Path
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainFlags(TaskFlags, RunFlags):
    """Of `train`."""

    names: ClassVar[tuple[str, ...]]
    """The flags that a trained model's config.json must hold."""
    model: str
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the sequences"""
    loss: Literal["plain", "subset", "elbo", "order", "left-to-right", "skewed", "reweighted", "aligned"] = "plain"
    """what is drawn, by its name in mdm_jax.training.objectives.NAMED: a random subset, which "plain" is for masked
    models; a random time; one token of a random order, or of the order from left to right; mostly large subsets; Ye et
    al.'s re-weighting; what the network's own order leaves (PUMA)"""
    dropout: Decay | None = None
    """instead of the preset's"""
    init_from: pathlib.Path | None = None
    """start from these weights instead of random ones: a run's folder, a checkpoint, or shipped weights"""
    evaluate_limit: Count = 128
    """held-out records in an evaluation"""
    out: pathlib.Path
    """folder of the run: checkpoints, metrics, results.json"""

    def layout_of(self, task: "Task") -> "Layout":
        """The layout of the sequences: the usual one, unless a flag chooses."""
        return next(iter(task.layouts.values()))

    def recorded(self) -> dict[str, Any]:
        """What the run's config.json says beside the fields of the task."""
        return {"loss": self.loss}

    def fitted(self, config: "ModelConfig") -> "ModelConfig":
        """The network, with what the experiment changes about it."""
        return config

    def start_params(self, config: "ModelConfig", layout: "Layout", key: "Array") -> "Params":
        """Fresh parameters."""
        from mdm_jax.models.kinds import init_params

        del layout
        return init_params(config, key)

    def augmentation(self) -> Callable[..., Any] | None:
        """A function that changes a batch of records at random, as for `pipeline.Batches`."""
        return None

    @property
    def draw_seed(self) -> int:
        """The seed of the draws of an evaluation while the model is trained."""
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PuzzleTrainFlags(TrainFlags):
    """Of `train` where there are several layouts."""

    layout: str
    """how a puzzle becomes a sequence"""
    evaluate_limit: Count = 128
    """held-out puzzles in an evaluation, which gives solved/random and solved/margin, or solved/greedy, and
    held_out_loss_per_token"""

    def layout_of(self, task: "Task") -> "Layout":
        """The layout that the flag names."""
        from mdm_jax.data.checks import lookup

        return lookup("layout", task.layouts, self.layout)

    def recorded(self) -> dict[str, Any]:
        """The layout and the loss."""
        return {"layout": self.layout, **super().recorded()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags(DecodeFlags):
    """Of `evaluate`."""

    experiment: ClassVar[str]
    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    limit: Count | None = None
    """use only the first so many records"""
    batch_size: Count = 128
    """records at a time"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path
    """folder of results.json"""

    def selectors(self) -> "Sequence[Selector]":
        """The selectors to compare."""
        return [self.selector()]

    def datasets(self, task: "Task") -> "Mapping[str, Records]":
        """The records to answer, by the name of the set."""
        return {task.title: task.records("test", min(task.num_test, self.limit or task.num_test))}

    def paper(self, dataset: str, method: str, oracle: str | None) -> float | None:
        """The paper's figure for the same records in the same decoding, if it has one."""
        del dataset, method, oracle
        return None

    def parts(self, records: "Records", decoded: "Decoded") -> "list[Row]":
        """Rows about parts of the records."""
        del records, decoded
        return []


class Question(NamedTuple):
    """Records that `solve` answers together."""

    dataset: str
    """the name of the set in results"""
    records: "Records"
    intro: str
    """printed before the answers"""
    labels: Sequence[str]
    """of each record, before the name of the order"""
    show: Callable[..., str] | None = None
    """instead of the task's"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolveFlags(DecodeFlags):
    """Of `solve`."""

    experiment: ClassVar[str]
    checkpoint: pathlib.Path | None
    """a run's folder, or one of its checkpoints"""
    limit: Count | None = None
    """use only the first so many"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path
    """folder of results.json"""

    def questions(self) -> list[Question]:
        """What the flags ask."""
        raise NotImplementedError

    def check_fit(self, task: "Task", questions: Sequence[Question]) -> None:
        """Raises InputError unless a model of the task can answer the questions."""


class Unit(NamedTuple):
    """A part of a reproduction that is done as a whole, or not at all."""

    name: str
    """in the journal"""
    work: "Callable[[Model], list[Row]]"


class Plan(NamedTuple):
    """One model of a reproduction, and what is measured of it."""

    train: TrainFlags
    """how it is trained, when it is first needed"""
    layout: "Layout"
    units: Sequence[Unit]
    model: "Model | None" = None
    """a given one, which is not trained"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceFlags:
    """Of `reproduce`."""

    experiment: ClassVar[str]
    table: ClassVar[str]
    """The module with the functions `head(flags)`, the settings that must not change when the same command goes on;
    `plans(flags)`, the models and what is measured of each; and `report(flags, rows)`, the table and the pictures."""
    scale: Literal["smoke", "small", "paper"] = "small"
    """how much of everything"""
    minutes: Annotated[float, Range(0, 1e6)] | None = None
    """save and stop after this long; the same command goes on"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: int = 0
    """of the data, the parameters and all draws"""
    out: pathlib.Path
    """folder of the runs, of what was measured so far, of pictures and results.json"""
