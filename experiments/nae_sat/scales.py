"""The paper's figures for L&O-NAE-SAT, and how much of everything its experiments do at each scale."""

import dataclasses
import pathlib
from typing import Literal

from experiments.nae_sat.flags import Train

PAPER = {
    (25, 275): {"vanilla": 0.7806, "margin": 0.9376},
    (30, 270): {"vanilla": 0.7570, "margin": 0.9354},
    (40, 260): {"vanilla": 0.7460, "margin": 0.9221},
    (50, 250): {"vanilla": 0.6794, "margin": 0.9001},
    (100, 200): {"vanilla": 0.6284, "margin": 0.8891},
}
"""Table 1: share of generated observations that agree with the generated latents."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """A model and its training, where the paper is silent: iterations, batch, and below its scale the learning rate."""

    model: str
    length: int | None = None
    num_train: int
    steps: int
    batch_size: int
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float

    def train_flags(
        self,
        num_latents: int,
        num_observations: int,
        *,
        evaluations: int,
        evaluate_limit: int,
        data: pathlib.Path,
        seed: int,
        out: pathlib.Path,
    ) -> Train:
        """What `train` is to do; decay as in C.1, "the same configuration throughout", warm-up as in its code base."""
        import jax

        return Train(
            num_latents=num_latents,
            num_observations=num_observations,
            num_train=self.num_train,
            data=data,
            seed=seed,
            model=self.model,
            length=self.length,
            dtype="bfloat16" if jax.default_backend() in ("gpu", "tpu") else "float32",
            steps=self.steps,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            warmup_steps=min(100, self.steps // 10),
            weight_decay=0.1,
            beta2=0.95,
            checkpoint_every=max(self.steps // evaluations, 1),
            evaluate_every=max(self.steps // evaluations, 1),
            evaluate_limit=evaluate_limit,
            out=out,
        )


BUDGETS = {
    "smoke": Budget(model="sudoku_800k", num_train=200, steps=4, batch_size=16, learning_rate=1e-3),
    "small": Budget(
        model="sudoku_800k", num_train=200_000, steps=1000, batch_size=128, optimizer="muon", learning_rate=3e-3
    ),
    "paper": Budget(model="smdm_19m", length=512, num_train=512_000, steps=2000, batch_size=256, learning_rate=4e-4),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """Of Table 1."""

    distributions: tuple[tuple[int, int], ...]
    """N and P"""
    num_samples: int
    num_steps: tuple[int, ...]
    """of decoding, beside one token at a time"""


SCALES = {
    "smoke": Scale(((6, 12),), 8, (6,)),
    "small": Scale(((10, 50),), 500, (30, 10)),
    "paper": Scale(tuple(PAPER), 1000, (100, 50)),
}
