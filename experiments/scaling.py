"""Figure 2, left: the loss against compute of models of one order, from left to right to any, and of masked models.

Claim (Kim et al. 2025, section 3.2; SlimPajama, rows of 2,048 tokens, about 6e18 to 1e20 FLOPs): at equal compute a
causal model of text from left to right has the lowest loss. A causal model of another fixed order loses more, the
further that order is from left to right. A masked model, which learns every order, is near one of a random order.

For each budget of compute C, networks of several sizes N are trained on D = C / (6 N) tokens, and the lowest held-out
loss counts (Hoffmann et al. 2022). N leaves out embeddings and the head. A power law, loss = A C^-b, is fitted to each
class of orders. `small` makes 90 trainings, and took 32 minutes on two CPU cores.

    python -m experiments.scaling reproduce --source novels-train.txt --test-source novels-test.txt
    python -m experiments.scaling reproduce --scale smoke --source "books/*.txt" --held-out 0.05
    python -m experiments.scaling reproduce --scale paper --source "slimpajama/*.jsonl.zst" --tokenizer llama2/
"""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from experiments.common import run
from mdm_jax.ranges import Range, Seed

if TYPE_CHECKING:
    from experiments.text import Order


class Learner(NamedTuple):
    """A class of models: what training minimises, and in which order."""

    loss: Literal["causal", "subset"]
    order: "Order | None"


LEARNERS = {
    "left to right": Learner("causal", "identity"),
    "much closer": Learner("causal", "much-closer"),
    "closer": Learner("causal", "closer"),
    "uniform": Learner("causal", "uniform"),
    "masked": Learner("subset", None),
}
"""The first is the autoregressive model, the last the masked one; between them are the paper's π-learners."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Train every class at every budget and size, and fit a power law to each class."""

    source: str
    """the corpus, as for experiments.text"""
    test_source: str | None = None
    """the documents held out (None: a share of the source's)"""
    held_out: Annotated[float, Range(above=0, below=1)] = 0.01
    """the share of documents held out"""
    tokenizer: pathlib.Path | None = None
    """a tokenizer.json, or its folder (None: one is trained)"""
    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds; small: 4,000 to 37,000 parameters, by bytes, on two CPU cores; paper: SMDM's 66M to 1,028M on
    accelerators"""
    minutes: Annotated[float, Range(0, 1e6)] | None = None
    """save and stop after this long; the same command goes on"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Seed = 0
    """of the orders, the parameters, the data and all draws"""
    out: pathlib.Path = pathlib.Path("runs/scaling")
    """folder of the runs, units.jsonl, the picture and results.json"""


class Network(NamedTuple):
    """A preset, and the layers and width that replace its own."""

    model: str
    layers: int | None = None
    width: int | None = None


@dataclasses.dataclass(frozen=True)
class Scale:
    """The budgets, the networks that are trained at each, and how."""

    budgets: dict[float, tuple[Network, ...]]
    """FLOPs, 6 N D"""
    length: int
    vocab: int
    """of the tokenizer, if one is trained"""
    batch_size: int
    learning_rate: float
    repeats: int
    """orders of each class, each with a seed of its own"""
    evaluate_limit: int
    """held-out rows"""
    draws: int
    """sets of masks of each held-out row, for masked models"""


def _own(*sizes: tuple[int, int]) -> tuple[Network, ...]:
    return tuple(Network("smdm_6m", layers, width) for layers, width in sizes)


def _smdm(*sizes: str) -> tuple[Network, ...]:
    return tuple(Network(f"smdm_{size}") for size in sizes)


SCALES = {
    "smoke": Scale(
        budgets={8e6: _own((1, 16)), 1.6e7: _own((1, 16), (1, 32))},
        length=16,
        vocab=300,
        batch_size=8,
        learning_rate=3e-3,
        repeats=2,
        evaluate_limit=8,
        draws=1,
    ),
    "small": Scale(
        budgets={
            4e10: _own((1, 16), (1, 24)),
            1.3e11: _own((1, 24), (1, 32)),
            4e11: _own((1, 32), (1, 48)),
        },
        length=256,
        vocab=257,
        batch_size=8,
        learning_rate=3e-3,
        repeats=3,
        evaluate_limit=512,
        draws=2,
    ),
    "paper": Scale(
        budgets={
            6e18: _smdm("66m", "113m", "170m", "268m"),
            2e19: _smdm("113m", "170m", "268m", "472m"),
            6e19: _smdm("170m", "268m", "472m", "1028m"),
            1e20: _smdm("206m", "336m", "472m", "1028m"),
        },
        length=2048,
        vocab=32_000,
        batch_size=256,
        learning_rate=4e-4,
        repeats=3,
        evaluate_limit=1024,
        draws=16,
    ),
}

COMMANDS = {"reproduce": (Reproduce, "experiments.scaling_curves:reproduce")}

if __name__ == "__main__":
    run("scaling")
