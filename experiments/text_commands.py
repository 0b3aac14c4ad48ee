"""`prepare`, `train` and `evaluate` of text."""

import math
from typing import Any

import jax
import numpy as np

from experiments.commands.prepare import load_splits
from experiments.commands.train import train_model
from experiments.common import Results
from experiments.text import Evaluate, Prepare, Train
from experiments.trained import load_run
from mdm_jax.loading import Model
from mdm_jax.models import kinds
from mdm_jax.sharding import make_mesh
from mdm_jax.tasks.base import Layout, Records, take
from mdm_jax.tasks.text.task import Text
from mdm_jax.text.tokenizer import FILE, Tokenizer
from mdm_jax.training.checkpoint import trained_seconds
from mdm_jax.training.held_out import held_out_loss

MEASURED = 1_024
"""Rows whose bytes are counted, from the first."""


def prepare(flags: Prepare) -> None:
    """Adds a row for each split."""
    results = Results(flags.experiment, "prepare", out=flags.out, seed=flags.seed)
    task = flags.task()
    for split, records in load_splits(task, flags.data).items():
        counts = task.counts(flags.data)[split]
        bytes_per_token = counts["bytes"] / max(counts["tokens"], 1)
        results.add(
            dataset=task.title, split=split, n=len(records["tokens"]), **counts, bytes_per_token=bytes_per_token
        )
    folder = task.folder(flags.data)
    results.finish(fields={"vocab_size": task.vocab_size, "length": task.length, "tokenizer": str(folder / FILE)})


def train(flags: Train) -> None:
    """Trains a model, and adds a row with its loss on the held-out rows."""
    results = Results(flags.experiment, "train", out=flags.out, seed=flags.seed)
    earlier = trained_seconds(flags.out)
    model, held_out = train_model(flags, orders=())
    task, mesh = flags.task(), flags.mesh.make()
    layout = flags.layout_of(task)
    test = take(flags.evaluate_limit, held_out)
    row = measured(flags, model, task, layout, test, mesh=mesh, batch_size=flags.batch_size)
    results.add(**row)
    results.finish(earlier=earlier, fields={"mesh": dict(mesh.shape), "processes": jax.process_count()})


def evaluate(flags: Evaluate) -> None:
    """Adds a row with the loss of the held-out rows."""
    results = Results("text", "evaluate", out=flags.out, seed=flags.seed)
    model, task, layout = load_run("text", flags.checkpoint)
    trained = Train(**{name: model.task[name] for name in Train.names}, data=flags.data)
    test = take(flags.limit, load_splits(task, flags.data)["test"])
    seeds = range(flags.seed, flags.seed + (1 if layout.mask_id is None else flags.draws))
    results.add(
        **measured(trained, model, task, layout, test, mesh=make_mesh(), batch_size=flags.batch_size, seeds=seeds)
    )
    results.finish()


def measured(
    flags: Train,
    model: Model,
    task: Text,
    layout: Layout,
    test: Records,
    *,
    mesh: Any,
    batch_size: int,
    seeds: Any = (0,),
) -> dict[str, Any]:
    """A row of results: the loss per token, and per byte."""
    examples = layout.examples(test)
    _, plain = flags.losses(layout)
    nats = held_out_loss(model.denoiser, plain, examples, mesh, batch_size=batch_size, seeds=seeds)(model.params)
    return {
        "dataset": task.title,
        "method": layout.method,
        "loss": flags.loss,
        "order": flags.order_class,
        "n": len(examples["tokens"]),
        "length": task.length,
        "parameters": kinds.num_params(model.config, embedding=False),
        "nats_per_token": nats,
        "bits_per_byte": nats / math.log(2) / bytes_per_token(task.tokenizer_in(flags.data), layout, test),
    }


def bytes_per_token(words: Tokenizer, layout: Layout, test: Records) -> float:
    """The bytes of text for each token that is scored, in the first rows."""
    rows = take(MEASURED, test)
    num_tokens = int((~layout.examples(rows)["is_prompt"]).sum())
    texts = [words.decode(row[row < words.num_tokens]) for row in np.asarray(rows["tokens"])]
    return sum(len(text.encode()) for text in texts) / num_tokens
