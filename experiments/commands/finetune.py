"""`train` of fine-tuning: reads a model and examples, trains on them, and measures them before and after."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from experiments.commands.losses import losses
from experiments.commands.train import HELD_OUT, check_metric, computed_in, flops_of, optimizer_of
from experiments.common import Results, say
from experiments.finetune import Train
from mdm_jax.data.pipeline import Batches
from mdm_jax.errors import InputError
from mdm_jax.loading import SHIPPED, Model, load, run_folder
from mdm_jax.models import kinds
from mdm_jax.models.config import ModelConfig
from mdm_jax.models.judged import JudgedTransformerConfig
from mdm_jax.models.pretrained.folder import token_ids
from mdm_jax.sharding import check_batch, local_rows
from mdm_jax.text.answers import Example, read_examples, to_arrays
from mdm_jax.text.special import check_tokenizer, end_ids_of, mask_id_of
from mdm_jax.text.tokenizer import FILE, Tokenizer, copy_tokenizer, read_tokenizer
from mdm_jax.training.checkpoint import trained_seconds
from mdm_jax.training.config import check_config
from mdm_jax.training.distributed import is_lead, meet
from mdm_jax.training.held_out import held_out_loss
from mdm_jax.training.loop import fit
from mdm_jax.training.lora import Lora
from mdm_jax.training.objectives import Loss
from mdm_jax.training.record import all_steps
from mdm_jax.typing import Params

MEASURED = 128
"""How many of the examples that are trained on are measured, from the first; of held-out ones all are."""

Arrays = dict[str, NDArray[Any]]


class Part(NamedTuple):
    """Examples that are measured."""

    name: str
    """of their file"""
    arrays: Arrays
    measure: Callable[[Params], float]
    """parameters -> nats per token"""


class Plan(NamedTuple):
    """What is trained, and on what."""

    config: ModelConfig
    words: Tokenizer | None
    loss: Loss
    data: Arrays
    task: dict[str, Any]
    """what config.json says of it"""
    parts: list[Part]
    """of the data, and of held-out examples if there are any"""


def train(flags: Train) -> None:
    """Trains from pretrained weights; the table has the loss of the examples before and after."""
    results = Results("finetune", "train", out=flags.out, seed=flags.seed)
    earlier, mesh = trained_seconds(flags.out), flags.mesh.make()
    check_batch(flags.batch_size, mesh, parts=flags.accumulate)
    if flags.lora_rank is not None and flags.param_dtype != "auto":
        raise InputError("--param-dtype is for training whole: with --lora-rank the model's parameters keep theirs")
    if flags.best_metric is not None and flags.held_out is None:
        raise InputError("--best-metric wants --held-out, on which it is measured")
    check_metric(flags.best_metric, [HELD_OUT])
    words = tokenizer_of(flags)
    files = [flags.data, *([] if flags.held_out is None else [flags.held_out])]
    examples = [read_examples(path) for path in files]
    if flags.batch_size > (number := len(examples[0])):
        raise InputError(f"--batch-size {flags.batch_size} is more examples than {flags.data} has, {number}")
    meet(mesh)
    model = load(flags.model, mesh=mesh)
    plan = planned(flags, model, words, examples, mesh)
    before = [part.measure(model.params) for part in plan.parts]
    is_resumed = flags.lora_rank is None and bool(all_steps(flags.out))  # from parameters of its own
    kept = [] if is_resumed else [model.params]
    del model  # so that its parameters are not kept beside those that are trained
    fitted(flags, plan, kept, mesh)
    params = load(flags.out, mesh=mesh).params
    for part, nats in zip(plan.parts, before, strict=True):
        n, length = part.arrays["tokens"].shape
        after = part.measure(params)
        results.add(dataset=part.name, n=n, length=length, nats_per_token_before=nats, nats_per_token=after)
    results.finish(earlier=earlier, fields={"mesh": dict(mesh.shape), "processes": jax.process_count()})


def planned(flags: Train, model: Model, words: Tokenizer | None, examples: list[list[Example]], mesh: Mesh) -> Plan:
    """The plan of a model and of the data, with held-out examples if there are any; InputError if they do not fit."""
    check_tokenizer(words, model.config)
    if flags.loss == "quality" and not isinstance(model.config, JudgedTransformerConfig):
        raise InputError(f"--loss quality is for a model with a quality head, and {flags.model} has none: take another")
    mask, ends = special_ids(flags, model, words)
    loss, plain = losses(flags.loss, mask, str(flags.model), num_loops=getattr(model.config, "num_loops", None))
    config = dataclasses.replace(model.config, **computed(flags, model.config))
    data, *held_out = [to_arrays(found, words, config, mask_id=mask, end_id=ends[0]) for found in examples]
    task = {
        **token_ids(model.task),
        **({} if mask is None else {"mask_token_id": mask}),
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "name": "answers",
        "data": flags.data.name,
        "data_digest": digest(data),
        "loss": flags.loss,
        "init_from": base_of(flags),
    }
    parts = []
    paths = [path for path in (flags.data, flags.held_out) if path is not None]
    for path, part in zip(paths, (first(data), *held_out), strict=True):
        measure = held_out_loss(kinds.make_denoiser(config), plain, part, mesh, batch_size=flags.batch_size)
        parts.append(Part(path.name, part, measure))
    return Plan(config, words, loss, data, task, parts)


def first(data: Arrays) -> Arrays:
    """The examples of the data that are measured."""
    return {name: rows[:MEASURED] for name, rows in data.items()}


def fitted(flags: Train, plan: Plan, kept: list[Params], mesh: Mesh) -> None:
    """Trains from the parameters in `kept`, which is left empty, or from the newest checkpoint."""
    config, data, loop, optimizer = plan.config, plan.data, flags.loop(), optimizer_of(flags, flags.out)
    lora = None if flags.lora_rank is None else Lora(base_of(flags), flags.lora_rank)
    run = {"model": kinds.to_json(config), "task": plan.task, "optimizer": optimizer.to_json()}
    run |= {} if lora is None else {"lora": lora.to_json(kept[0])}
    check_config(flags.out, run | {"batch_size": loop.batch_size})  # before anything is written to another run's folder
    if plan.words is not None and is_lead():
        copy_tokenizer(plan.words, flags.out)
    (number, length), what = data["tokens"].shape, "all" if lora is None else f"adapters of rank {lora.rank} of"
    say(
        f"trains {what} {kinds.num_params(config):,} parameters with {number:,} examples of up to {length} tokens, "
        f"{flags.steps} steps of {flags.batch_size}: each example {flags.steps * flags.batch_size / number:.3g} times"
    )
    held_out = plan.parts[1:]
    fit(
        flags.out,
        apply=kinds.make_denoiser(config),
        init_params=functools.partial(kinds.init_params, config),
        loss=plan.loss,
        batches=Batches(data, batch_size=loop.batch_size, seed=loop.seed, rows=local_rows(mesh, loop.batch_size)),
        to_batch=dict,
        optimizer=optimizer,
        loop=loop,
        mesh=mesh,
        config={"task": plan.task},
        evaluate=(lambda params: {HELD_OUT: held_out[0].measure(params)}) if held_out else None,
        start_from=kept.pop,
        lora=lora,
        flops_per_example=flops_of(config, length),
    )


def tokenizer_of(flags: Train) -> Tokenizer | None:
    """The tokenizer that is named, or lies in the model's folder; None if there is none."""
    place = run_folder(flags.model)[0] / FILE if flags.tokenizer is None else flags.tokenizer
    return read_tokenizer(place) if flags.tokenizer is not None or place.exists() else None


