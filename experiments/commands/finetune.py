"""`train` of fine-tuning: reads a model and examples, trains on them, and measures them before and after."""

import dataclasses
import functools
import os
import zlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from experiments.commands.train import HELD_OUT, computed_in, flops_of, losses, optimizer_of
from experiments.common import Results, say
from experiments.finetune import Train
from mdm_jax.data.pipeline import Batches
from mdm_jax.errors import InputError
from mdm_jax.loading import Model, load, run_folder
from mdm_jax.models import kinds
from mdm_jax.models.config import ModelConfig
from mdm_jax.models.pretrained.folder import token_ids
from mdm_jax.sharding import check_batch, local_rows
from mdm_jax.tasks.base import take
from mdm_jax.text.answers import read_examples, to_arrays
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
"""How many of the examples that are trained on are measured; of held-out ones all are."""

Arrays = dict[str, NDArray[Any]]


def train(flags: Train) -> None:
    """Trains from pretrained weights; the table has the loss of the examples before and after."""
    results = Results("finetune", "train", out=flags.out, seed=flags.seed)
    earlier, mesh = trained_seconds(flags.out), flags.mesh.make()
    check_batch(flags.batch_size, mesh, parts=flags.accumulate)
    if flags.lora_rank is not None and flags.param_dtype != "auto":
        raise InputError("--param-dtype is for training whole: with --lora-rank the model's parameters keep theirs")
    words = tokenizer_of(flags)
    files = [flags.data, *([] if flags.held_out is None else [flags.held_out])]
    examples = [read_examples(path) for path in files]
    if flags.batch_size > len(examples[0]):
        raise InputError(f"--batch-size {flags.batch_size} is more examples than {flags.data} has, {len(examples[0])}")
    meet(mesh)
    model = load(flags.model, mesh=mesh)
    check_tokenizer(words, model.config)
    mask, ends = special_ids(flags, model, words)
    loss, plain = losses(flags.loss, mask, str(flags.model))
    data, *held_out = [to_arrays(found, words, model.config, mask_id=mask, end_id=ends[0]) for found in examples]
    config = dataclasses.replace(model.config, **computed(flags, model.config))
    measures = [
        held_out_loss(kinds.make_denoiser(config), plain, part, mesh, batch_size=flags.batch_size)
        for part in (take(MEASURED, data), *held_out)
    ]
    before = [measure(model.params) for measure in measures]
    task = {
        **token_ids(model.task),
        **({} if mask is None else {"mask_token_id": mask}),
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "name": "answers",
        "data": os.fspath(flags.data),
        "data_digest": digest(data),
        "loss": flags.loss,
        "init_from": base_of(flags),
    }
    is_resumed = flags.lora_rank is None and bool(all_steps(flags.out))  # from parameters of its own
    kept = [] if is_resumed else [model.params]
    del model  # so that its parameters are not kept beside those that are trained
    fitted(flags, config, kept, loss, data, task, mesh, measures[1:], words)
    params = load(flags.out, mesh=mesh).params
    parts = zip(files, (take(MEASURED, data), *held_out), before, measures, strict=True)
    for path, part, nats, measure in parts:
        n, length = part["tokens"].shape
        results.add(dataset=path.name, n=n, length=length, nats_per_token_before=nats, nats_per_token=measure(params))
    results.finish(earlier=earlier, fields={"mesh": dict(mesh.shape), "processes": jax.process_count()})


def fitted(
    flags: Train,
    config: ModelConfig,
    kept: list[Params],
    loss: Loss,
    data: Arrays,
    task: dict[str, Any],
    mesh: Mesh,
    held_out: list[Any],
    words: Tokenizer | None,
) -> None:
    """Trains from the parameters in `kept`, which is left empty, or from the newest checkpoint."""
    lora = None if flags.lora_rank is None else Lora(base_of(flags), flags.lora_rank)
    optimizer, loop, (number, length) = optimizer_of(flags, flags.out), flags.loop(), data["tokens"].shape
    run = {
        "model": kinds.to_json(config),
        "task": task,
        "optimizer": optimizer.to_json(),
        "batch_size": loop.batch_size,
    }
    run |= {} if lora is None else {"lora": lora.to_json(kept[0])}
    check_config(flags.out, run)  # before anything is written to a folder of another run
    if words is not None and is_lead():
        copy_tokenizer(words, flags.out)
    what = "all" if lora is None else f"adapters of rank {lora.rank} of"
    say(
        f"trains {what} {kinds.num_params(config):,} parameters with {number:,} examples of up to {length} tokens, "
        f"{flags.steps} steps of {flags.batch_size}: each example {flags.steps * flags.batch_size / number:.3g} times"
    )
    fit(
        flags.out,
        apply=kinds.make_denoiser(config),
        init_params=functools.partial(kinds.init_params, config),
        loss=loss,
        batches=Batches(data, batch_size=loop.batch_size, seed=loop.seed, rows=local_rows(mesh, loop.batch_size)),
        to_batch=dict,
        optimizer=optimizer,
        loop=loop,
        mesh=mesh,
        config={"task": task},
        evaluate=(lambda params: {HELD_OUT: held_out[0](params)}) if held_out else None,
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
    mask = None if getattr(model.config, "causal", False) else mask_id_of(model, flags.mask_id, words)
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
    return os.fspath(flags.model.absolute() if flags.model.exists() else flags.model)


def digest(data: Arrays) -> int:
    """A number that tells data from others."""
    return zlib.crc32(np.ascontiguousarray(data["is_prompt"]).data, zlib.crc32(data["tokens"].data))
