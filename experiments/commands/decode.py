"""Decodes and scores a model's answers to records, for any task and layout."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import mdm_jax
from experiments.common import Results, Row
from experiments.flags import DecodeFlags
from mdm_jax.checks import gives_features
from mdm_jax.errors import InputError
from mdm_jax.evaluation.puzzles import fill_in, summary
from mdm_jax.kernels.skip_rows import SkipRows
from mdm_jax.loading import Model
from mdm_jax.models.kinds import make_decoder
from mdm_jax.oracles import ORACLES
from mdm_jax.sampling import Decode, SampleResult
from mdm_jax.tasks.base import Answers, Layout, Records, Scores, Task
from mdm_jax.typing import Array, Denoiser, Oracle, Selector

TWO_ORDERS = ("random", "margin")
"""The orders of an evaluation during training."""

WAYS = ("block_length", "keep", "remask_steps", "search_width", "check", "corrector")
"""The flags, beside those of the order and the selector, that say how sequences are decoded."""


class Decoded(NamedTuple):
    """A model's answers to N records."""

    answers: Answers
    """[N, ...]"""
    steps: np.ndarray
    """int32 [N, ...]: the network call that revealed each part, -1 for given parts"""
    scores: Scores
    row: Row
    """the fields of a result row"""
    tokens: np.ndarray
    """int32 [N, L], the sequences"""
    reveal_step: np.ndarray
    """int32 [N, L]: the network call that revealed each token, -1 for given ones"""


def masked(
    model: Model,
    layout: Layout,
    oracle: Oracle,
    selector: Selector | None = None,
    *,
    temperature: float = 0.0,
    **options: Any,
) -> Decode:
    """Strict unmasking, one token a step unless a selector is given; options as for `sample`."""
    options |= {"selector": selector or mdm_jax.PerStep(1), "temperature": temperature}
    return _decoder(mdm_jax.sample, skipping(model), model, layout, oracle, **options)


def remasking(
    model: Model, layout: Layout, oracle: Oracle, num_steps: int, *, noise: float = 0.0, **options: Any
) -> Decode:
    """Decoding that may mask tokens again (Ye et al. 2024); options as for `remasking_sample`."""
    options |= {"num_steps": num_steps, "noise": noise}
    return _decoder(mdm_jax.remasking_sample, model.denoiser, model, layout, oracle, **options)


def searching(model: Model, layout: Layout, oracle: Oracle, width: int, **options: Any) -> Decode:
    """A beam search over partial answers; options as for `search_sample`."""
    return _decoder(mdm_jax.search_sample, skipping(model), model, layout, oracle, width=width, **options)


def correcting(model: Model, layout: Layout, oracle: Oracle, judge: str, k: int, *, temperature: float = 0.0) -> Decode:
    """Decoding k tokens a step, of which the next steps may take some back."""
    options = {"judge": judge, "k": k, "temperature": temperature}
    return _decoder(mdm_jax.correcting_sample, skipping(model), model, layout, oracle, **options)


def cached(model: Model, layout: Layout, oracle: Oracle, selector: Selector, **options: Any) -> Decode:
    """Strict unmasking in blocks, with keys and values kept from step to step; options as for `cached_sample`."""
    if getattr(model.config, "pad_id", None) is not None:
        raise InputError("--keep is for models without padding, and this one hides it: leave it out")
    network = make_decoder(model.config)
    return _decoder(mdm_jax.cached_sample, network, model, layout, oracle, selector=selector, **options)


def skipping(model: Model) -> Denoiser:
    """The model's network, without the rows that nothing is read of."""
    return SkipRows(model.denoiser) if gives_features(model.denoiser) else model.denoiser


def _decoder(
    sampler: Callable[..., SampleResult], network: Any, model: Model, layout: Layout, oracle: Oracle, **options: Any
) -> Decode:
    assert layout.mask_id is not None
    return functools.partial(sampler, network, model.params, mask_id=layout.mask_id, oracle=oracle, **options)


def autoregressive(model: Model, *, temperature: float = 0.0) -> Decode:
    """Decoding token by token after the prompt. Prompts are padded with -1."""
    decoder, length = make_decoder(model.config), model.config.max_length

    def decode(key: Array, prompt: Array) -> SampleResult:
        lengths = (prompt >= 0).sum(axis=1, dtype=jnp.int32)
        result = mdm_jax.autoregressive_sample(
            decoder,
            model.params,
            key,
            prompt,
            lengths,
            length=length,
            temperature=temperature,
        )
        step = jnp.arange(length, dtype=jnp.int32)[None] - lengths[:, None]
        return SampleResult(result.tokens, jnp.maximum(step, -1), result.log_prob, result.nfe)

    return decode


def order_fields(name: str, selector: Selector) -> Row:
    """The fields of a row that name the order."""
    k = selector.k if isinstance(selector, mdm_jax.PerStep) else None
    return {"oracle": name, "selector": repr(selector), "tokens_per_step": k}


