"""The paper's Table 1 at three scales. Started again, it goes on where it was."""

import dataclasses
import pathlib
import sys
from typing import Any

import mdm_jax
from experiments.common import Results, table
from experiments.journal import Journal
from experiments.nae_sat.decode import ORACLES, measure
from experiments.nae_sat.flags import Reproduce
from experiments.nae_sat.scales import BUDGETS, PAPER, SCALES, Scale
from experiments.nae_sat.train import (
    dataset_name,
    model_config,
    nae_sat_training,
    plot_nae_sat_training,
    train_model,
)
from mdm_jax.loading import Model
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.report import plots
from mdm_jax.typing import Oracle, Selector


def reproduce(flags: Reproduce) -> None:
    """`reproduce`: trains what is not trained, measures what is not measured, and prints and draws all of it."""
    results = Results("nae_sat", "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
    scale = SCALES[flags.scale]
    head = {"scale": flags.scale, "seed": flags.seed, "budget": dataclasses.asdict(BUDGETS[flags.scale])}
    journal = Journal(flags.out, head, flags.minutes)
    for distribution in scale.distributions:
        run = Run(flags, scale, distribution)
        for num_steps in (None, *scale.num_steps):
            for row in journal.rows(f"{run.dataset} {num_steps or 'one by one'}", lambda: run.rows(num_steps)):  # noqa: B023
                results.add(**row)
        for row in nae_sat_training(run.folder):
            results.add(**row)
    results.finish(seconds=journal.seconds)
    sys.stdout.write(f"\nTable 1\n{table(beside_the_paper(results.rows))}\n")
    draw(flags.out, scale, results.rows)


class Run:
    """One distribution: its model, trained when it is first needed."""

    def __init__(self, flags: Reproduce, scale: Scale, distribution: tuple[int, int]) -> None:
        num_latents, num_observations = distribution
        self._flags = BUDGETS[flags.scale].train_flags(
            num_latents,
            num_observations,
            evaluations=8,
            evaluate_limit=min(128, scale.num_samples),
            data=flags.data,
            seed=flags.seed,
            out=flags.out / f"{num_latents}-{num_observations}",
        )
        self._num_samples, self._paper = scale.num_samples, PAPER.get(distribution, {})
        self._model: Model | None = None
        self.folder, self.dataset = self._flags.out, dataset_name(vars(self._flags))

    def model(self) -> Model:
        """The trained model."""
        if self._model is None:
            config = model_config(self._flags)
            self._model = Model(config, train_model(self._flags, config).eval_params, make_denoiser(config))
        return self._model

    def rows(self, num_steps: int | None) -> list[dict[str, Any]]:
        """All orders and vanilla inference in `num_steps` steps, or one token at a time if that is None."""
        model, length = self.model(), self._flags.num_latents + self._flags.num_observations
        selector: Selector = mdm_jax.PerStep(1) if num_steps is None else mdm_jax.TopK(num_steps)
        ways: dict[str, tuple[Oracle, Selector]] = {name: (oracle, selector) for name, oracle in ORACLES.items()}
        ways["vanilla"] = ORACLES["random"], mdm_jax.Binomial(num_steps or length)
        rows = []
        for name, (oracle, chosen) in ways.items():
            options: dict[str, Any] = {"limit": self._num_samples, "seed": self._flags.seed, "batch_size": 250}
            found = measure(model, vars(self._flags), oracle, chosen, progress=f"{self.dataset} {name}", **options)
            fields = {"method": "mdm", "dataset": self.dataset, "oracle": name, "selector": repr(chosen)}
            rows.append({**fields, "num_steps": num_steps or length, **found, "paper": self._paper.get(name)})
        return rows


def beside_the_paper(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Table 1, a line for each distribution, order and number of steps."""
    names = {"dataset": "distribution", "num_steps": "steps", "oracle": "order", "paper": "paper", "accuracy": "ours"}
    names |= {"accuracy_ci": "95% interval", "nfe": "NFE", "per_second": "sequences/s"}
    return [{to: row.get(name) for name, to in names.items()} for row in rows if "examples" not in row]


def draw(folder: pathlib.Path, scale: Scale, rows: list[dict[str, Any]]) -> None:
    """The pictures of each distribution: over training, and against the number of steps."""
    for num_latents, num_observations in scale.distributions:
        name = dataset_name({"num_latents": num_latents, "num_observations": num_observations})
        stem = f"{num_latents}-{num_observations}"
        plot_nae_sat_training(folder / f"training-{stem}.png", folder / stem)
        series: dict[str, tuple[list[float], list[float]]] = {}
        own = [row for row in rows if row["dataset"] == name and "num_steps" in row]
        for row in sorted(own, key=lambda row: row["num_steps"]):
            x, y = series.setdefault(row["oracle"], ([], []))
            x.append(row["num_steps"])
            y.append(row["accuracy"])
        plots.curves(
            folder / f"steps-{stem}.png",
            series,
            x_label="steps of decoding",
            y_label="observations that agree with the latents (%)",
            title=f"L&O-NAE-SAT, {name}",
            log_x=True,
        )
        sys.stdout.write("".join(f"{folder / f'{kind}-{stem}.png'}\n" for kind in ("training", "steps")))
