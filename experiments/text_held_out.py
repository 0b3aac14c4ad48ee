"""What the evaluations of text share: a masked model with its tokenizer, and rows of text that it has not seen."""

import pathlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import mdm_jax
from experiments.commands.prepare import load_splits
from experiments.text_flags import HeldOutFlags, MaskedModelFlags
from experiments.trained import load_run
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


def load_masked(flags: MaskedModelFlags) -> Masked:
    """The model, its tokenizer, and its mask; InputError for a causal model."""
    model = mdm_jax.load(flags.checkpoint)
    if getattr(model.config, "causal", False):
        raise InputError(f"{flags.checkpoint} holds a causal model, which has no orders: give a masked model")
    words = read_tokenizer(flags.tokenizer or run_folder(flags.checkpoint)[0])
    check_tokenizer(words, model.config)
    return Masked(model, words, mask_id_of(model, flags.mask_id, words))


def held_out_rows(flags: HeldOutFlags, words: Tokenizer, num: int, most: int) -> NDArray[np.int32]:
    """Rows evenly apart in what is held out, without those that have padding: int32 [num, length].

    Args:
      flags: name the text.
      words: the model's tokenizer.
      num: how many.
      most: the tokens that the model takes.

    Raises:
      InputError: there is no such text, or there are fewer rows.
    """
    length = flags.length or most
    if length > most:
        raise InputError(f"--length {length} is more than the {most} tokens that the model takes")
    if flags.text is None:
        place, rows = "the run's data", _own_rows(flags, length)
    else:
        place, rows = str(flags.text), _rows_of_text(flags.text, words, length)
    if len(rows) < num:
        raise InputError(f"{place} has {len(rows)} rows of {length} tokens held out, and {num} are wanted")
    return np.asarray(rows[np.arange(num) * len(rows) // num], np.int32)


def name_of(flags: HeldOutFlags, model: mdm_jax.Model) -> str:
    """The name of the held-out text in results."""
    return flags.text.name if flags.text is not None else pathlib.Path(str(model.task.get("source"))).name


def _rows_of_text(path: pathlib.Path, words: Tokenizer, length: int) -> NDArray[np.integer]:
    try:
        text = read_bytes(path, most=MOST).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8") from None
    ids = np.asarray(words.encode(text, special=False))
    return ids[: len(ids) // length * length].reshape(-1, length)


def _own_rows(flags: HeldOutFlags, length: int) -> NDArray[np.integer]:
    """The held-out rows of the data that a run was trained on, cut to a length."""
    try:
        _, task, layout = load_run("text", flags.checkpoint)
    except InputError as error:
        raise InputError(f"{error}; or name a text that it has not seen with --text") from None
    records = load_splits(task, flags.data)["test"]
    rows = layout.examples(records)
    return rows["tokens"][~rows["is_prompt"].any(axis=1), :length]
