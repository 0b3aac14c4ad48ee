"""What a trained model generates: evaluate."""

import pathlib
from typing import Any

import mdm_jax
from experiments.common import Results
from experiments.nae_sat.decode import add_rows
from experiments.nae_sat.flags import Evaluate, Train
from experiments.nae_sat.train import DATA_FIELDS
from experiments.trained import check_network, load_trained
from mdm_jax.errors import InputError
from mdm_jax.loading import Model
from mdm_jax.tasks.nae_sat import puzzle as nae_sat
from mdm_jax.typing import Selector


def evaluate(flags: Evaluate) -> None:
    """`evaluate`: any oracles, any selector or several numbers of steps, and a checkpoint."""
    results = Results("nae_sat", "evaluate", out=flags.out, seed=flags.seed)
    if flags.keep is not None or flags.remask_steps is not None:
        raise InputError("--keep and --remask-steps are for puzzles: leave them out")
    if flags.limit < 1:
        raise InputError(f"--limit must be at least 1, got {flags.limit}")
    selector = flags.selector()
    if flags.step_counts and selector != mdm_jax.PerStep(1):
        raise InputError("--step-counts says how many steps: leave the other flag for that out")
    selectors: list[Selector] = [mdm_jax.TopK(num_steps) for num_steps in flags.step_counts] or [selector]
    orders = flags.oracles()
    model, task = load_model(flags.checkpoint)
    for chosen in selectors:
        options = {"temperature": flags.temperature, "block_length": flags.block_length, "batch_size": flags.batch_size}
        add_rows(results, model, task, orders, chosen, limit=flags.limit, seed=flags.seed, **options)
    results.finish()


def load_model(checkpoint: pathlib.Path) -> tuple[Model, dict[str, Any]]:
    """A trained model, and the distribution it was trained on."""
    model, task = load_trained("nae_sat", checkpoint, Train, (*DATA_FIELDS, "length"))
    length = nae_sat.check_length(task["length"], task["num_latents"] + task["num_observations"])
    check_network(checkpoint, model, vocab_size=2, num_tokens=4, max_length=length, causal=False)
    return model, task
