"""Trains the head of a learned order, and measures its order, the margin's, and one that sees the answers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mdm_jax
from experiments.commands.decode import masked, measure, order_fields
from experiments.common import Results, Row, say
from experiments.learned_order import Reproduce
from experiments.trained import load_run
from mdm_jax import PerStep, oracles
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import paired_interval
from mdm_jax.files import make_folder
from mdm_jax.loading import Model
from mdm_jax.sampling import Decode, SampleResult
from mdm_jax.selection import best
from mdm_jax.tasks.base import Layout, Records, Task
from mdm_jax.training.learned_order import fit_order, tune_denoiser
from mdm_jax.typing import Array, Confidence


def reproduce(flags: Reproduce) -> None:
    """Adds a row for each set of records, number of tokens a step and order."""
    results = Results("learned_order", "reproduce", out=flags.out, seed=flags.seed)
    if not flags.tokens_per_step:
        raise InputError("--tokens-per-step wants at least one number")
    model, task, layout = load_run(flags.task, flags.checkpoint)
    if layout.mask_id is None:
        raise InputError(f"{flags.checkpoint} is autoregressive and has no order to choose: give a masked model")
    sets = {name: each.records("test", flags.limit, say=say) for name, each in _tasks(flags, task).items()}
    examples = layout.examples(task.records("train", flags.num_train, say=say))
    options: dict[str, Any] = {"mask_id": layout.mask_id, "batch_size": flags.batch_size, "seed": flags.seed}
    fitting: dict[str, Any] = options | {"num_steps": flags.steps, "learning_rate": flags.learning_rate}
    learned, losses = fit_order(model.denoiser, model.params, examples, **fitting, progress="head")
    np.savez(make_folder(flags.out) / "order.npz", **dataclasses.asdict(jax.device_get(learned)))
    orders: dict[str, Any] = {"random": oracles.random, "margin": oracles.margin, "learned": learned}
    models = {"": model}
    if flags.finetune_steps:
        tuning: dict[str, Any] = options | {"num_steps": flags.finetune_steps, "learning_rate": flags.finetune_rate}
        states: dict[str, Any] = {"": learned, " at random": oracles.random}
        for how, oracle in states.items():
            label = f"network{how}"
            params, _ = tune_denoiser(model.denoiser, model.params, oracle, examples, **tuning, progress=label)
            models[f", fine-tuned{how}"] = model._replace(params=params)
    for name, records in sets.items():
        for k in flags.tokens_per_step:
            ways = {
                order + tuned: masked(own, layout, oracle, PerStep(k), temperature=task.temperature)
                for tuned, own in models.items()
                for order, oracle in orders.items()
            }
            if not task.temperature:  # of drawn sequences none is the answer
                ways["truth"] = truthful(model, layout, k, records)
            scores: dict[str, Any] = {}
            for order, decode in ways.items():
                label = f"{name}, {order}, {k} a step"
                drawn: dict[str, Any] = {"batch_size": flags.batch_size, "seed": flags.seed}
                found = measure(task, layout, decode, records, progress=label, **drawn)
                scores[order] = np.asarray(found.scores[task.metric], float)
                row: Row = {"dataset": name, **order_fields(order, PerStep(k)), **found.row}
                if order not in orders or order == "learned":
                    difference = scores[order] - scores["margin"]
                    row |= {"minus_margin": difference.mean(), "minus_margin_ci": paired_interval(difference)}
                results.add(**row)
    tenth = -(-len(losses) // 10)
    ends = [float(part.mean()) for part in (losses[:tenth], losses[-tenth:])]
    results.finish(fields={"checkpoint": str(flags.checkpoint), "ranking_loss": ends})


def _tasks(flags: Reproduce, task: Task) -> dict[str, Task]:
    """The tasks whose held-out records are asked for, by name."""
    if flags.difficulty is None:
        return {task.title: task}
    if not (dataclasses.is_dataclass(task) and hasattr(task, "difficulty")):
        raise InputError(f"{flags.task} has no difficulties: leave --difficulty out")
    return {name: dataclasses.replace(task, difficulty=name) for name in flags.difficulty.split(",")}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TruthFirst(PerStep):
    """`PerStep(k)` by an order that sees the answers.

    First come positions whose likeliest token is right, the surest first; then the others, the least sure first.

    Attributes:
      truth: int32 [B, L].
    """

    truth: Array | None = None

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: Array) -> Array:
        """The best positions by that order, bool [B, L]."""
        del scores
        prob = confidence.top_prob
        return best(jnp.where(confidence.token == self.truth, prob, -prob), is_open, num_reveal)


def truthful(model: Model, layout: Layout, k: int, records: Records) -> Decode:
    """Decoding in an order that sees the answers to these records."""
    start, answers = layout.start(records).astype(np.int32), layout.examples(records)["tokens"]
    answer_of = {row.tobytes(): answer for row, answer in zip(start, answers, strict=True)}
    mask_id = layout.mask_id
    assert mask_id is not None

    def decode(keys: Array, x_init: Array) -> SampleResult:
        truth = [answer_of.get(row.tobytes(), row) for row in np.asarray(x_init, np.int32)]
        selector = TruthFirst(k, jnp.asarray(np.stack(truth), jnp.int32))
        options: dict[str, Any] = {"mask_id": mask_id, "selector": selector, "temperature": 0.0}
        return mdm_jax.sample(model.denoiser, model.params, keys, x_init, **options)

    return decode
