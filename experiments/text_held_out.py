"""What the evaluations of text share: a masked model with its tokenizer, and rows of text that it has not seen."""

import pathlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.files import read_bytes
from mdm_jax.loading import run_folder
from mdm_jax.text.special import check_tokenizer, mask_id_of
from mdm_jax.text.tokenizer import Tokenizer, read_tokenizer

MOST = 1 << 32
"""Bytes of a text."""


class Masked(NamedTuple):
    """A masked model of text."""

    model: mdm_jax.Model
    words: Tokenizer
    mask_id: int


def load_masked(checkpoint: pathlib.Path, tokenizer: pathlib.Path | None, mask_id: int | None) -> Masked:
    """The model, its tokenizer, and its mask; InputError for a causal model."""
    model = mdm_jax.load(checkpoint)
    if getattr(model.config, "causal", False):
        raise InputError(f"{checkpoint} holds a causal model, which has no orders to choose from: give a masked model")
    words = read_tokenizer(tokenizer or run_folder(checkpoint)[0])
    check_tokenizer(words, model.config)
    return Masked(model, words, mask_id_of(model, mask_id, words))


def rows_of_text(path: pathlib.Path, words: Tokenizer, length: int, num: int) -> NDArray[np.int32]:
    """Rows of `length` tokens, evenly apart in a text: int32 [num, length].

    Raises:
      InputError: it is no text, or too short.
    """
    try:
        text = read_bytes(path, most=MOST).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8") from None
    ids = np.asarray(words.encode(text, special=False), np.int32)
    whole = len(ids) // length
    if whole < num:
        raise InputError(f"{path} has {whole} rows of {length} tokens, and {num} are wanted: give a longer text")
    chosen = np.arange(num) * whole // num
    return ids[: whole * length].reshape(whole, length)[chosen]
