"""Figure 2, bottom right: a model learns the observations long before it learns the latents.

Claim (Kim et al. 2025, section 3.3; L&O-NAE-SAT with N = 20, P = 280, 19M parameters, 2,000 iterations): with l latents
and l P / N observations masked, the error of the conditionals is far larger at latents than at observations. The paper
compares with the same model after 25 times as many steps. This also compares with the exact conditionals.
`small` takes about half an hour on two free CPU cores.

    python -m experiments.imbalance reproduce --scale smoke
    python -m experiments.imbalance reproduce
    python -m experiments.imbalance reproduce --scale paper
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

from experiments.common import Results, Row, run, say_written
from experiments.nae_sat import BUDGETS, SequenceBudget
from mdm_jax.ranges import Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Train a model, then train it for 25 times as long, and compare their conditionals with the exact ones."""

    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: a few seconds; small: 12 latents, 48 observations, 0.8M parameters; paper: 20 and 280, 19M"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Seed = 0
    """of the triples, the sequences, the parameters and all draws"""
    out: pathlib.Path = pathlib.Path("runs/imbalance")
    """folder of the runs, the pictures, positions.json and results.json"""


@dataclasses.dataclass(frozen=True)
class Scale:
    """The distribution, the training of the model, and the evaluation. The proxy takes `PROXY` times as many steps."""

    num_latents: int
    num_observations: int
    budget: SequenceBudget
    num_sequences: int
    figure_latents: int
    """the number of masked latents in the picture by position"""


PROXY = 25
SCALES = {
    "smoke": Scale(4, 8, dataclasses.replace(BUDGETS["smoke"], steps=2), 20, 2),
    "small": Scale(12, 48, dataclasses.replace(BUDGETS["small"], steps=800, batch_size=16), 1000, 11),
    "paper": Scale(20, 280, BUDGETS["paper"], 1000, 11),
}


def reproduce(flags: Reproduce) -> None:
    """`reproduce`: trains both models, and adds a row for each reference and number of masked latents."""
    import numpy as np

    from experiments.commands.train import train_model
    from mdm_jax.evaluation import imbalance
    from mdm_jax.progress import Bar
    from mdm_jax.tasks.nae_sat import distribution
    from mdm_jax.theory.latents_observations import BayesDenoiser, LatentsObservations, states

    results = Results("imbalance", "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
    scale = SCALES[flags.scale]
    N, P = scale.num_latents, scale.num_observations
    base_flags = scale.budget.train_flags(
        N,
        P,
        evaluations=1,
        evaluate_limit=min(128, scale.num_sequences),
        data=flags.data,
        seed=flags.seed,
        out=flags.out / "base",
    )
    task = base_flags.task()
    layout = base_flags.layout_of(task)
    base, _ = train_model(base_flags)
    proxy_flags = dataclasses.replace(
        base_flags,
        steps=PROXY * base_flags.steps,
        evaluate_every=PROXY * base_flags.steps,
        checkpoint_every=max(PROXY * base_flags.steps // 10, 1),
        init_from=base_flags.out,
        out=flags.out / "proxy",
    )
    proxy, _ = train_model(proxy_flags)
    functions = distribution.observations(N, P, flags.seed)
    params = states(LatentsObservations(N, (0.5, 0.5), functions))
    bayes = BayesDenoiser(2, mask_id=distribution.MASK_ID)

    records = task.records("test", scale.num_sequences)
    x_0, padded = records["tokens"], layout.examples(records)["tokens"]
    rng = np.random.default_rng([flags.seed, 2])
    by_position: list[dict[str, Any]] = []
    for masked in Bar(range(1, N), desc="masked latents", leave=False):
        is_masked = imbalance.draw_masks(rng, len(x_0), N, P, masked)
        log_p, log_proxy = (
            imbalance.log_probs(model.denoiser, model.params, padded, is_masked, mask_id=distribution.MASK_ID)
            for model in (base, proxy)
        )
        log_q = imbalance.log_probs(bayes, params, x_0, is_masked, mask_id=distribution.MASK_ID)
        pairs = {"model, exact": (log_p, log_q), "model, proxy": (log_p, log_proxy), "proxy, exact": (log_proxy, log_q)}
        for name, (left, right) in pairs.items():
            found = imbalance.errors(left, right, is_masked, N)
            row: dict[str, Any] = {
                "compared": name,
                "masked_latents": masked,
                "masked_observations": round(masked * P / N),
            }
            for kind, values in (("latents", found.latents), ("observations", found.observations)):
                if values is not None:
                    mean, low, high = values
                    row |= {f"{kind}_error": mean, f"{kind}_error_ci": [low, high]}
            results.add(dataset=f"N={N}, P={P}", n=len(x_0), **row)
            # JSON has no NaN: None takes its place.
            means = [[None if np.isnan(v) else float(f"{v:.4g}") for v in triple] for triple in found.positions]
            by_position.append({"compared": name, "masked_latents": masked, "mean_low_high": means})
    results.finish()
    lines = ",\n".join(json.dumps(row) for row in by_position)
    (flags.out / "positions.json").write_text(f"[\n{lines}\n]\n")
    pictures = [flags.out / f"imbalance-{what}.png" for what in ("positions", "latents")]
    plot_positions(pictures[0], by_position, scale)
    plot_latents(pictures[1], results.rows)
    say_written(flags.out / "positions.json", *pictures)


LABEL = "squared error of the log-probability (nats²)"


def plot_positions(path: pathlib.Path, by_position: Sequence[Row], scale: Scale) -> None:
    """Draws the errors of the model by position, at one number of masked latents."""
    import numpy as np

    from mdm_jax.report import bars

    N, P = scale.num_latents, scale.num_observations
    panels = {
        f"the model against the {row['compared'].removeprefix('model, ')} conditionals": np.array(
            row["mean_low_high"], float
        )
        for row in by_position
        if row["masked_latents"] == scale.figure_latents and row["compared"].startswith("model")
    }
    title = f"{scale.budget.steps} steps of training, {scale.figure_latents} of {N} latents masked, N = {N}, P = {P}"
    bars.positions(path, panels, N, y_label=LABEL, title=title)


def plot_latents(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws the errors of the model by the number of masked latents."""
    from experiments.commands.curves import grouped
    from mdm_jax.report import plots

    own = []
    for against, kind in itertools.product(("exact", "proxy"), ("latents", "observations")):
        for row in rows:
            if row["compared"] == f"model, {against}" and f"{kind}_error" in row:
                error = {"error": row[f"{kind}_error"], "error_ci": row[f"{kind}_error_ci"]}
                own.append(error | {"masked": row["masked_latents"], "of": f"{kind}, {against}"})
    plots.curves(
        path,
        grouped(own, "masked", "error", by="of"),
        x_label="latents masked",
        y_label=LABEL,
        title=f"Error at latents and observations, {rows[0]['dataset']}, with 95% intervals",
        is_share=False,
    )


COMMANDS = {"reproduce": (Reproduce, "experiments.imbalance:reproduce")}

if __name__ == "__main__":
    run("imbalance")
