"""How many tokens each step should reveal: the theorem's divergence beside the measured one.

Claim (Chen, Cong, Li 2025, arXiv:2511.04647): in random order, what parallel decoding loses follows from the
information curve alone, and so does the schedule that loses least. Here the conditionals are exact, so that nothing
else is lost. The draws that choose the best schedule are not those of its divergence, by the theorem and measured, nor
those of its samples.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import mdm_jax
from experiments.common import Results, Row, say_written, table
from experiments.nae_sat import Schedules
from mdm_jax import oracles
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import mean_interval
from mdm_jax.evaluation.puzzles import fill_in
from mdm_jax.report import plots
from mdm_jax.tasks.nae_sat import distribution
from mdm_jax.theory.information_curve import Counts, best_counts, divergence, entropies, nll
from mdm_jax.theory.latents_observations import BayesDenoiser, LatentsObservations, states

COLUMNS = {
    "nfe": "calls",
    "schedule": "schedule",
    "divergence": "theorem, nats",
    "measured": "measured",
    "measured_ci": "95% interval",
    "accuracy": "agreement",
    "all_agree": "all agree",
}


def counts_of(schedule: mdm_jax.Schedule, num_steps: int, length: int) -> list[int]:
    """The tokens that `TopK` reveals in each step; steps that reveal none are left out."""
    selector, n_0 = mdm_jax.TopK(num_steps, schedule), jnp.array([length])
    left, counts = length, []
    for j in range(1, num_steps + 1):
        counts.append(int(selector.plan(jnp.array(0), jnp.array([j]), n_0, jnp.array([left]))[0]))
        left -= counts[-1]
    return [count for count in counts if count]


def schedules(flags: Schedules) -> None:
    """`schedules`: adds a row for each number of steps and schedule, and draws the picture."""
    functions = distribution.observations(flags.num_latents, flags.num_observations, flags.seed)
    law = LatentsObservations(flags.num_latents, (0.5, 0.5), functions)
    if not 0 < max(flags.num_steps, default=0) <= law.length:
        raise InputError(f"--num-steps wants numbers of at most the {law.length} positions")
    results = Results("nae_sat", "schedules", out=flags.out, seed=flags.seed)
    denoiser, params = BayesDenoiser(2, mask_id=distribution.MASK_ID), states(law)
    first, second, third = (law.sample(np.random.default_rng([flags.seed, i]), flags.limit) for i in range(3))
    options: dict[str, Any] = {"mask_id": distribution.MASK_ID}
    curves = entropies(denoiser, params, first, seed=flags.seed, **options)
    curve = curves.mean(axis=0)
    chosen_by = entropies(denoiser, params, third, seed=flags.seed + 2, **options).mean(axis=0)

    def measure(counts: Sequence[int]) -> NDArray[np.float64]:
        return nll(denoiser, params, second, counts, seed=flags.seed + 1, **options)

    one_by_one = measure([1] * law.length)
    start = distribution.start(flags.limit, law.length)
    for num_steps in flags.num_steps:
        ways = {
            "linear": counts_of(mdm_jax.Linear(), num_steps, law.length),
            "cosine": counts_of(mdm_jax.Cosine(), num_steps, law.length),
            "best": best_counts(chosen_by, num_steps).tolist(),
        }
        for name, counts in ways.items():
            lost = measure(counts) - one_by_one
            decode = functools.partial(
                mdm_jax.sample,
                denoiser,
                params,
                oracle=oracles.random,
                selector=Counts(jnp.asarray(counts)),
                temperature=1.0,
                **options,
            )
            label = f"{name}, {num_steps} steps"
            filled = fill_in(
                decode, start, padding=np.zeros_like(start[0]), batch_size=500, seed=flags.seed, progress=label
            )
            shares = law.consistent(filled.tokens).mean(axis=1)
            results.add(
                method="bayes",
                dataset=f"N={flags.num_latents}, P={flags.num_observations}",
                schedule=name,
                num_steps=num_steps,
                counts=counts,
                n=flags.limit,
                divergence=float(divergence(curve, counts)),
                divergence_ci=mean_interval(divergence(curves, counts)),
                measured=float(lost.mean()),
                measured_ci=mean_interval(lost),
                accuracy=float(shares.mean()),
                accuracy_ci=np.clip(mean_interval(shares), 0, 1).tolist(),
                all_agree=float((shares == 1).mean()),
                nfe=filled.nfe,
            )
    results.finish(fields={"curve": curve.tolist()}, shown=shown)
    plot(flags.out / "schedules.png", results.rows)
    say_written(flags.out / "schedules.png")


def shown(rows: Sequence[Row]) -> str:
    """The table that is printed."""
    return table([{head: row[name] for name, head in COLUMNS.items()} for row in rows])


def plot(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws what was measured against the network calls: the divergence, and the agreement of the samples."""
    by_name = {name: [row for row in rows if row["schedule"] == name] for name in ("linear", "cosine", "best")}
    parts = {}
    for label, field in {"divergence from the exact law (nats)": "measured", "share that agrees": "accuracy"}.items():
        parts[label] = {
            name: plots.Curve(
                [row["nfe"] for row in own],
                [row[field] for row in own],
                *([row[f"{field}_ci"][i] for row in own] for i in (0, 1)),
            )
            for name, own in by_name.items()
        }
    title = f"Random order, exact conditionals, {rows[0]['dataset']}"
    plots.panels(path, parts, x_label="network calls", title=title, log_x=True)
