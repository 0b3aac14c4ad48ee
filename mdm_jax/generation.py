"""`generate`: prompts in, text out, by the samplers of this library. Reached lazily, as it needs Flax."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from mdm_jax.decoding import BEHIND, Made, Network, Row, Watch, continuing, searching, unmasking
from mdm_jax.edits import edit_of
from mdm_jax.errors import InputError, shown
from mdm_jax.evaluation.prompts import fill_sequences
from mdm_jax.models import kinds
from mdm_jax.oracles import margin, with_last
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.selection import PerStep
from mdm_jax.text.prompts import BLANK, Gap, Prompt, lay_out
from mdm_jax.text.special import check_ids, check_tokenizer, end_ids_of, mask_id_of
from mdm_jax.text.tokenizer import Tokenizer, read_tokenizer
from mdm_jax.typing import Oracle, Selector

End = Literal["free", "never", "last"]


class Generated(NamedTuple):
    """What was generated for a prompt: up to the first token that ends the text, in every gap.

    What stands behind it is not predicted any more, but by a search, which follows whole texts.
    """

    text: str | None
    """what is behind the prompt, or a prompt with gaps with them filled in; None without a tokenizer"""
    gaps: tuple[str, ...] | None
    """the text of each gap; behind a prompt is one"""
    tokens: list[int]
    """the ids of all gaps"""
    reveal_step: list[int]
    """of each, the network call of its batch that revealed it, from 0"""
    log_prob: list[float]
    """of each, nats: log p_theta at that moment, at temperature 1, after guidance and with what is left out left out"""
    nfe: int
    """network calls of its batch"""


def generate(
    model: Network,
    prompts: Sequence[Prompt],
    *,
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    num_new: int = 128,
    mask_id: int | None = None,
    oracle: Oracle = margin,
    selector: Selector = PerStep(1),  # noqa: B008 (frozen)
    block_length: int | None = None,
    search_width: int | None = None,
    check: int = 0,
    judge: str | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    guidance: float = 0.0,
    end: End = "free",
    end_ids: Sequence[int] | None = None,
    suppressed: Sequence[int] = (),
    batch_size: int = 8,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    watch: Watch | None = None,
    progress: str | None = None,
) -> list[Generated]:
    """Continues prompts, or fills in their gaps. A prompt's result depends neither on the others nor on their number.

    Prompts of like length share a batch. They are padded on the right where the network hides padding (`pad_id`), or
    has an id that the tokenizer does not have, which it then hides. Elsewhere only prompts of one length share one. A
    causal model continues its prompts from left to right.

    Args:
      model: from `mdm_jax.load`, on one device or over a mesh.
      prompts: each a text, token ids, messages with role and content, or a list of texts and `Gap(n)`, of which the
        gaps are filled in (`text.prompts.gaps` makes it from "def f(x):[20]return y").
      tokenizer: the tokenizer, or the path of a tokenizer.json or its folder. None: all prompts are token ids.
      num_new: tokens to generate behind each prompt that has no gaps.
      mask_id: the mask token's id; None is what the tokenizer's folder says.
      oracle: scores of positions; see `oracles`. Not for a causal model, as selector, block_length, search_width,
        check, judge and guidance.
      selector: how many to reveal in a step, in each block; see `selection`, and `correction.Remask`.
      block_length: only the leftmost block of this length that holds a mask is open, counted from the first mask.
      search_width: the most fillings of a prompt that are followed at a time, in a beam search (`search_sample`), which
        takes no block_length, temperature, guidance, watch or judge. None: one filling, by the selector.
      check: of the fillings that a search ends with, keeps the one that fits itself best, by so many calls for each;
        they see neither top_p nor suppressed ids.
      judge: a name in `judges.JUDGES`, with the selector `correction.TakeBack(k)`: says which tokens are taken back.
      temperature: of the tokens drawn; 0 takes the likeliest.
      top_p: draw, and score, among the fewest likeliest tokens that have this probability together.
      guidance: w of classifier-free guidance, at two network calls a step; 0 is none. See `edits.Guided`.
      end: "free"; "never": a token that ends the text is never predicted; "last": it is revealed after all others.
      end_ids: the ids of tokens that end the text; None is what the tokenizer's folder says.
      suppressed: ids that are never predicted.
      batch_size: prompts in a batch.
      seed: of all draws.
      numbers: of each prompt, on which its draws depend beside the seed; None is its place. So a part of many prompts
        gives what all of them together give.
      watch: is shown a masked model's every step, one prompt after the other.
      progress: the label of a progress bar; None shows none.

    Returns:
      What was generated, in the order of the prompts.

    Raises:
      InputError: a prompt is none, too long, or holds a mask or an unknown id; the tokenizer is of another model; or an
        option is off.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise InputError(f"prompts must be a list of at least one prompt, got {shown(prompts)}")
    for name, values in (("numbers", numbers), ("end_ids", end_ids), ("suppressed", suppressed)):
        if values is not None:
            _check_whole(name, values)
    if numbers is not None and len(numbers) != len(prompts):
        raise InputError(f"there are {len(prompts)} prompts and {len(numbers)} numbers: give one for each")
    for name, number in (("num_new", num_new), ("batch_size", batch_size)):
        check_number(name, number, Range(1, INT32), whole=True)
    check_number("seed", seed, Range(0, below=1 << 32), whole=True)
    words = tokenizer if tokenizer is None or isinstance(tokenizer, Tokenizer) else read_tokenizer(tokenizer)
    check_tokenizer(words, model.config)
    ends = _end_ids(model, end, end_ids, words)
    edit = edit_of(suppressed, ends if end == "never" else (), top_p, model.config.num_tokens)
    sequences = [lay_out(prompt, words, num_new) for prompt in prompts]
    causal = getattr(model.config, "causal", False)
    mask = None if causal else mask_id_of(model, mask_id, words)
    pad_id: int | None = BEHIND
    for number, ids in enumerate(sequences, 1):
        _check_sequence(ids, mask, model.config, f"prompt {number}")
    if mask is None:
        others = (oracle, selector, block_length, guidance, watch, search_width, check, judge, end == "last")
        decode = continuing(model, temperature, edit, ends, others)
    else:
        model = hiding_unused(model, words, mask)
        pad_id = getattr(model.config, "pad_id", None) if watch is None else None
        oracle = with_last(oracle, ends) if end == "last" else oracle
        if search_width is None:
            if check:
                raise InputError("check chooses among the fillings of a search: give search_width")
            how: dict[str, Any] = {"edit": edit, "ends": ends, "guidance": guidance, "judge": judge, "watch": watch}
            decode = unmasking(model, mask, oracle, selector, block_length, temperature, **how)
        else:
            unused = (block_length, temperature, guidance, watch, judge)
            decode = searching(model, mask, oracle, selector, search_width, check=check, edit=edit, unused=unused)
    rows = fill_sequences(
        decode,
        [np.where(ids == BLANK, BLANK if mask is None else mask, ids) for ids in sequences],
        pad_id=pad_id,
        max_length=model.config.max_length,
        batch_size=batch_size if watch is None else 1,
        seed=seed,
        numbers=numbers,
        progress=progress,
    ).rows
    return [_generated(*each, ends, words) for each in zip(prompts, sequences, rows, strict=True)]


