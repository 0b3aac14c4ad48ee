"""What a trained model generates: evaluate."""

import pathlib
from typing import Any

import mdm_jax
from experiments.common import Results
from experiments.nae_sat.decode import add_rows
from experiments.nae_sat.flags import Evaluate
from mdm_jax.errors import InputError
from mdm_jax.loading import Model, run_folder
from mdm_jax.training.config import read_config
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
    model = mdm_jax.load(checkpoint)
    task = read_config(run_folder(checkpoint)[0]).get("task", {})
    if task.get("name") != "nae_sat":
        raise InputError(f"{checkpoint} is a run of {task.get('name', 'another task')}, not of nae_sat")
    names = ("num_latents", "num_observations", "seed", "length")
    wrong = [
        name
        for name in names
        if not isinstance(task.get(name, ""), int) and (name, task.get(name, "")) != ("length", None)
    ]
    if wrong:
        raise InputError(f"the config.json of {checkpoint} has no usable {', '.join(wrong)} in its task; restore it")
    return model, task
