"""Batches of prompts, decoded with the log-probability of every token: by the one loop, or from left to right."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.autoregressive import decode_prompts
from mdm_jax.confidence import is_greedy
from mdm_jax.edits import Edit, Guided
from mdm_jax.errors import InputError
from mdm_jax.judges import judge_named
from mdm_jax.loop import Loop, State, init, is_unfinished, step
from mdm_jax.models.kinds import make_decoder, without_padding
from mdm_jax.oracles import as_tree, margin
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.sampling import Whole, check_arguments, check_block_length, check_loop, decode_tokens
from mdm_jax.search import search_tokens
from mdm_jax.selection import PerStep, classes_in
from mdm_jax.text.prompts import BLANK
from mdm_jax.typing import Array, Doubter, Oracle, Params, Selector

BEHIND = BLANK - 1
"""Pads the sequences of a causal model, which never sees it."""

Watch = Callable[[np.ndarray, np.ndarray], None]
"""(tokens int32 [L] with BLANK where none is revealed yet, reveal_step int32 [L]) -> nothing"""


class Network(Protocol):
    """What `mdm_jax.load` gives."""

    @property
    def config(self) -> Any:
        """A ModelConfig."""
        ...

    @property
    def params(self) -> Params:
        """Its parameters."""
        ...

    @property
    def denoiser(self) -> Any:
        """Its denoiser."""
        ...


class Made(NamedTuple):
    """A Network that was made of another one."""

    config: Any
    params: Params
    denoiser: Any


class Row(NamedTuple):
    """What a decoder makes of a batch, as arrays of JAX or NumPy; and one sequence of it, without B."""

    tokens: Any
    """int32 [B, L]"""
    reveal_step: Any
    """int32 [B, L]: as of `sample`"""
    log_prob: Any
    """float32 [B, L], nats: of each token that was revealed"""
    nfe: Any
    """int32 scalar"""


def unmasking(
    model: Network,
    mask: int,
    oracle: Oracle,
    selector: Selector,
    block_length: int | None,
    temperature: float,
    *,
    edit: Edit | None,
    ends: tuple[int, ...],
    guidance: float,
    judge: str | None,
    watch: Watch | None,
) -> Callable[[Array, Array], Row]:
    """Decodes a batch by the one loop: jitted whole, or a step at a time where each is watched."""
    network: Any = Whole(model.denoiser)
    if isinstance(selector, Doubter) != (judge is not None):
        raise InputError(
            "a judge goes with a selector that doubts, such as correction.TakeBack(2): give both or neither"
        )
    if judge is not None:
        make_judge = judge_named(judge)
        if guidance:
            raise InputError("a judge and guidance each call the network in their own way: leave one out")
        network = make_judge(model.denoiser, mask)
    elif guidance:
        network = Guided(network, guidance, mask, getattr(model.config, "pad_id", None))

    def decode(keys: Array, x_init: Array) -> Row:
        tokens, keys, _ = check_arguments(model.denoiser, keys, x_init, mask, oracle)
        length = check_block_length(block_length, tokens.shape[1])
        loop = Loop(network, mask, length, from_target=block_length is not None, edit=edit, ends=ends)
        if watch is not None:
            check_loop(loop, tokens, selector)
            return _watched(loop, model.params, keys, tokens, oracle, selector, temperature, watch)
        result, log_prob = decode_tokens(loop, model.params, keys, tokens, oracle, selector, temperature)
        return Row(result.tokens, result.reveal_step, log_prob, result.nfe)

    return decode


def searching(
    model: Network,
    mask: int,
    oracle: Oracle,
    selector: Selector,
    width: int,
    *,
    check: int,
    edit: Edit | None,
    unused: tuple[Any, ...],
) -> Callable[[Array, Array], Row]:
    """Decodes a batch by a beam search of `width` fillings of each sequence."""
    if unused != (None, 0.0, 0, None, None):
        raise InputError(
            "a search takes the likeliest tokens of whole texts: give no block_length, temperature, guidance, watch, "
            "judge"
        )
    check_number("search_width", width, Range(1, INT32), whole=True)
    check_number("check", check, Range(0, INT32), whole=True)

    def decode(keys: Array, x_init: Array) -> Row:
        tokens, keys, _ = check_arguments(model.denoiser, keys, x_init, mask, oracle)
        given = (model.denoiser, model.params, keys, tokens, oracle)
        settings: dict[str, Any] = {"width": width, "selector": selector, "check": check, "edit": edit}
        result, log_prob = search_tokens(*given, mask_id=mask, **settings)
        return Row(result.tokens, result.reveal_step, log_prob, result.nfe)

    return decode


def _watched(
    loop: Loop,
    params: Params,
    keys: Array,
    tokens: Array,
    oracle: Oracle,
    selector: Selector,
    temperature: float,
    watch: Watch,
) -> Row:
    """The loop, driven by hand."""
    traced = None if is_greedy(temperature) else jnp.asarray(temperature, jnp.float32)
    classes = classes_in((oracle, selector))
    state = init(loop, tokens, selector)
    while is_unfinished(loop, selector, state).any():
        state = _step(loop, params, selector, as_tree(oracle), keys, state, traced, classes=classes)
        now, reveal_step = jax.device_get((state.tokens[0], state.reveal_step[0]))
        watch(np.where(now == loop.mask_id, BLANK, now), reveal_step)
    return Row(state.tokens, state.reveal_step, state.log_prob, state.nfe)


@functools.partial(jax.jit, static_argnames=("loop", "classes"))
def _step(loop: Loop, *given: Any, classes: Any) -> State:
    del classes  # part of jit's cache key only
    return step(loop, *given)


def continuing(
    model: Network, temperature: float, edit: Edit | None, ends: tuple[int, ...], unused: tuple[Any, ...]
) -> Callable[[Array, Array], Row]:
    """Decodes a batch of prompts from left to right, with BLANK behind each, and BEHIND behind that."""
    if unused != (margin, PerStep(1), None, 0, None, None, 0, None, False):
        raise InputError(
            "a causal model goes from left to right: give no oracle, selector, block_length, search_width, check, "
            "judge, guidance, watch, and no end='last'"
        )
    decoder = make_decoder(without_padding(model.config))

    def decode(keys: Array, x_init: Array) -> Row:
        given = np.asarray(x_init)
        lengths, (_, length) = (given >= 0).sum(axis=-1), given.shape
        stop = int((given > BEHIND).sum(axis=-1).max())
        result = decode_prompts(
            decoder,
            model.params,
            keys,
            np.where(given >= 0, given, 0),
            lengths,
            length=length,
            temperature=temperature,
            stop=stop,
            ends=ends,
            edit=edit,
        )
        calls = np.arange(length) - lengths.min() + int(length > 1)
        reveal_step = np.where(given == BLANK, calls[None], -1)
        return Row(result.tokens, reveal_step, result.log_prob, result.nfe)

    return decode