def special_ids(flags: Train, model: Model, words: Tokenizer | None) -> tuple[int | None, list[int]]:
    """The mask token's id, None for a causal model, and the ids that end a text, first the one to train on."""
    is_causal = getattr(model.config, "causal", False)
    if is_causal and flags.mask_id is not None:
        raise InputError(f"--mask-id is for masked models, and {flags.model} is not one: leave it out")
    mask = None if is_causal else mask_id_of(model, flags.mask_id, words)
    ends = end_ids_of(model, None if flags.end_id is None else [flags.end_id], words)
    if not ends:
        raise InputError("the token that ends an answer is not known: give --end-id, or a tokenizer that says it")
    return mask, list(ends)


def computed(flags: Train, config: ModelConfig) -> dict[str, Any]:
    """The fields that say how the network computes; parameters keep the model's dtype unless the flag names one."""
    fields = computed_in(flags, flags.out)
    return fields | ({"param_dtype": config.param_dtype} if flags.param_dtype == "auto" else {})


def base_of(flags: Train) -> str:
    """What `load` takes for the model, wherever a later command is given."""
    is_shipped = run_folder(flags.model)[0].is_relative_to(SHIPPED) and not flags.model.exists()
    return os.fspath(flags.model if is_shipped else flags.model.absolute())


def digest(data: Arrays) -> int:
    """A number that tells data from others."""
    return zlib.crc32(np.ascontiguousarray(data["is_prompt"]).data, zlib.crc32(data["tokens"].data))
