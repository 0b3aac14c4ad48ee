"""Prompts with answers, to train on: JSON lines in, token ids out."""

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError, shown
from mdm_jax.files import parse_json
from mdm_jax.text.prompts import Prompt, ids_of, lay_out, numbered_lines
from mdm_jax.text.special import check_ids
from mdm_jax.text.tokenizer import Tokenizer

MOST = 1 << 32
"""Bytes of a file."""


class Example(NamedTuple):
    """A prompt and its answer."""

    where: str
    """FILE:LINE"""
    prompt: Prompt
    answer: str | list[int]
    """a text, or token ids"""


def read_examples(path: str | os.PathLike[str]) -> list[Example]:
    """The examples of a file with a JSON object in each line.

    An object has "prompt" (a text, token ids or messages) and "answer" (a text or token ids), or "messages" (a
    conversation, whose last message is the answer). What else it holds is not looked at. Empty lines are none.

    Raises:
      InputError: the file cannot be read or holds no example, or a line is none.
    """
    found = []
    for number, line in numbered_lines(path, most=MOST):
        where = f"{path}:{number}"
        value = parse_json(line, f"{where} is no JSON")
        found.append(Example(where, *_of_json(value, where)))
    if not found:
        raise InputError(f"{path} holds no example")
    return found


def _of_json(value: Any, where: str) -> tuple[Prompt, str | list[int]]:
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    messages = fields.get("messages")
    prompt: Any
    answer: Any
    if isinstance(messages, list):
        last = messages[-1] if messages else None
        if len(messages) < 2 or not isinstance(last, dict) or last.get("role") != "assistant":
            raise InputError(f"{where}: messages must be at least two, and the last one the assistant's, the answer")
        prompt, answer = messages[:-1], last.get("content")
    elif {"prompt", "answer"} <= set(fields):
        prompt, answer = fields["prompt"], fields["answer"]
    else:
        raise InputError(f"{where} is {shown(value)}; wanted is an object with prompt and answer, or with messages")
    for name, part in (("prompt", prompt), ("answer", answer)):
        if not isinstance(part, str | list):
            raise InputError(f"{where}: the {name} must be a text or token ids, got {shown(part)}")
    if not len(answer):
        raise InputError(f"{where}: the answer is empty")
    return prompt, answer


def to_arrays(
    examples: list[Example], words: Tokenizer | None, config: Any, *, mask_id: int | None, end_id: int
) -> dict[str, NDArray[Any]]:
    """Examples as a model is trained on them: the prompt given, the answer and its end to be predicted.

    All are padded to the length of the longest with `end_id`. A masked model learns to predict the padding as it does
    the answer, as LLaDA's does, so that it can end an answer anywhere among the masks that it is given. A causal model
    predicts the first end alone; its first token has nothing before it and is never predicted.

    Args:
      examples: at least one.
      words: the tokenizer; None if all are token ids.
      config: of the model.
      mask_id: the mask token's id; None for a causal model.
      end_id: the id of the token that ends an answer.

    Returns:
      `tokens` int32 [N, L] and `is_prompt` bool [N, L].

    Raises:
      InputError: the model cannot predict `end_id`; or an example, named by file and line, has no tokens in its answer,
        is too long, or holds the mask or an id that the model does not have or cannot predict.
    """
    if not 0 <= end_id < config.vocab_size or end_id == mask_id:
        raise InputError(f"the id {end_id} cannot end an answer: give one that the model predicts")
    rows = [_row(example, words, config, mask_id) for example in examples]
    lengths = [len(given) + len(answer) + 1 for given, answer in rows]
    too_long = [i for i, length in enumerate(lengths) if length > config.max_length]
    if too_long:
        more = f"; {len(too_long)} of {len(rows)} lines are too long" if len(too_long) > 1 else ""
        raise InputError(
            f"{examples[too_long[0]].where} is {lengths[too_long[0]]} tokens long with the end of its answer, and the "
            f"model takes {config.max_length}{more}"
        )
    tokens = np.full((len(rows), max(lengths)), end_id, np.int32)
    is_prompt = np.zeros(tokens.shape, bool)
    for i, (given, answer) in enumerate(rows):
        tokens[i, : lengths[i] - 1] = [*given, *answer]
        is_prompt[i, : len(given)] = True
        if mask_id is None:
            is_prompt[i, lengths[i] :] = True
    return {"tokens": tokens, "is_prompt": is_prompt}


def _row(
    example: Example, words: Tokenizer | None, config: Any, mask_id: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ids of a prompt and of its answer."""
    try:
        given = lay_out(example.prompt, words, 0)
        if isinstance(example.answer, str):
            answer = np.asarray(ids_of(example.answer, words, special=False), np.int64)
        else:
            answer = lay_out(example.answer, None, 0)
    except InputError as error:
        raise InputError(f"{example.where}: {error}") from None
    check_ids(np.concatenate([given, answer]), mask_id, config, example.where)
    unseen = answer[answer >= config.vocab_size]
    if unseen.size:
        raise InputError(f"{example.where}: the answer holds the id {unseen[0]}, which the model never predicts")
    if not len(answer):
        raise InputError(f"{example.where}: the answer is empty")
    if mask_id is None and not len(given):
        raise InputError(f"{example.where}: the prompt is empty; a causal model goes on behind one token at least")
    return given, answer
