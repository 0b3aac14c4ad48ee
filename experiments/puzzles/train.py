"""Training on puzzles."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import mdm_jax
from experiments.common import Results
from experiments.flags import PuzzleRunFlags
from experiments.puzzles.data import Game, Layout, MaskedLayout, Records, first
from experiments.puzzles.decode import TWO_ORDERS, add_row, answer, decoders, order_fields
from experiments.training import begin, computed_in
from mdm_jax.data import pipeline
from mdm_jax.errors import InputError
from mdm_jax.loading import Model
from mdm_jax.models import presets
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.training.objectives import causal_loss, masked_loss, reweighted_loss, skewed_loss
from mdm_jax.typing import Array, Oracle, Params

LOSSES = {"plain": masked_loss, "skewed": skewed_loss, "reweighted": reweighted_loss}


def fitted_config(flags: PuzzleRunFlags, layout: Layout, **fields: Any) -> TransformerConfig:
    """The preset as the flags want it, with `fields` that the puzzles need."""
    chosen = computed_in(flags, flags.out)
    chosen |= {} if flags.dropout is None else {"dropout": flags.dropout}
    chosen |= {"num_extra_tokens": 0, "causal": not isinstance(layout, MaskedLayout), **fields}
    return TransformerConfig.from_json(presets.get(flags.model).to_json() | chosen)


def train_model(
    flags: PuzzleRunFlags,
    game: Game,
    config: TransformerConfig,
    layout: Layout,
    task: Mapping[str, Any],
    load_data: Callable[[], Mapping[str, Records]],
    oracles: Mapping[str, Oracle] = TWO_ORDERS,
    *,
    initialise: Callable[[Array], Params] | None = None,
    augment: Callable[[pipeline.Batch, np.random.Generator], pipeline.Batch] | None = None,
) -> tuple[Model, Records]:
    """Trains as the flags say, from the newest checkpoint if there is one; the model and the held-out split.

    Args:
      flags: of the run.
      game: the kind of puzzle.
      config: of the network.
      layout: of its sequences.
      task: what names the data, for the run's `config.json`.
      load_data: gives both splits; called when nothing else can be wrong.
      oracles: of the evaluations, by name.
      initialise: as for `experiments.training.Run.train`.
      augment: likewise.
    """
    if flags.loss != "plain" and not isinstance(layout, MaskedLayout):
        raise InputError(f"--loss {flags.loss} is for masked models, and --layout {flags.layout} is not: leave it out")
    init_from = None if flags.init_from is None else str(flags.init_from)
    chosen = {"layout": flags.layout, "loss": flags.loss, "init_from": init_from}
    run = begin(
        flags,
        config,
        {"name": game.name, **task, **chosen},
        out=flags.out,
        scores=[f"solved/{name}" for name in (oracles if isinstance(layout, MaskedLayout) else ["greedy"])],
        init_from=flags.init_from,
    )
    data = load_data()
    test = first(flags.evaluate_limit, data["test"], "--evaluate-limit")

    def solved(model: Model) -> dict[str, float]:
        values = {}
        for name, decode in decoders(model, layout, oracles).items():
            filled = answer(layout, decode, test[game.field], mesh=run.mesh)
            values[f"solved/{name}"] = float(game.is_solved(filled.tokens, test[game.field]).mean())
        return values

    plain = masked_loss(layout.mask_id) if isinstance(layout, MaskedLayout) else causal_loss()
    state = run.train(
        data["train"],
        to_batch=layout.examples,
        loss=LOSSES[flags.loss](layout.mask_id) if isinstance(layout, MaskedLayout) else plain,
        plain_loss=plain,
        held_out=layout.examples(test),
        scores=solved,
        initialise=initialise,
        augment=augment,
    )
    return Model(config, state.eval_params, make_denoiser(config)), data["test"]


def add_trained_rows(
    results: Results, flags: PuzzleRunFlags, game: Game, layout: Layout, model: Model, test: Records, dataset: str
) -> None:
    """The rows that end a training: the puzzles that it was evaluated on, one cell at a time."""
    for name, decode in decoders(model, layout, TWO_ORDERS).items():
        how = order_fields(name, mdm_jax.PerStep(1)) if isinstance(layout, MaskedLayout) else {}
        row = {"dataset": dataset} | how
        add_row(results, game, layout, decode, first(flags.evaluate_limit, test), row, mesh=flags.mesh.make())
