"""Sequences that a model generates from nothing, and how well they agree with themselves."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

import mdm_jax
from experiments.common import Results
from mdm_jax import oracles
from mdm_jax.evaluation.intervals import mean_interval, wilson
from mdm_jax.evaluation.puzzles import Filled, fill_in
from mdm_jax.loading import Model
from mdm_jax.tasks.nae_sat import puzzle as nae_sat
from mdm_jax.typing import Oracle, Selector

ORACLES: dict[str, Oracle] = {
    "random": oracles.random,
    "top_prob": oracles.top_prob,
    "margin": oracles.margin,
    "neg_entropy": oracles.neg_entropy,
    "token_prob": oracles.token_prob,
    "left_to_right": oracles.left_to_right,
}
"""The orders that tables compare."""


def generate(
    model: Model,
    task: Mapping[str, Any],
    oracle: Oracle,
    selector: Selector | None = None,
    *,
    limit: int,
    temperature: float = 1.0,
    block_length: int | None = None,
    **options: Any,
) -> Filled:
    """Sequences from nothing but padding, one token a step unless a selector is given; options as for `fill_in`."""
    used = task["num_latents"] + task["num_observations"]
    start = nae_sat.start(limit, used, task["length"])
    decode = functools.partial(
        mdm_jax.sample,
        model.denoiser,
        model.params,
        mask_id=nae_sat.MASK_ID,
        oracle=oracle,
        selector=selector or mdm_jax.PerStep(1),
        temperature=temperature,
        block_length=block_length,
    )
    return fill_in(decode, start, padding=np.zeros_like(start[0]), **options)


def scores(filled: Filled, task: Mapping[str, Any]) -> np.ndarray:
    """Of each sequence, the share of observations that agree with its latents, float [num]."""
    functions = nae_sat.observations(task["num_latents"], task["num_observations"], task["seed"])
    return nae_sat.accuracy(filled.tokens, functions, task["num_latents"])


def measure(
    model: Model, task: Mapping[str, Any], oracle: Oracle, selector: Selector | None = None, **options: Any
) -> dict[str, Any]:
    """What a row says of sequences generated in one order; options as for `generate`."""
    filled = generate(model, task, oracle, selector, **options)
    shares = scores(filled, task)
    is_observation = np.arange(task["num_latents"] + task["num_observations"]) >= task["num_latents"]
    return {
        "n": len(shares),
        "accuracy": float(shares.mean()),
        "accuracy_ci": np.clip(mean_interval(shares), 0, 1).tolist(),
        "all_agree": float((shares == 1).mean()),
        "all_agree_ci": list(wilson(int((shares == 1).sum()), len(shares))),
        "ones": float(filled.tokens[:, : len(is_observation)][:, is_observation].mean()),
        "nfe": round(filled.nfe, 2),
        "per_second": round(len(shares) / filled.seconds, 2),
    }


def add_rows(
    results: Results,
    model: Model,
    task: Mapping[str, Any],
    orders: Mapping[str, Oracle],
    selector: Selector | None = None,
    **options: Any,
) -> None:
    """One row for each order."""
    chosen = selector or mdm_jax.PerStep(1)
    k = chosen.k if isinstance(chosen, mdm_jax.PerStep) else None
    dataset = f"N={task['num_latents']}, P={task['num_observations']}"
    for name, oracle in orders.items():
        fields = {"method": "mdm", "dataset": dataset, "oracle": name, "selector": repr(chosen), "tokens_per_step": k}
        results.add(**fields, **measure(model, task, oracle, chosen, progress=f"{dataset} {name}", **options))
