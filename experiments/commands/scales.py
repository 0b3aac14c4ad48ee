"""How the models of a table are trained, at some scale. Importing this imports nothing heavy."""

import dataclasses
from typing import Any, Literal

LAYOUTS = {"mdm": "in-place", "arm": "triples", "arm_ordered": "ordered-triples"}
"""The layout of each method."""
ARM: dict[str, Any] = {"final_fraction": 0.2, "weight_decay": 0.005, "beta2": 0.95}
"""The optimizer of Shah et al. 2024, who trained the paper's autoregressive models."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """One training."""

    model: str
    steps: int
    batch_size: int
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float
    loss: Literal["plain", "skewed"] = "plain"

    def flags(self, *, checkpoints: int, evaluations: int) -> dict[str, Any]:
        """The flags of `train`, with numbers of checkpoints and of evaluations over the training."""
        import jax

        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(Budget)},
            "dtype": "bfloat16" if jax.default_backend() in ("gpu", "tpu") else "float32",
            "checkpoint_every": max(self.steps // checkpoints, 1),
            "evaluate_every": max(self.steps // evaluations, 1),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """The data, and a budget for each method."""

    num_train: int
    num_test: int
    mdm: Budget
    arm: Budget
    """of both autoregressive methods"""
    num_evaluations: int = 12
    """over a training, each of the first 128 held-out records"""

    def flags(self, method: str) -> dict[str, Any]:
        """The flags of a method's training."""
        budget = self.mdm if method == "mdm" else self.arm
        return {
            **budget.flags(checkpoints=2 * self.num_evaluations, evaluations=self.num_evaluations),
            "num_train": self.num_train,
            "num_test": self.num_test,
            "layout": LAYOUTS[method],
            "warmup_steps": min(1000, budget.steps // 10),
            "evaluate_limit": min(128, self.num_test),
            **({} if method == "mdm" else ARM),
        }


def chosen_methods(names: str) -> list[str]:
    """The methods that a flag names with commas."""
    from mdm_jax.data.checks import lookup

    methods = list(dict.fromkeys(names.split(",")))
    for method in methods:
        lookup("method", LAYOUTS, method)
    return methods
