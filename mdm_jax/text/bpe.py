"""Trains a tokenizer: byte-level byte-pair encoding, as GPT-2's, with which every text can be written."""

import json
import pathlib
from collections.abc import Iterable

from mdm_jax.errors import InputError, of_extra
from mdm_jax.files import make_folder, write_whole
from mdm_jax.text.tokenizer import FILE

END = "<|endoftext|>"
"""The token that ends a text. Its id is 0."""
LEAST = 257
"""The least tokens: one for each byte, and the end."""


def train_bpe(texts: Iterable[str], num_tokens: int, folder: pathlib.Path) -> pathlib.Path:
    """Trains a tokenizer, and writes it to a folder; the same texts give the same tokenizer.

    Args:
      texts: what to train on. The words of all of them are counted in memory.
      num_tokens: V, at least `LEAST`; little text gives fewer.
      folder: of tokenizer.json, and of tokenizer_config.json, which names the token that ends a text.

    Returns:
      The path of tokenizer.json.

    Raises:
      InputError: V is too small, or the folder cannot be written to; MissingExtraError without `tokenizers`.
    """
    if num_tokens < LEAST:
        raise InputError(f"a vocabulary of {num_tokens} tokens is too small: give at least {LEAST}, a token a byte")
    with of_extra("text"):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=num_tokens,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    make_folder(folder)
    write_whole(folder / "tokenizer_config.json", json.dumps({"eos_token": END}) + "\n")
    write_whole(folder / FILE, backend.to_str(pretty=True))
    return folder / FILE
