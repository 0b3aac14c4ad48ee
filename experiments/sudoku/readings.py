"""Which reading of the paper's decoder gives its three numbers? Every combination of what it leaves open."""

import functools
import itertools
import sys
from typing import Any

import mdm_jax
from experiments.common import Results, table
from experiments.sudoku.data import first, test_set
from experiments.sudoku.decode import measure
from experiments.sudoku.evaluate import load_model
from experiments.sudoku.flags import Readings
from mdm_jax import oracles
from mdm_jax.data import sudoku_layouts
from mdm_jax.data.sudoku_layouts import Masked
from mdm_jax.errors import InputError

PAPER = {"random": 0.0688, "top_prob": 0.1851, "margin": 0.8949}
SCORES = {
    "random": {"-": oracles.random},
    "top_prob": {"probability": oracles.top_prob, "log": oracles.top_log_prob},
    "margin": {"probability": oracles.margin, "log": oracles.log_margin},
}
"""By the paper's name of the order, then by the scale of its score."""


def readings(flags: Readings) -> None:
    """`readings`: a row for each combination, and a table of them beside the paper."""
    results = Results("sudoku", "readings", out=flags.out, seed=flags.seed)
    model, task = load_model(flags.checkpoint, None)
    layout = sudoku_layouts.get(task["layout"])
    if not isinstance(layout, Masked):
        raise InputError(f"{flags.checkpoint} is autoregressive and has no order to choose: give a masked model")
    records = first(flags.limit, test_set(task, "normal" if task["size"] == 9 else task["difficulty"]))
    noises = {"none": (0.0, False), "annealed": (flags.noise, True), "constant": (flags.noise, False)}
    for decoder, values, noise in itertools.product(("strict", "remasking"), ("likeliest", "drawn"), noises):
        scale, anneal = noises[noise]
        for order, scales in SCORES.items():
            for score, oracle in scales.items():
                if score == "log" and order == "top_prob" and not scale:
                    continue  # the same order as by probability
                if order == "random" and scale:
                    continue  # no less random with noise
                decode = functools.partial(
                    mdm_jax.remasking_sample,
                    model.denoiser,
                    model.params,
                    mask_id=layout.mask_id,
                    num_steps=flags.num_steps,
                    oracle=oracle,
                    noise=scale,
                    anneal=anneal,
                    remask=decoder == "remasking",
                    temperature=float(values == "drawn"),
                )
                name = f"{decoder} {values} {noise} {order} {score}"
                row, _ = measure(layout, decode, records, seed=flags.seed, batch_size=flags.batch_size, progress=name)
                fields = {"decoder": decoder, "values": values, "noise": noise, "oracle": order, "score": score}
                results.add(**{"method": "mdm", **fields, **row, "paper": PAPER[order]})
    results.finish()
    sys.stdout.write("\n" + table(side_by_side(results.rows)) + "\n")


def side_by_side(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each reading: the share solved in the three orders; first the paper's."""
    choices = ("decoder", "values", "noise", "score", "oracle")
    solved = {tuple(row[name] for name in choices): row["solved"] for row in rows}
    lines = [dict.fromkeys(choices[:4], "paper") | PAPER]
    for reading in [choice for *choice, order in solved if order == "margin"]:
        decoder, values, noise, _ = reading
        by_probability = solved.get((decoder, values, noise, "probability", "top_prob"))
        shares = {
            "random": solved[decoder, values, "none", "-", "random"],
            "top_prob": solved.get((*reading, "top_prob"), by_probability),
            "margin": solved[*reading, "margin"],
        }
        lines.append(dict(zip(choices[:4], reading, strict=True)) | shares)
    return lines
