"""Generates with the Bayes-optimal predictor in each order. This needs no training.

One token at a time, the observations of every sequence agree with its latents in any order: with exact conditionals the
order does not matter (Kim et al. 2025, section 4). The tokens of one step are drawn independently of each other. The
margin often reveals tokens together that depend on each other.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

import mdm_jax
from experiments.commands.curves import grouped
from experiments.common import Results, Row, say_written
from experiments.nae_sat import AGREEMENT, ORDERS, Exact
from mdm_jax.evaluation.intervals import mean_interval
from mdm_jax.evaluation.puzzles import fill_in
from mdm_jax.oracles import ORACLES
from mdm_jax.report import plots
from mdm_jax.tasks.nae_sat import distribution
from mdm_jax.theory.latents_observations import BayesDenoiser, LatentsObservations, states


def exact(flags: Exact) -> None:
    """`exact`: adds a row for each order and number of tokens per step, and draws the picture."""
    results = Results("nae_sat", "exact", out=flags.out, seed=flags.seed)
    functions = distribution.observations(flags.num_latents, flags.num_observations, flags.seed)
    law = LatentsObservations(flags.num_latents, (0.5, 0.5), functions)
    params = states(law)
    denoiser = BayesDenoiser(2, mask_id=distribution.MASK_ID)
    start = distribution.start(flags.limit, law.length)
    per_step = [k for k in (1, 2, 3, 4, 6, 10, 20, 30) if k < law.length] + [law.length]
    for name in ORDERS:
        for k in per_step:
            decode = functools.partial(
                mdm_jax.sample,
                denoiser,
                params,
                mask_id=distribution.MASK_ID,
                oracle=ORACLES[name],
                selector=mdm_jax.PerStep(jnp.int32(k)),
                temperature=1.0,
            )
            options: dict[str, Any] = {"batch_size": 500, "seed": flags.seed, "progress": f"{name}, {k} a step"}
            filled = fill_in(decode, start, padding=np.zeros_like(start[0]), **options)
            shares = law.consistent(filled.tokens).mean(axis=1)
            results.add(
                method="bayes",
                dataset=f"N={flags.num_latents}, P={flags.num_observations}",
                oracle=name,
                tokens_per_step=k,
                n=len(shares),
                accuracy=float(shares.mean()),
                accuracy_ci=np.clip(mean_interval(shares), 0, 1).tolist(),
                all_agree=float((shares == 1).mean()),
                nfe=filled.nfe,
            )
    results.finish()
    plot(flags.out / "exact.png", results.rows)
    say_written(flags.out / "exact.png")


def plot(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws the agreement against the tokens per step."""
    plots.curves(
        path,
        grouped(rows, "tokens_per_step", "accuracy"),
        x_label="tokens revealed per step",
        y_label=AGREEMENT,
        title=f"The exact predictor, {rows[0]['dataset']}, with 95% intervals",
        log_x=True,
    )