def hiding_unused(model: Network, words: Tokenizer | None, mask: int) -> Network:
    """The model, hiding an id that the tokenizer does not have, so that prompts of different lengths share a batch.

    It stays as it is where it hides one already, has no such id, or cannot hide any.
    """
    config = model.config
    unused = set() if words is None else set(range(words.num_tokens, config.num_tokens)) - {mask}
    if not unused or getattr(config, "pad_id", 0) is not None or model.denoiser != kinds.make_denoiser(config):
        return model
    config = dataclasses.replace(config, pad_id=max(unused))
    return Made(config, model.params, kinds.make_denoiser(config))


def _check_whole(name: str, values: Sequence[int]) -> None:
    """InputError unless they are several whole numbers."""
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise InputError(f"{name} must be a list of whole numbers, got {shown(values)}")
    for value in values:
        check_number(f"a number of {name}", value, Range(0, INT32), whole=True)


def _end_ids(model: Network, end: str, end_ids: Sequence[int] | None, words: Tokenizer | None) -> tuple[int, ...]:
    """The ids of tokens that end a text; InputError for a rule that is none, or that lacks them."""
    if end not in get_args(End):
        raise InputError(f"end={shown(end)} is unknown: choose from {', '.join(get_args(End))}")
    ends = end_ids_of(model, end_ids, words)
    if not ends and end != "free":
        raise InputError(f"end={end!r} needs the ids of tokens that end the text: give end_ids")
    return ends


def _check_sequence(ids: np.ndarray, mask: int | None, config: Any, name: str) -> None:
    """InputError for ids, int64 [L] with BLANK, that the model cannot be given. A causal one has no mask."""
    check_ids(ids, mask, config, name)
    if len(ids) > config.max_length:
        raise InputError(
            f"{name} is {len(ids)} tokens long with those to generate, and the model takes {config.max_length}"
        )
    num_given = int((ids != BLANK).sum())
    if mask is None and ((ids[:num_given] == BLANK).any() or not num_given):
        what = "is empty" if not num_given else "has gaps"
        raise InputError(f"{name} {what}: a causal model goes on from left to right, behind one token at least")


def _generated(prompt: Prompt, ids: np.ndarray, row: Row, ends: tuple[int, ...], words: Tokenizer | None) -> Generated:
    """What stands in the blanks of `ids`, int64 [L], up to the first end in each gap."""
    is_blank = ids == BLANK
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_blank, [False]]).astype(int))).reshape(-1, 2)
    is_kept, texts = np.ones(len(ids), bool), []
    for first, behind in edges:
        is_end = np.isin(row.tokens[first:behind], ends)
        is_kept[first:behind] = np.cumsum(is_end) == 0
    for first, behind in edges:
        kept = np.arange(first, behind)[is_kept[first:behind]]
        before = np.flatnonzero(is_kept[:first])
        texts.append("" if words is None else words.behind(row.tokens[before], row.tokens[kept]))
    is_new = is_blank & is_kept
    fills = any(isinstance(part, Gap) for part in prompt)
    text = words.decode(row.tokens[is_kept]) if words is not None and fills else "".join(texts)
    return Generated(
        None if words is None else text,
        None if words is None else tuple(texts),
        row.tokens[is_new].tolist(),
        row.reveal_step[is_new].tolist(),
        row.log_prob[is_new].tolist(),
        int(row.nfe),
    )
