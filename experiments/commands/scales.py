"""How much of everything a table of methods takes, at some scale."""

import dataclasses
from typing import Any, Literal

from mdm_jax.data.checks import lookup

LAYOUTS = {"mdm": "in-place", "arm": "triples", "arm_ordered": "ordered-triples"}
"""The layout of each method."""
MUON: dict[str, Literal["adamw", "muon"]] = dict.fromkeys(LAYOUTS, "muon")
"""For every method: the best in minutes."""
ARM: dict[str, Any] = {"final_fraction": 0.2, "weight_decay": 0.005, "beta2": 0.95}
"""The optimizer of Shah et al. 2024, whose models the paper's autoregressive ones are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything, by method."""

    num_train: int
    num_test: int
    steps: dict[str, int]
    batch_size: dict[str, int]
    optimizer: dict[str, Literal["adamw", "muon"]]
    learning_rate: dict[str, float]
    loss: dict[str, Literal["plain", "skewed"]]
    model: dict[str, str]
    num_evaluations: int = 12
    """over a training, each of the first 128 held-out records"""

    def flags(self, method: str) -> dict[str, Any]:
        """The flags of a method's training."""
        import jax

        steps = self.steps[method]
        return {
            "num_train": self.num_train,
            "num_test": self.num_test,
            "model": self.model[method],
            "layout": LAYOUTS[method],
            "dtype": "bfloat16" if jax.default_backend() in ("gpu", "tpu") else "float32",
            "steps": steps,
            "batch_size": self.batch_size[method],
            "optimizer": self.optimizer[method],
            "learning_rate": self.learning_rate[method],
            "loss": self.loss[method],
            "warmup_steps": min(1000, steps // 10),
            "checkpoint_every": max(steps // (2 * self.num_evaluations), 1),
            "evaluate_every": max(steps // self.num_evaluations, 1),
            "evaluate_limit": min(128, self.num_test),
            **({} if method == "mdm" else ARM),
        }


def chosen_methods(names: str) -> list[str]:
    """The methods that a flag names with commas."""
    methods = names.split(",")
    for method in methods:
        lookup("method", LAYOUTS, method)
    return methods
