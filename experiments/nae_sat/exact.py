"""What the Bayes-optimal predictor makes of each order: a demonstration that needs no training.

One token at a time, every order gives sequences that agree with themselves throughout: with exact conditionals order
does not matter (Kim et al. 2025, section 4). Several at a time are drawn as if they knew nothing of one another, and
the margin draws together just those that do.
"""

import functools
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

import mdm_jax
from experiments.common import Results
from experiments.nae_sat.decode import ORACLES
from experiments.nae_sat.flags import Exact
from mdm_jax.evaluation.intervals import mean_interval
from mdm_jax.evaluation.puzzles import fill_in
from mdm_jax.report import plots
from mdm_jax.tasks.nae_sat import puzzle as nae_sat
from mdm_jax.theory.latents_observations import BayesDenoiser, LatentsObservations, states


def exact(flags: Exact) -> None:
    """`exact`: a row for each order and number of tokens per step, and the picture."""
    results = Results("nae_sat", "exact", out=flags.out, seed=flags.seed)
    functions = nae_sat.observations(flags.num_latents, flags.num_observations, flags.seed)
    distribution = LatentsObservations(flags.num_latents, (0.5, 0.5), functions)
    params = states(distribution)
    denoiser = BayesDenoiser(2, mask_id=nae_sat.MASK_ID)
    start = nae_sat.start(flags.limit, distribution.length)
    per_step = [k for k in (1, 2, 3, 4, 6, 10, 20, 30) if k < distribution.length] + [distribution.length]
    series: dict[str, tuple[list[float], list[float]]] = {}
    for name, oracle in ORACLES.items():
        for k in per_step:
            decode = functools.partial(
                mdm_jax.sample,
                denoiser,
                params,
                mask_id=nae_sat.MASK_ID,
                oracle=oracle,
                selector=mdm_jax.PerStep(jnp.int32(k)),
                temperature=1.0,
            )
            options: dict[str, Any] = {"batch_size": 500, "seed": flags.seed, "progress": f"{name}, {k} a step"}
            filled = fill_in(decode, start, padding=np.zeros_like(start[0]), **options)
            shares = distribution.consistent(filled.tokens).mean(axis=1)
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
            x, y = series.setdefault(name, ([], []))
            x.append(k)
            y.append(float(shares.mean()))
    results.finish()
    path = flags.out / "exact.png"
    plots.curves(
        path,
        series,
        x_label="tokens revealed per step",
        y_label="observations that agree with the latents (%)",
        title=f"The exact predictor, N = {flags.num_latents}, P = {flags.num_observations}",
        log_x=True,
    )
    sys.stdout.write(f"{path}\n")
