"""The flags of the verbs. Nothing heavy is imported before a verb runs.

An experiment derives its own flags from these classes. It adds fields, changes defaults, and gives the methods that
name its task and what belongs to its claim.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from experiments.flags import DecodeFlags, RunFlags
from mdm_jax.errors import InputError
from mdm_jax.ranges import Count, Decay, NotNegative, NumLoops, Range, Seed

if TYPE_CHECKING:
    from experiments.commands.decode import Decoded
    from experiments.common import Row
    from mdm_jax.loading import Model
    from mdm_jax.models.config import ModelConfig
    from mdm_jax.tasks.base import Layout, Records, Task
    from mdm_jax.training.objectives import Loss
    from mdm_jax.typing import Array, Params, Selector


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFlags(abc.ABC):
    """The flags of `prepare`, which name a task and its data."""

    experiment: ClassVar[str]
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Seed = 0
    """of the data, the parameters and all draws"""
    out: pathlib.Path
    """folder of results.json"""

    @abc.abstractmethod
    def task(self) -> "Task":
        """The task that the flags name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskFlags(DataFlags):
    """The flags of `prepare` for a task that makes as many records as are wanted."""

    num_train: Count = 100_000
    """records to train on"""
    num_test: Annotated[int, Range(1, 1_000_000)] = 1_000
    """records held out"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossFlags:
    """What training minimises."""

    loss: Literal[
        "plain", "subset", "elbo", "order", "left-to-right", "skewed", "reweighted", "aligned", "filled", "quality"
    ] = "plain"
    """the loss. plain: subset for masked models, the likelihood for others. Others, for masked models, by their names
    in mdm_jax.training.objectives.NAMED: subset (of random size), elbo (a random time), order (one token of a random
    order), left-to-right (one token of that order), skewed (mostly large subsets), reweighted (Ye et al. 2024), aligned
    (what the network's own order leaves), filled (also all tokens of its own answers), quality (also a head that says
    which of its tokens are right)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitFlags(DataFlags, RunFlags):
    """The flags of `train`, but for the loss."""

    names: ClassVar[tuple[str, ...]]
    """The flags that the config.json of a trained model must hold."""
    model: str
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the sequences"""
    dropout: Decay | None = None
    """the dropout rate (None: the preset's)"""
    init_from: pathlib.Path | None = None
    """start from these weights instead of random ones: a run's folder, a checkpoint, or shipped weights"""
    evaluate_limit: Count = 128
    """held-out records in an evaluation"""
    out: pathlib.Path
    """folder of the run: checkpoints, metrics, results.json"""

    def layout_of(self, task: "Task") -> "Layout":
        """The layout of the sequences, by default the task's first."""
        return next(iter(task.layouts.values()))

    @abc.abstractmethod
    def losses(self, layout: "Layout") -> "tuple[Loss, Loss]":
        """The loss that training minimises, and the one that held-out records are measured with."""

    @abc.abstractmethod
    def recorded(self) -> dict[str, Any]:
        """What config.json says of the run beside the fields of the task."""

    def write_beside(self, task: "Task") -> None:
        """Writes what belongs to the run beside its config.json, once the data are prepared."""

    def fitted(self, config: "ModelConfig") -> "ModelConfig":
        """The network, as the experiment changes it."""
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
class TrainFlags(FitFlags, TaskFlags, LossFlags):
    """The flags of `train`, with the loss by its name."""

    num_loops: NumLoops | None = None
    """apply the layers so many times, and train the prediction of each loop (None: once)"""

    def losses(self, layout: "Layout") -> "tuple[Loss, Loss]":
        """The loss that is named, at every loop if there are several, and the bound on the likelihood."""
        from experiments.commands.losses import losses

        return losses(self.loss, layout.mask_id, f"--layout {layout.name}", num_loops=self.num_loops)

    def recorded(self) -> dict[str, Any]:
        """The loss."""
        return {"loss": self.loss}

    def fitted(self, config: "ModelConfig") -> "ModelConfig":
        """The network, with a quality head if the loss trains one, or with loops."""
        from mdm_jax.models.kinds import adapted, name_of

        if self.loss == "quality" and self.num_loops is not None:
            raise InputError("--loss quality and --num-loops exclude each other: leave one out")
        kinds: dict[str, dict[str, Any]] = {}
        if self.loss == "quality":
            kinds["--loss quality"] = {"kind": "judged_transformer"}
        if self.num_loops is not None:
            kinds[f"--num-loops {self.num_loops}"] = {"kind": "looped_transformer", "num_loops": self.num_loops}
        for flag, changes in kinds.items():
            if name_of(config) != "transformer" or getattr(config, "shift_logits", False):
                what = f"a {name_of(config)}" if name_of(config) != "transformer" else "one that shifts its logits"
                raise InputError(f"{flag} is for a plain Transformer, and this layout wants {what}: leave the flag out")
            config = adapted(config, changes)
        return config


@dataclasses.dataclass(frozen=True, kw_only=True)
class PuzzleTrainFlags(TrainFlags):
    """The flags of `train` for a puzzle, which has several layouts."""

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
class ViewerFlags:
    """The page that shows what was decoded."""

    viewer: pathlib.Path | None = None
    """write a page (.html) that plays how the first input was filled in, in every order side by side"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags(DecodeFlags, ViewerFlags):
    """The flags of `evaluate`."""

    experiment: ClassVar[str]
    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    limit: Count | None = None
    """the number of records, from the first (None: all)"""
    batch_size: Count = 128
    """records in a batch"""
    num_loops: tuple[Count, ...] = ()
    """apply the layers of a looped network so many times, in place of as many as it was trained with; each number gives
    rows"""
    settled: NotNegative | None = None
    """with --num-loops: a record goes through no more loops once one has changed no hidden state by more than this
    share of it, such as 0.2"""
    proposals: tuple[Count, ...] = ()
    """answer each record so many times and keep one answer, for so many times the calls; each number gives a row"""
    choose: Literal["likeliest", "stable", "symmetric", "average"] = "likeliest"
    """which of the proposals is kept. likeliest: that of highest probability; stable: the one that comes back when half
    of it is answered again, for half as many calls more; both want --noise or --temperature. symmetric: the proposals
    answer symmetric forms of the record, and most of them give this one. average: one answer, by the mean of the
    predictions for so many symmetric forms"""
    check_forms: Count = 1
    """check each proposal in so many symmetric forms, for so many times the calls of --check"""
    enough: Annotated[float, Range(most=0)] | None = None
    """make proposals one at a time, and stop a record at the first whose --check is at least this (nats; -0.01: hardly
    a doubt). nfe counts until the last record stops (None: make all, keep the best)"""
    seed: Seed = 0
    """of all draws"""
    out: pathlib.Path
    """folder of results.json"""

    def about(self, model: "Model", task: "Task") -> "Row":
        """Fields of all rows, about the model."""
        del model, task
        return {}

    def selectors(self) -> "Sequence[Selector]":
        """The selectors to compare."""
        return [self.selector()]

    def datasets(self, task: "Task") -> "Mapping[str, Records]":
        """The records to answer, by the name of the set."""
        from mdm_jax.tasks.base import held_out

        return {task.title: held_out(task, self.limit)}

    def paper(self, dataset: str, method: str, oracle: str | None) -> float | None:
        """The paper's figure for these records and this decoding, or None."""
        del dataset, method, oracle
        return None

    def parts(self, records: "Records", decoded: "Decoded") -> "list[Row]":
        """Rows about parts of the records."""
        del records, decoded
        return []


class Question(NamedTuple):
    """Records that `solve` answers in one batch."""

    dataset: str
    """the name of the set in results"""
    records: "Records"
    intro: str
    """printed before the answers"""
    labels: Sequence[str]
    """a label of each record, printed before the name of the order"""
    show: Callable[..., str] | None = None
    """prints an answer; None for the task's `show`"""
    view: Callable[..., Any] | None = None
    """lays out an answer; None for the task's `view`"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolveFlags(DecodeFlags, ViewerFlags, abc.ABC):
    """The flags of `solve`."""

    experiment: ClassVar[str]
    checkpoint: pathlib.Path | None
    """a run's folder, or one of its checkpoints"""
    limit: Count | None = None
    """the number of records, from the first (None: all)"""
    seed: Seed = 0
    """of all draws"""
    out: pathlib.Path
    """folder of results.json"""

    @abc.abstractmethod
    def questions(self) -> list[Question]:
        """The records to answer."""

    def check_fit(self, task: "Task", questions: Sequence[Question]) -> None:
        """Raises InputError unless a model of the task can answer the questions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """Write a trained model as safetensors, which evaluate, solve and mdm_jax.load read."""

    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """of the parameters in the file"""
    out: pathlib.Path
    """folder to write to"""
    seed: Seed = 0
    """as every command has it; nothing is drawn"""
