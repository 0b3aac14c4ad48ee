"""A model's answers to puzzles, whatever the layout of its sequences."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

import mdm_jax
from experiments.common import Results
from experiments.flags import DecodeFlags
from experiments.puzzles.data import Game, Layout, MaskedLayout, Records
from mdm_jax import oracles
from mdm_jax.errors import InputError
from mdm_jax.evaluation.puzzles import Decode, Filled, fill_in, score
from mdm_jax.loading import Model
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.decoder import make_decoder
from mdm_jax.sampling import SampleResult
from mdm_jax.typing import Array, Denoiser, Oracle, Params, Selector

ORACLES: dict[str, Oracle] = {
    "random": oracles.random,
    "top_prob": oracles.top_prob,
    "margin": oracles.margin,
    "neg_entropy": oracles.neg_entropy,
}
"""The orders that tables compare."""

TWO_ORDERS = {name: ORACLES[name] for name in ("random", "margin")}
"""Of an evaluation while training."""


def masked(
    denoiser: Denoiser,
    params: Params,
    layout: MaskedLayout,
    oracle: Oracle,
    selector: Selector | None = None,
    *,
    temperature: float = 0.0,
    block_length: int | None = None,
) -> Decode:
    """Strict unmasking, one token a step unless a selector is given."""
    return functools.partial(
        mdm_jax.sample,
        denoiser,
        params,
        mask_id=layout.mask_id,
        oracle=oracle,
        selector=selector or mdm_jax.PerStep(1),
        temperature=temperature,
        block_length=block_length,
    )


def remasking(
    model: Model, layout: MaskedLayout, oracle: Oracle, num_steps: int, *, temperature: float, block_length: int | None
) -> Decode:
    """The decoder that takes tokens back (Ye et al. 2024), without its Gumbel noise: an oracle may have its own."""
    if block_length is not None:
        raise InputError("--remask-steps takes back tokens of the whole sequence: leave --block-length out")
    return functools.partial(
        mdm_jax.remasking_sample,
        model.denoiser,
        model.params,
        mask_id=layout.mask_id,
        num_steps=num_steps,
        oracle=oracle,
        noise=0.0,
        temperature=temperature,
    )


def kept(
    model: Model,
    layout: MaskedLayout,
    oracle: Oracle,
    selector: Selector,
    *,
    temperature: float,
    block_length: int | None,
) -> Decode:
    """The same in blocks, with keys and values kept from step to step."""
    if block_length is None:
        raise InputError("--keep is for decoding in blocks: give --block-length too")
    if model.config.pad_id is not None:
        raise InputError("--keep is for models without padding, and this one hides it: leave it out")
    return functools.partial(
        mdm_jax.cached_sample,
        make_decoder(model.config),
        model.params,
        mask_id=layout.mask_id,
        block_length=block_length,
        oracle=oracle,
        selector=selector,
        temperature=temperature,
    )


def autoregressive(config: TransformerConfig, params: Params, *, temperature: float = 0.0) -> Decode:
    """Token by token behind the givens; prompts have -1 where there is none."""
    decoder = make_decoder(config)

    def decode(key: Array, prompt: Array) -> SampleResult:
        lengths = (prompt >= 0).sum(axis=1, dtype=jnp.int32)
        result = mdm_jax.autoregressive_sample(
            decoder,
            params,
            key,
            prompt,
            lengths,
            length=config.max_length,
            temperature=temperature,
        )
        step = jnp.arange(config.max_length, dtype=jnp.int32)[None] - lengths[:, None]
        return SampleResult(result.tokens, jnp.maximum(step, -1), result.log_prob, result.nfe)

    return decode


def decoders(model: Model, layout: Layout, oracles: Mapping[str, Oracle]) -> dict[str, Decode]:
    """One for each order, or the greedy one of an autoregressive model, which has no choice."""
    if isinstance(layout, MaskedLayout):
        return {name: masked(model.denoiser, model.params, layout, oracle) for name, oracle in oracles.items()}
    return {"greedy": autoregressive(model.config, model.params)}


def asked(
    flags: DecodeFlags, model: Model, layout: Layout, oracles: Mapping[str, Oracle], selector: Selector
) -> Iterator[tuple[str, Decode, dict[str, Any]]]:
    """The decoders that the flags ask for: name, decoder, and what a row says of it."""
    said = {name: getattr(flags, name) for name in ("temperature", "noise") if getattr(flags, name)}
    if not isinstance(layout, MaskedLayout):
        if of_orders := sorted(flags.changed() - {"temperature"}):
            flag = of_orders[0].replace("_", "-")
            raise InputError(f"--{flag} is for masked models, and this one is not: leave it out")
        yield "greedy", autoregressive(model.config, model.params, temperature=flags.temperature), said
        return
    for name, oracle in oracles.items():
        options: dict[str, Any] = {"temperature": flags.temperature, "block_length": flags.block_length}
        if flags.keep is not None and flags.remask_steps is not None:
            raise InputError("--keep is for decoding in blocks, --remask-steps for whole sequences: leave one out")
        if flags.keep is not None:
            decode = kept(model, layout, oracle, selector, **options)
        elif flags.remask_steps is not None:
            decode = remasking(model, layout, oracle, flags.remask_steps, **options)
        else:
            decode = masked(model.denoiser, model.params, layout, oracle, selector, **options)
        how = {"block_length": flags.block_length, "keep": flags.keep, "remask_steps": flags.remask_steps}
        yield name, decode, order_fields(name, selector) | how | said


def answer(layout: Layout, decode: Decode, puzzles: np.ndarray, **options: Any) -> Filled:
    """What the model makes of puzzles, as grids `[num, cells]`; options as for `fill_in`."""
    start = layout.start(puzzles)
    if isinstance(layout, MaskedLayout):
        is_open = start == layout.mask_id
        finished = np.where(is_open[0], layout.zero + 1, start[0])
        filled = fill_in(decode, start, padding=finished, work=is_open.sum(axis=1), **options)
    else:
        missing = start.shape[1] - (start >= 0).sum(axis=1)
        filled = fill_in(decode, start, padding=start[0], work=missing, **options)
    tokens, reveal_step = layout.grids(filled.tokens), layout.cells(filled.reveal_step, filled.tokens)
    return dataclasses.replace(filled, tokens=tokens, reveal_step=reveal_step)


def measure(
    game: Game, layout: Layout, decode: Decode, records: Records, **options: Any
) -> tuple[dict[str, Any], Filled]:
    """Answers the puzzles; what a row says of it, and the answers. Options as for `fill_in`."""
    filled = answer(layout, decode, records[game.field], **options)
    is_solved = game.is_solved(filled.tokens, records[game.field])
    scores = score(filled, records["solution"], is_asked=game.is_asked(records), is_solved=is_solved)
    return {"method": layout.method, **scores}, filled


def add_row(
    results: Results,
    game: Game,
    layout: Layout,
    decode: Decode,
    records: Records,
    fields: Mapping[str, Any],
    **options: Any,
) -> Filled:
    """Answers the puzzles and adds the row that says how it went, `fields` among the first."""
    row, filled = measure(game, layout, decode, records, **options)
    results.add(**{"method": layout.method, **fields, **row})
    return filled


def order_fields(name: str, selector: Selector) -> dict[str, Any]:
    """What a row says about the order."""
    k = selector.k if isinstance(selector, mdm_jax.PerStep) else None
    return {"oracle": name, "selector": repr(selector), "tokens_per_step": k}