def one_by_one(
    model: Model, task: Task, layout: Layout, orders: tuple[str, ...] = TWO_ORDERS
) -> Iterator[tuple[str, Decode, Row]]:
    """The decoders of an evaluation: name, decoder, and the fields that name it in a row.

    A masked model has one for each order, one token a step. An autoregressive model has one, unless there are no
    orders.
    """
    if layout.mask_id is None and orders:
        yield "greedy", autoregressive(model, temperature=task.temperature), {}
        return
    for name in orders:
        decode = masked(model, layout, ORACLES[name], temperature=task.temperature)
        yield name, decode, order_fields(name, mdm_jax.PerStep(1))


def decoders_for(
    flags: DecodeFlags,
    model: Model,
    task: Task,
    layout: Layout,
    oracles: Mapping[str, Oracle],
    selector: Selector,
) -> Iterator[tuple[str, Decode, Row]]:
    """The decoders that the flags name: name, decoder, and the fields that name it in a row."""
    other = {} if flags.temperature == task.temperature else {"temperature": flags.temperature}
    other |= {"noise": flags.noise} if flags.noise else {}
    if layout.mask_id is None:
        if of_orders := sorted(flags.changed() - {"temperature"}):
            flag = of_orders[0].replace("_", "-")
            raise InputError(f"--{flag} is for masked models, and this one is not: leave it out")
        yield "greedy", autoregressive(model, temperature=flags.temperature), other
        return
    _check_ways(flags, selector)
    in_blocks: dict[str, Any] = {"temperature": flags.temperature, "block_length": flags.block_length}
    for name, oracle in oracles.items():
        if flags.keep is not None:
            decode = cached(model, layout, oracle, selector, **in_blocks)
        elif flags.remask_steps is not None:
            decode = remasking(model, layout, oracle, flags.remask_steps, temperature=flags.temperature)
        elif flags.search_width is not None:
            decode = searching(model, layout, oracle, flags.search_width, selector=selector, check=flags.check or 0)
        elif flags.corrector is not None and isinstance(selector, mdm_jax.PerStep):
            decode = correcting(model, layout, oracle, flags.corrector, selector.k, temperature=flags.temperature)
        else:
            decode = masked(model, layout, oracle, selector, **in_blocks)
        how = {way: getattr(flags, way) for way in WAYS}
        yield name, decode, order_fields(name, selector) | how | other


def _check_ways(flags: DecodeFlags, selector: Selector) -> None:
    """Raises InputError for flags that exclude each other."""
    if flags.keep is not None and flags.remask_steps is not None:
        raise InputError("--keep is for decoding in blocks, --remask-steps for whole sequences: leave one out")
    if flags.keep is not None and flags.block_length is None:
        raise InputError("--keep is for decoding in blocks: give --block-length too")
    if flags.remask_steps is not None and flags.block_length is not None:
        raise InputError("--remask-steps takes back tokens of the whole sequence: leave --block-length out")
    if flags.search_width is not None and (flags.temperature or flags.block_length is not None):
        raise InputError("--search-width takes the likeliest tokens of whole sequences: no --temperature, no blocks")
    if flags.search_width is not None and flags.remask_steps is not None:
        raise InputError("--search-width takes nothing back: leave --remask-steps out")
    if flags.check is not None and max(flags.search_width or 1, *getattr(flags, "proposals", ()), 1) == 1:
        raise InputError("--check chooses among several answers: give --search-width or --proposals")
    if flags.corrector is None:
        return
    others = (flags.remask_steps, flags.search_width, flags.block_length, getattr(flags, "viewer", None))
    if any(other is not None for other in others):
        raise InputError("--corrector goes without --remask-steps, --search-width, --block-length and --viewer")
    if not isinstance(selector, mdm_jax.PerStep) or selector.k < 2:
        raise InputError("--corrector takes back fewer tokens than a step reveals: give --tokens-per-step 2 or more")


def measure(task: Task, layout: Layout, decode: Decode, records: Records, **options: Any) -> Decoded:
    """Completes the sequences, reads the answers and scores them; options as for `fill_in`."""
    start = layout.start(records)
    is_open = start == (-1 if layout.mask_id is None else layout.mask_id)
    some_token = 1 if layout.mask_id == 0 else 0  # any token but the mask
    finished = start[0] if layout.mask_id is None else np.where(is_open[0], some_token, start[0])
    filled = fill_in(decode, start, padding=finished, work=is_open.sum(axis=1), **options)
    answers = layout.answers(filled.tokens)
    scores = task.score(answers, records)
    row = {"method": layout.method, **summary(scores), "nfe": round(filled.nfe, 2)}
    row |= {"per_second": round(len(start) / filled.seconds, 2)}
    steps = layout.steps(filled.reveal_step, filled.tokens)
    return Decoded(answers, steps, scores, row, filled.tokens, filled.reveal_step)


def add_row(
    results: Results, task: Task, layout: Layout, decode: Decode, records: Records, fields: Row, **options: Any
) -> Decoded:
    """Measures, and adds a row: the method, `fields`, and the scores."""
    decoded = measure(task, layout, decode, records, **options)
    results.add(**{"method": layout.method, **fields, **decoded.row})
    return decoded
