"""What a model and its tokenizer say together: whether they fit, and which ids mask and end a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mdm_jax.checks import check_mask_id
from mdm_jax.errors import InputError
from mdm_jax.text.tokenizer import Tokenizer


def check_tokenizer(words: Tokenizer | None, config: Any) -> None:
    """InputError if the tokenizer has ids that the model of `config` does not have."""
    if words is not None and words.num_tokens > config.num_tokens:
        raise InputError(
            f"{words.place} has ids up to {words.num_tokens - 1}, and the model has embeddings up to "
            f"{config.num_tokens - 1} alone: it is the tokenizer of another model"
        )


def end_ids_of(model: Any, end_ids: Sequence[int] | None, words: Tokenizer | None) -> tuple[int, ...]:
    """The ids of tokens that end a text: those given, else the tokenizer's, else the model's; the main one first.

    A run of this library says which id its texts ended with, whatever its tokenizer says.

    Raises:
      InputError: an id is none of the model's.
    """
    given = _task_field(model, "eos_token_id")
    own = given if isinstance(given, list) else [] if given is None else [given]
    is_run = _task_field(model, "name") is not None
    if end_ids is None:
        end_ids = own if is_run and own else (() if words is None else words.end_ids) or own
    checked = tuple(check_mask_id(number, name="an end_id") for number in end_ids)
    if max(checked, default=0) >= (num := model.config.num_tokens):
        raise InputError(f"an end_id is {max(checked)}, and the model has the ids 0 to {num - 1} alone: give end_ids")
    return checked


def mask_id_of(model: Any, mask_id: int | None, words: Tokenizer | None) -> int:
    """The mask token's id: that given, else the model's, else the tokenizer's; InputError where nobody says it."""
    found = _task_field(model, "mask_token_id") if mask_id is None else mask_id
    found = words.mask_id if found is None and words is not None else found
    if found is None:
        raise InputError("the mask token's id is not known: give mask_id, or mask_token_id in the model's config.json")
    return check_mask_id(found, model.config)


def check_ids(ids: np.ndarray, mask: int | None, config: Any, name: str) -> None:
    """InputError for ids, int64 [L], that the model does not have, or that are its mask."""
    unknown = ids[ids >= config.num_tokens]
    if unknown.size:
        raise InputError(f"{name} holds the id {unknown[0]}; the model's ids run from 0 to {config.num_tokens - 1}")
    if mask is not None and (ids == mask).any():
        raise InputError(f"{name} holds the mask token, {mask}, which would be filled in: take it out")


def _task_field(model: Any, name: str) -> Any:
    """What the model's own config.json says of a special token; None if nothing."""
    return getattr(model, "task", {}).get(name)
