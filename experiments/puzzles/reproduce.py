"""What makes a table of methods and orders: how much of everything, and one method after the other."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np

import mdm_jax
from experiments.common import Row
from experiments.journal import Journal
from experiments.puzzles.data import Game, Layout, MaskedLayout, Records
from experiments.puzzles.decode import ORACLES, autoregressive, masked, measure, order_fields
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.evaluation.puzzles import Decode, Filled
from mdm_jax.loading import Model

LAYOUTS = {"mdm": "in-place", "arm": "triples", "arm_ordered": "ordered-triples"}
"""Of each method."""
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
    """over a training, each of the first 128 held-out puzzles"""

    def flags(self, method: str) -> dict[str, Any]:
        """Those of a method's training."""
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
    unknown = [method for method in methods if method not in LAYOUTS]
    if unknown:
        raise InputError(f"unknown method {unknown[0]!r}; choose from {', '.join(LAYOUTS)}")
    return methods


class Method:
    """One method: its model, trained when it is first needed, and what was measured of it."""

    def __init__(self, game: Game, layout: Layout, journal: Journal, seed: int, train: Callable[[], Model]) -> None:
        self.layout = layout
        self._game, self._journal, self._seed = game, journal, seed
        self._model = functools.cache(train)

    def rows(
        self,
        dataset: str,
        records: Records,
        oracle: str | None,
        k: int = 1,
        *,
        paper: float | None = None,
        parts: Callable[[Filled], list[Row]] | None = None,
    ) -> list[Row]:
        """A row for an order and a number of cells per step, and those that `parts` makes of the answers."""
        name = f"{self.layout.method} {dataset} {oracle or 'greedy'} {k}"
        fields = {"method": self.layout.method, "dataset": dataset}
        fields |= order_fields(oracle, mdm_jax.PerStep(k)) if oracle else {}

        def work() -> list[Row]:
            options = {"seed": self._seed, "progress": name}
            row, filled = measure(self._game, self.layout, self._decode(oracle, k), records, **options)
            return [fields | row | {"paper": paper}, *(fields | part for part in (parts(filled) if parts else []))]

        return self._journal.rows(name, work)

    def _decode(self, oracle: str | None, k: int) -> Decode:
        model = self._model()
        if oracle is None or not isinstance(self.layout, MaskedLayout):
            return autoregressive(model.config, model.params)
        return masked(model.denoiser, model.params, self.layout, ORACLES[oracle], mdm_jax.PerStep(k))


def solved_by(field: str, kinds: np.ndarray, name: Callable[[int], str], is_solved: np.ndarray) -> list[Row]:
    """How many were solved of the puzzles of each kind: a row for each, the kind's name in `field`."""
    rows = []
    for kind in sorted(set(kinds.tolist())):
        n, solved = int((kinds == kind).sum()), int(is_solved[kinds == kind].sum())
        rows.append({field: name(kind), "n": n, "solved": solved / n, "solved_ci": list(wilson(solved, n))})
    return rows


def beside_the_paper(rows: Sequence[Row]) -> list[Row]:
    """A line of a table for each row."""
    names = {"method": "method", "oracle": "order", "paper": "paper", "solved": "ours", "solved_ci": "95% interval"}
    names |= {"nfe": "NFE", "per_second": "puzzles/s"}
    return [{to: row.get(name) for name, to in names.items()} for row in rows]
