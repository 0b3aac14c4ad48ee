"""The paper leaves parts of its decoder open. This decodes with every combination and compares its three numbers."""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from experiments.commands.decode import masked, measure, remasking
from experiments.common import Results, Row, table
from experiments.oracles import oracle_named
from experiments.sudoku import PAPER, held_out
from experiments.sudoku_flags import Readings
from experiments.trained import load_run
from mdm_jax import Binomial, oracles
from mdm_jax.errors import InputError
from mdm_jax.sampling import Decode
from mdm_jax.typing import Array, Confidence


def log_of_margin(key: Array, confidence: Confidence) -> Array:
    """log(p1 - p2), nats: the order of `oracles.margin`, on another scale for the noise."""
    return jnp.log(jnp.maximum(oracles.margin(key, confidence), jnp.finfo(jnp.float32).tiny))


ORDERS = {
    "random": {"-": "random"},
    "top_prob": {"probability": "top_prob", "log": "top_log_prob"},
    "margin": {"probability": "margin", "log": "log_margin", "log(p1-p2)": f"{__name__}:log_of_margin"},
}
"""Oracles by the paper's name of the order, then by the scale of its score."""
SAME_WITHOUT_NOISE = (("top_prob", "log"), ("margin", "log(p1-p2)"))
"""Scores that give the same order as the probability."""
CHOICES = ("decoder", "values", "noise", "score")
"""The fields of a reading, which is one combination of choices."""
VALUES = {"likeliest": 0.0, "drawn": 1.0}
"""How digits are chosen, with the temperature."""


def readings(flags: Readings) -> None:
    """`readings`: a row for each reading, and a table of all readings, the nearest to the paper first."""
    results = Results("sudoku", "readings", out=flags.out, seed=flags.seed)
    model, task, layout = load_run("sudoku", flags.checkpoint)
    if layout.mask_id is None:
        raise InputError(f"{flags.checkpoint} is autoregressive and has no order to choose: give a masked model")
    task = dataclasses.replace(task, difficulty="normal" if task.size == 9 else task.difficulty)
    records = held_out(task, flags.source, flags.limit, task.difficulty)
    common: Row = {"dataset": task.title, "checkpoint": str(flags.checkpoint)}
    common |= {"num_steps": flags.num_steps, "noise_scale": flags.noise}

    def add(order: str, reading: tuple[str, str, str, str], decode: Decode) -> None:
        options = {"seed": flags.seed, "batch_size": flags.batch_size, "progress": " ".join((*reading, order))}
        row = measure(task, layout, decode, records, **options).row
        paper = PAPER["mdm", "normal", order] if task.size == 9 else None
        fields = {"oracle": order, **dict(zip(CHOICES, reading, strict=True))}
        results.add(**{"method": "mdm", **common, **fields, **row, "paper": paper})

    for values, temperature in VALUES.items():
        vanilla = masked(model, layout, oracles.random, Binomial(flags.num_steps), temperature=temperature)
        add("random", ("vanilla", values, "none", "-"), vanilla)
    noises = {"none": (0.0, False), "annealed": (flags.noise, True), "constant": (flags.noise, False)}
    for decoder, values, noise in itertools.product(("strict", "remasking"), VALUES, noises):
        scale, anneal = noises[noise]
        for order, scales in ORDERS.items():
            for score, oracle in scales.items():
                if order == "random" if scale else (order, score) in SAME_WITHOUT_NOISE:
                    continue  # noise makes the random order no less random
                options: dict[str, Any] = {"noise": scale, "anneal": anneal, "temperature": VALUES[values]}
                options["remask"] = decoder == "remasking"
                decode = remasking(model, layout, oracle_named(oracle), flags.num_steps, **options)
                add(order, (decoder, values, noise, score), decode)
    results.finish()
    sys.stdout.write("\n" + table(side_by_side(results.rows)) + "\n")


def side_by_side(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The paper's line, then one line for each reading, by distance: the share solved in each of the three orders.

    `distance` is the largest difference from the paper, over top_prob and margin. The random order depends on fewer
    choices and does not count.
    """
    solved = {(*(row[name] for name in CHOICES), row["oracle"]): row["solved"] for row in rows}
    paper = {row["oracle"]: row["paper"] for row in rows if "paper" in row}
    lines = []
    for reading in [choice for *choice, order in solved if order == "margin"]:
        decoder, values, noise, score = reading
        alike = [(decoder, values, noise, name) for name in (score, "log", "probability")]
        shares = {
            "random": solved[decoder, values, "none", "-", "random"],
            "top_prob": next(solved[*same, "top_prob"] for same in alike if (*same, "top_prob") in solved),
            "margin": solved[*reading, "margin"],
        }
        line = dict(zip(CHOICES, reading, strict=True)) | shares
        if paper:
            line["distance"] = max(abs(shares[order] - paper[order]) for order in ("top_prob", "margin"))
        lines.append(line)
    lines.sort(key=lambda line: line.get("distance", 0.0))
    for *reading, order in solved:
        if reading[0] == "vanilla":
            lines.append(dict(zip(CHOICES, reading, strict=True)) | {order: solved[*reading, order]})
    return [dict.fromkeys(CHOICES, "paper") | paper, *lines] if paper else lines
