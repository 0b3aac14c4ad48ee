"""The flags of the L&O-NAE-SAT commands. What they do is imported when one runs, so that `--help` answers at once."""

import dataclasses
import pathlib
from typing import Annotated, Literal

from experiments.flags import DecodeFlags, RunFlags
from mdm_jax.ranges import INT32, Count, NotNegative, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Which distribution, and how many sequences of it."""

    num_latents: Annotated[int, Range(3, 10_000)] = 25
    """N: bits that observations are made of"""
    num_observations: Annotated[int, Range(1, 100_000)] = 275
    """P: triples of them that are observed, fixed by the seed"""
    num_train: Annotated[int, Range(1, INT32)] = 500_000
    """sequences to train on"""
    num_test: Annotated[int, Range(1, 1_000_000)] = 1_000
    """sequences held out"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Annotated[int, Range(0, below=1 << 32)] = 0
    """of the triples, the sequences, the parameters and all draws"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(DataFlags):
    """Draw sequences and write them as a tfds dataset."""

    out: pathlib.Path = pathlib.Path("runs/nae-sat-prepare")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(DataFlags, RunFlags):
    """Train a model; the same command again goes on from its newest checkpoint."""

    model: str = "smdm_19m"
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the sequences"""
    length: Annotated[int, Range(1, 1 << 20)] | None = None
    """pad sequences to this length, 512 in the paper; padding is given and attended to (None: no padding)"""
    init_from: pathlib.Path | None = None
    """start from these weights instead of random ones: a run's folder, or one of its checkpoints"""
    evaluate_limit: Count = 256
    """sequences to generate in an evaluation, one token at a time, for accuracy/random and accuracy/margin"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat")
    """folder of the run: checkpoints, metrics, results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(DecodeFlags):
    """Generate from nothing, and count the observations that agree with the latents beside them."""

    oracle: str = "random,top_prob,margin,neg_entropy,token_prob,left_to_right"
    """orders to generate in, with commas"""
    temperature: NotNegative = 1.0
    """of the values, which the paper samples; 0 takes the likeliest"""
    step_counts: tuple[Count, ...] = ()
    """or: generate in each of these numbers of steps, by the linear schedule"""
    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    limit: Count = 1_000
    """sequences to generate"""
    batch_size: Count = 250
    """sequences at a time"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat-evaluate")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Table 1: train a model for each distribution, and generate in every order; started again, it goes on."""

    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds of everything; small: 10 latents, 50 observations, 0.8M parameters; paper: all of Table 1"""
    minutes: Annotated[float, Range(0, 1e6)] | None = None
    """save and stop after this long; the same command goes on"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: int = 0
    """of the triples, the sequences, the parameters and all draws"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat-reproduce")
    """folder of the runs, of what was measured so far, of pictures and results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact:
    """What the best predictor there is makes of each order: generate with it, several tokens a step, and count."""

    num_latents: Count = 10
    """N: bits that observations are made of; all 2^N are enumerated"""
    num_observations: Count = 50
    """P: triples of them that are observed"""
    limit: Count = 2_000
    """sequences to generate"""
    seed: int = 0
    """of the triples and all draws"""
    out: pathlib.Path = pathlib.Path("runs/nae-sat-exact")
    """folder of the picture and results.json"""
