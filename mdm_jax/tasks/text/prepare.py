"""The steps of preparing a corpus before its rows are written: its tokenizer, and its streams of tokens."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from mdm_jax.data.checks import Say
from mdm_jax.errors import InputError, shown
from mdm_jax.files import make_folder
from mdm_jax.progress import Bar
from mdm_jax.tasks.text import encode
from mdm_jax.tasks.text.encode import Origin, Reading
from mdm_jax.text.bpe import train_bpe
from mdm_jax.text.tokenizer import FILE, Tokenizer, copy_tokenizer, read_tokenizer

TRAINED_ON = 1 << 26
"""The most characters that a tokenizer is trained on, an equal part of each file."""
PER_WORKER = 1 << 23
"""Bytes of a corpus for which a further process is worth its start."""


def make_tokenizer(
    folder: pathlib.Path,
    given: Tokenizer | None,
    num_tokens: int,
    origins: Sequence[Origin],
    reading: Reading,
    say: Say,
) -> Tokenizer:
    """Copies the given tokenizer to a folder, or trains one on documents that are not held out, unless it is there."""
    if not (folder / FILE).exists():
        if given is not None:
            copy_tokenizer(given, make_folder(folder))
        else:
            say(f"trains a tokenizer of {num_tokens} tokens ...")
            train_bpe(_texts(origins, reading), num_tokens, folder)
    return read_tokenizer(folder)


def _texts(origins: Sequence[Origin], reading: Reading) -> Iterator[str]:
    """The beginning of each file, up to an equal share."""
    for origin in origins:
        left = max(1, TRAINED_ON // len(origins))
        for piece, split in encode.read_sided(origin, reading):
            if split == "train":
                yield piece.text[:left]
                left -= len(piece.text)
            if left <= 0:
                break


def end_id_of(words: Tokenizer, name: str | None) -> int:
    """The token that ends a document, by its name or by what the tokenizer's folder says; InputError if none does."""
    if name is not None:
        found = words.backend.token_to_id(name)
        if found is None:
            raise InputError(f"{words.place} has no token {shown(name)}")
        return int(found)
    if words.end_ids:
        return words.end_ids[0]
    raise InputError(f"the folder of {words.place} does not say which token ends a text: name it with --end-token")


def write_streams(
    parts: pathlib.Path,
    origins: Sequence[Origin],
    reading: Reading,
    words: Tokenizer,
    *,
    end_id: int,
    dtype: str,
    workers: int | None,
    say: Say,
) -> dict[str, Any]:
    """Encodes a corpus as `encode.encode`, in so many processes, or in up to one a core if `workers` is None."""
    sizes = [origin.place.num_bytes() for origin in origins]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    worth = cores if None in sizes else sum(filter(None, sizes)) // PER_WORKER
    workers = workers or max(1, min(cores, worth))
    is_plain = all(origin.place.kind == ".txt" and not origin.place.compression for origin in origins)
    total = sum(filter(None, sizes)) if is_plain else None  # of others the size of the text is not known
    files, processes = ("s"[: number != 1] for number in (len(sizes), workers))
    say(f"encodes {len(sizes)} file{files} in {workers} process{'e' * bool(processes)}{processes} ...")
    with Bar(total=total, desc="text", unit=" characters", unit_scale=True, leave=False) as bar:
        return encode.encode(
            parts,
            origins,
            reading,
            words.place,
            end_id=end_id,
            dtype=dtype,
            workers=workers,
            progress=bar.update,
        )
