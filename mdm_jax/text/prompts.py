"""What a user may ask for, as token ids with blanks where a token is wanted."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mdm_jax.errors import InputError, shown
from mdm_jax.files import MOST_JSON, parse_json, read_bytes
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.text.tokenizer import Tokenizer

BLANK = -1
"""Stands where a token is wanted: no id of any model."""


@dataclasses.dataclass(frozen=True)
class Gap:
    """A number of tokens that are wanted between texts."""

    length: int

    def __post_init__(self) -> None:
        check_number("the length of a gap", self.length, Range(1, INT32), whole=True)


Prompt: TypeAlias = str | Sequence[int] | Sequence[Mapping[str, Any]] | Sequence[str | Gap]
"""A text, its token ids, a conversation, or texts with gaps between them."""


def gaps(text: str) -> list[str | Gap]:
    r"""The texts and gaps of `text`, where [20] is a gap of 20 tokens, and \[ is a bracket.

    >>> gaps(r"x\[0] = [3]; y[i]")
    ['x[0] = ', Gap(length=3), '; y[i]']
    """
    parts: list[str | Gap] = [""]
    for literal, length, other in re.findall(r"(\\\[)|\[(\d{1,10})\]|([\s\S])", text):
        if length:
            if int(length) < 1:
                raise InputError(rf"[{length}] is a gap of no tokens; for the text write \[{length}]")
            parts += [Gap(int(length)), ""]
        else:
            parts[-1] = f"{parts[-1]}{'[' if literal else other}"
    return [part for part in parts if part != ""]


def lay_out(prompt: Prompt, tokenizer: Tokenizer | None, num_new: int) -> np.ndarray:
    """The ids of a prompt, int64 [L], with `BLANK` where tokens are wanted: in its gaps, or `num_new` behind it.

    Raises:
      InputError: it is no prompt, or it is text and there is no tokenizer.
    """
    if isinstance(prompt, str):
        ids = [*ids_of(prompt, tokenizer, special=True), *[BLANK] * num_new]
    elif not isinstance(prompt, Sequence | np.ndarray):
        raise InputError(f"a prompt is text, token ids, messages or texts with gaps; got {shown(prompt)}")
    elif any(isinstance(part, str | Gap) for part in prompt):
        if not any(isinstance(part, Gap) for part in prompt):
            raise InputError(
                f"{shown(prompt)} has no gap to fill in, such as Gap(20), which is [20] on the command line"
            )
        ids = []
        for part in prompt:
            if not isinstance(part, str | Gap):
                raise InputError(f"between texts and gaps stands {shown(part)}")
            ids += [BLANK] * part.length if isinstance(part, Gap) else ids_of(part, tokenizer, special=False)
    elif len(prompt) and all(isinstance(part, Mapping) for part in prompt):
        messages: Any = prompt
        ids = [*_needed(tokenizer).chat(messages), *[BLANK] * num_new]
    else:
        try:
            given = np.asarray(prompt)
        except ValueError:  # lists of different lengths
            given = np.asarray(prompt, object)
        if given.size and (given.ndim != 1 or given.dtype.kind not in "iu" or given.min() < 0 or given.max() > INT32):
            raise InputError(f"a prompt's token ids must be whole numbers from 0, got {shown(prompt)}")
        ids = [*given.tolist(), *[BLANK] * num_new]
    return np.asarray(ids, np.int64)


def ids_of(text: str, tokenizer: Tokenizer | None, *, special: bool) -> list[int]:
    """The ids of a text; InputError without a tokenizer."""
    return _needed(tokenizer).encode(text, special=special)


def _needed(tokenizer: Tokenizer | None) -> Tokenizer:
    if tokenizer is None:
        raise InputError("a prompt is text, and there is no tokenizer: give a tokenizer.json, or token ids")
    return tokenizer


def read_prompts(path: str | os.PathLike[str]) -> list[Prompt]:
    """The prompts of a file: of one ending in .jsonl or .json a JSON value a line, of any other a text a line.

    A value is a text, or an object with one of "prompt" (a text), "tokens" (ids), "messages" (a conversation) and
    "infill" (a text with gaps); what else it holds is not looked at. Empty lines are none.

    Raises:
      InputError: it cannot be read, holds no prompt, or a line is none.
    """
    is_json = os.fspath(path).endswith((".jsonl", ".json"))
    numbered = numbered_lines(path, most=MOST_JSON * 16)
    prompts = [_of_json(line, f"line {number} of {path}") if is_json else line for number, line in numbered]
    if not prompts:
        raise InputError(f"{path} holds no prompt")
    return prompts


def numbered_lines(path: str | os.PathLike[str], *, most: int) -> list[tuple[int, str]]:
    """The lines of a text, but for empty ones, with their numbers from 1; InputError beyond `most` bytes."""
    try:
        lines = read_bytes(path, most=most).decode().split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8") from None
    return [(number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip()]


def _of_json(line: str, where: str) -> Prompt:
    value = parse_json(line, f"{where} is no JSON")
    if isinstance(value, str):
        return value
    kinds = {"prompt": str, "tokens": list, "messages": list, "infill": str}
    found = [name for name in kinds if isinstance(value, dict) and name in value]
    if len(found) != 1 or not isinstance(value[found[0]], kinds[found[0]]):
        wanted = "a text, or an object with one of prompt, tokens, messages and infill"
        raise InputError(f"{where} is {shown(json.dumps(value))}; wanted is {wanted}")
    given: Prompt = value[found[0]]
    return gaps(str(given)) if found[0] == "infill" else given
