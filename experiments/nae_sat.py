"""L&O-NAE-SAT: generated observations agree with the generated latents if the order of generation is planned.

Claim (Kim et al. 2025, Table 1; five distributions, 19M parameters): in random order, 63 to 78% of the generated
observations agree with the generated latents. By the margin between the two likeliest values, 89 to 94% agree.

    python -m experiments.nae_sat reproduce
    python -m experiments.nae_sat exact
    python -m experiments.nae_sat schedules
    python -m experiments.nae_sat train --num-latents 25 --num-observations 275 --length 512 --out runs/nae-sat
    python -m experiments.nae_sat evaluate --checkpoint runs/nae-sat --step-counts 300 100 50
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from experiments.commands.flags import EvaluateFlags, TaskFlags, TrainFlags
from experiments.commands.plans import ReproduceFlags
from experiments.commands.scales import Budget
from experiments.common import run
from mdm_jax.errors import InputError
from mdm_jax.ranges import Count, NotNegative, Range, Seed

if TYPE_CHECKING:
    from mdm_jax.tasks.base import Records, Task
    from mdm_jax.tasks.nae_sat.task import NaeSat
    from mdm_jax.typing import Selector

ORDERS = ("random", "top_prob", "margin", "neg_entropy", "token_prob", "left_to_right")
"""The orders that tables compare."""
PAPER: Mapping[tuple[int, int], Mapping[str, float]] = {
    (25, 275): {"vanilla": 0.7806, "margin": 0.9376},
    (30, 270): {"vanilla": 0.7570, "margin": 0.9354},
    (40, 260): {"vanilla": 0.7460, "margin": 0.9221},
    (50, 250): {"vanilla": 0.6794, "margin": 0.9001},
    (100, 200): {"vanilla": 0.6284, "margin": 0.8891},
}
"""Table 1: share of generated observations that agree with the generated latents, by (N, P)."""
AGREEMENT = "observations that agree with the latents (%)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(TaskFlags):
    """Draw sequences and write them as a tfds dataset."""

    experiment: ClassVar[str] = "nae_sat"
    num_latents: Annotated[int, Range(3, 10_000)] = 25
    """N: number of latent bits"""
    num_observations: Annotated[int, Range(1, 100_000)] = 275
    """P: number of observed triples of latents, drawn by the seed"""
    num_train: Count = 500_000
    """sequences to train on"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat-prepare")
    """folder of results.json"""

    def task(self) -> "NaeSat":
        """The distribution that the flags name."""
        from mdm_jax.tasks.nae_sat.task import NaeSat

        return NaeSat(
            num_latents=self.num_latents,
            num_observations=self.num_observations,
            num_train=self.num_train,
            num_test=self.num_test,
            seed=self.seed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Prepare, TrainFlags):
    """Train a model; the same command again goes on from its newest checkpoint."""

    names: ClassVar[tuple[str, ...]] = ("num_latents", "num_observations", "num_train", "num_test", "seed", "length")
    model: str = "smdm_19m"
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the sequences"""
    length: Annotated[int, Range(1, 1 << 20)] | None = None
    """pad sequences to this length, 512 in the paper; padding is given and attended to (None: no padding)"""
    evaluate_limit: Count = 256
    """sequences that an evaluation generates, one token at a time, for accuracy/random and accuracy/margin"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat")
    """folder of the run: checkpoints, metrics, results.json"""

    def task(self) -> "NaeSat":
        """The distribution, with padded sequences."""
        return dataclasses.replace(super().task(), length=self.length)

    def recorded(self) -> dict[str, Any]:
        """The loss, unless it is the default."""
        return {} if self.loss == "plain" else super().recorded()

    @property
    def draw_seed(self) -> int:
        """The seed of the run, since generation draws tokens."""
        return self.seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateFlags):
    """Generate sequences, and measure the share of observations that agree with the latents beside them."""

    experiment: ClassVar[str] = "nae_sat"
    oracle: str = ",".join(ORDERS)
    """the orders of generation, with commas"""
    temperature: NotNegative = 1.0
    """sampling temperature of the values, 1 in the paper; 0 takes the likeliest"""
    step_counts: tuple[Count, ...] = ()
    """or: generate in each of these numbers of steps, by the linear schedule"""
    limit: Count = 1_000
    """number of sequences to generate"""
    batch_size: Count = 250
    """sequences in a batch"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat-evaluate")
    """folder of results.json"""

    def selectors(self) -> "list[Selector]":
        """One for each number of steps, or that of the other flags."""
        from mdm_jax import PerStep, TopK

        ways = (self.keep, self.remask_steps, self.search_width, self.check, self.corrector)
        if self.proposals or any(way is not None for way in ways):
            raise InputError(
                "--keep, --remask-steps, --search-width, --check, --corrector and --proposals are for puzzles: "
                "leave them out"
            )
        selector = self.selector()
        if self.step_counts and selector != PerStep(1):
            raise InputError("--step-counts says how many steps: leave the other flag for that out")
        return [TopK(num_steps) for num_steps in self.step_counts] or [selector]

    def datasets(self, task: "Task") -> "dict[str, Records]":
        """`limit` sequences of the distribution, whatever number the run held out."""
        return {task.title: task.records("test", self.limit)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact:
    """Generate with the exact conditionals in each order, several tokens per step, and measure the agreement."""

    num_latents: Count = 10
    """N: number of latent bits; all 2^N states are enumerated"""
    num_observations: Count = 50
    """P: number of observed triples of latents"""
    limit: Count = 2_000
    """number of sequences to generate"""
    seed: Seed = 0
    """of the triples and all draws"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat-exact")
    """folder of the picture and results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedules:
    """Reveal in random order by three schedules, with the exact conditionals, and measure what each loses."""

    num_latents: Count = 10
    """N: number of latent bits; all 2^N states are enumerated"""
    num_observations: Annotated[int, Range(1, 100_000)] = 50
    """P: number of observed triples of latents"""
    num_steps: tuple[Count, ...] = (1, 2, 3, 4, 6, 10, 20, 30)
    """how many steps"""
    limit: Annotated[int, Range(2, 1 << 20)] = 4_000
    """sequences: for the curve, to choose the best schedule, for each divergence, and to generate by each schedule"""
    seed: Seed = 0
    """of the triples and all draws"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat-schedules")
    """folder of the picture and results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceBudget(Budget):
    """One training. The paper does not give the iterations and the batch, nor learning rates below its scale."""

    num_train: int
    length: int | None = None

    def train_flags(self, num_latents: int, num_observations: int, *, evaluations: int, **flags: Any) -> Train:
        """The flags of `train`. Decay is that of C.1, "the same configuration throughout", warm-up that of its code.

        Args:
          num_latents: N.
          num_observations: P.
          evaluations: the number of evaluations over the training.
          **flags: further flags.
        """
        return Train(
            num_latents=num_latents,
            num_observations=num_observations,
            num_train=self.num_train,
            length=self.length,
            warmup_steps=min(100, self.steps // 10),
            weight_decay=0.1,
            beta2=0.95,
            **self.flags(checkpoints=evaluations, evaluations=evaluations),
            **flags,
        )


BUDGETS = {
    "smoke": SequenceBudget(
        model="sudoku_800k", num_train=200, steps=4, batch_size=16, learning_rate=1e-3, optimizer="adamw"
    ),
    "small": SequenceBudget(model="sudoku_800k", num_train=200_000, steps=1000, batch_size=128, learning_rate=3e-3),
    "paper": SequenceBudget(
        model="smdm_19m",
        length=512,
        num_train=512_000,
        steps=2000,
        batch_size=256,
        learning_rate=4e-4,
        optimizer="adamw",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(ReproduceFlags):
    """Table 1: train a model for each distribution and generate in every order; the same command again goes on."""

    experiment: ClassVar[str] = "nae_sat"
    table: ClassVar[str] = "experiments.nae_sat_table"
    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds; small: 10 latents, 50 observations, 0.8M parameters; paper: all of Table 1"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat-reproduce")
    """folder of the runs, units.jsonl, pictures and results.json"""


COMMANDS = {
    "prepare": (Prepare, "experiments.commands.prepare:prepare"),
    "train": (Train, "experiments.commands.train:train"),
    "evaluate": (Evaluate, "experiments.commands.evaluate:evaluate"),
    "reproduce": (Reproduce, "experiments.commands.reproduce:reproduce"),
    "exact": (Exact, "experiments.nae_sat_exact:exact"),
    "schedules": (Schedules, "experiments.nae_sat_schedules:schedules"),
}

if __name__ == "__main__":
    run("nae_sat")
