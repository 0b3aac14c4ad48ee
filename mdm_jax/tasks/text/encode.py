"""Writes a corpus as streams of tokens: several processes encode, one reads and writes. It goes on where it was killed.

The streams lie in parts, PART.train and PART.test, each with a record PART.json of where in the corpus it ends.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Split
from mdm_jax.errors import RunError
from mdm_jax.files import make_folder, read_json, whole_file, write_whole
from mdm_jax.tasks.text.documents import Piece, read_pieces
from mdm_jax.tasks.text.sources import Place
from mdm_jax.text.tokenizer import Tokenizer, read_tokenizer

BATCH = 1 << 20
"""Characters that a process encodes at once, about."""
PART = 1 << 27
"""Characters of a part, about."""
SPLITS: tuple[Split, ...] = ("train", "test")
COUNTED = ("documents", "bytes", "tokens")


class Origin(NamedTuple):
    """Where documents come from."""

    place: Place
    split: Split | None
    """the split of all its documents; None for by their hash"""


class Reading(NamedTuple):
    """How documents are read and dealt."""

    field: str
    empty_lines: bool
    held_out: float
    """the share of documents held out, by their hash"""


class Sided(NamedTuple):
    """A piece and its split."""

    piece: Piece
    split: Split


def read_sided(origin: Origin, reading: Reading) -> Iterator[Sided]:
    """The pieces of a place, those of a document all with one split."""
    split: Split = "train"
    for piece in read_pieces(origin.place, field=reading.field, empty_lines=reading.empty_lines):
        if piece.begins:
            split = origin.split or split_of(piece.text, reading.held_out)
        yield Sided(piece, split)


def split_of(text: str, held_out: float) -> Split:
    """The split of a document, by a hash of its first piece, so that copies of one document share a split."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") < held_out * 2.0**64 else "train"


def encode(
    folder: pathlib.Path,
    origins: Sequence[Origin],
    reading: Reading,
    tokenizer: pathlib.Path,
    *,
    end_id: int,
    dtype: str,
    workers: int,
    progress: Callable[[int], object],
) -> dict[str, Any]:
    """Encodes all documents, each with a token behind it that ends it, from the last part in the folder on.

    Args:
      folder: of the parts.
      origins: where documents come from.
      reading: how they are read.
      tokenizer: the path of its file.
      end_id: the token that ends a document.
      dtype: of the tokens.
      workers: processes that encode; with 1 it is this one.
      progress: called with the number of characters that were done.

    Returns:
      Counts of documents, bytes and tokens, by split.

    Raises:
      InputError: the corpus cannot be read. RunError: a process died.
    """
    make_folder(folder)
    records = read_records(folder)
    at, done = (records[-1]["origin"], records[-1]["pieces"]) if records else (0, 0)
    progress(sum(record["characters"] for record in records))
    number, part = len(records), _Part()
    work = _batches(origins, reading, at, done)
    with _encoder(tokenizer, end_id, dtype, workers) as run:
        for batch, streams in run(work):
            part.add(batch, streams)
            progress(batch.characters)
            if part.characters >= PART:
                part.write(folder, number)
                number, part = number + 1, _Part()
    if part.characters:
        part.write(folder, number)
    return counted(read_records(folder))


def read_records(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The records of the parts that are there, in their order."""
    records: list[dict[str, Any]] = []
    while (path := folder / f"{len(records):06d}.json").exists():
        records.append(read_json(path, "the record of a part; delete its folder"))
    return records


def counted(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The sums of the records' counts, by split."""
    total = {split: dict.fromkeys(COUNTED, 0) for split in SPLITS}
    for record in records:
        for split in SPLITS:
            for name in COUNTED:
                total[split][name] += record[split][name]
    return {split: total[split] for split in SPLITS}


def read_stream(folder: pathlib.Path, split: Split, dtype: str, block: int = 1 << 22) -> Iterator[NDArray[Any]]:
    """The tokens of a split, in blocks."""
    for number in range(len(read_records(folder))):
        with (folder / f"{number:06d}.{split}").open("rb") as file:
            while len(tokens := np.fromfile(file, dtype, block)):
                yield tokens


class _Batch(NamedTuple):
    """Pieces that are encoded together, and where in the corpus they end."""

    pieces: list[Sided]
    characters: int
    origin: int
    done: int
    """pieces of the origin up to their end"""


def _batches(origins: Sequence[Origin], reading: Reading, at: int, done: int) -> Iterator[_Batch]:
    """All pieces from the piece `done` of the origin `at` on."""
    pieces: list[Sided] = []
    characters = number = 0
    for index in range(at, len(origins)):
        skipped = done if index == at else 0
        number = 0
        for sided in read_sided(origins[index], reading):
            number += 1
            if number <= skipped:
                continue
            pieces.append(sided)
            characters += len(sided.piece.text)
            if characters >= BATCH:
                yield _Batch(pieces, characters, index, number)
                pieces, characters = [], 0
    if pieces:
        yield _Batch(pieces, characters, len(origins) - 1, number)


class _Part:
    """The streams of a part while they grow."""

    def __init__(self) -> None:
        self.characters = 0
        self._streams: dict[Split, list[NDArray[Any]]] = {split: [] for split in SPLITS}
        self._counts = {split: dict.fromkeys(COUNTED, 0) for split in SPLITS}
        self._end = 0, 0

    def add(self, batch: _Batch, streams: tuple[NDArray[Any], ...]) -> None:
        self.characters += batch.characters
        self._end = batch.origin, batch.done
        for split, tokens in zip(SPLITS, streams, strict=True):
            mine = [sided.piece for sided in batch.pieces if sided.split == split]
            self._streams[split].append(tokens)
            self._counts[split]["documents"] += sum(piece.ends for piece in mine)
            self._counts[split]["bytes"] += sum(len(piece.text.encode()) for piece in mine)
            self._counts[split]["tokens"] += len(tokens)

    def write(self, folder: pathlib.Path, number: int) -> None:
        """Writes the streams, then the record, without which they do not count."""
        for split in SPLITS:
            with whole_file(folder / f"{number:06d}.{split}") as file:
                for tokens in self._streams[split]:
                    file.write(tokens.data)
        origin, done = self._end
        record: dict[str, Any] = {"origin": origin, "pieces": done, "characters": self.characters}
        record |= {split: self._counts[split] for split in SPLITS}
        write_whole(folder / f"{number:06d}.json", json.dumps(record) + "\n")


Run = Callable[[Iterable[_Batch]], Iterator[tuple[_Batch, tuple[NDArray[Any], ...]]]]


@contextlib.contextmanager
def _encoder(tokenizer: pathlib.Path, end_id: int, dtype: str, workers: int) -> Iterator[Run]:
    """What encodes batches in their order, in this process or in others, with few batches in memory."""
    if workers == 1:
        words = read_tokenizer(tokenizer)
        yield lambda batches: ((batch, _encoded(words, batch.pieces, end_id, dtype)) for batch in batches)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # this process may have threads, of JAX and others
        initializer=_begin,
        initargs=(tokenizer, end_id, dtype),
    )

    def run(batches: Iterable[_Batch]) -> Iterator[tuple[_Batch, tuple[NDArray[Any], ...]]]:
        waiting: collections.deque[tuple[_Batch, Any]] = collections.deque()
        for batch in batches:
            waiting.append((batch, pool.submit(_work, batch.pieces)))
            if len(waiting) > 2 * workers:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()

    try:
        yield run
    except concurrent.futures.process.BrokenProcessPool as error:
        raise RunError(
            f"a process that encodes has died ({error}): for want of memory, where the same command goes on with fewer "
            'workers; or in a script of your own that has no `if __name__ == "__main__":`, or give workers=1'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_mine: tuple[Tokenizer, int, str]
"""What a process of the pool encodes with."""


def _begin(tokenizer: pathlib.Path, end_id: int, dtype: str) -> None:
    """Starts a process of the pool."""
    global _mine
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that reads
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _mine = read_tokenizer(tokenizer), end_id, dtype


def _end_with_parent() -> None:
    """A killed process cannot end its pool."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(pieces: list[Sided]) -> tuple[NDArray[Any], ...]:
    words, end_id, dtype = _mine
    return _encoded(words, pieces, end_id, dtype)


def _encoded(words: Tokenizer, pieces: list[Sided], end_id: int, dtype: str) -> tuple[NDArray[Any], ...]:
    """The tokens of pieces, by split."""
    streams: dict[Split, list[NDArray[Any]]] = {split: [np.zeros(0, dtype)] for split in SPLITS}
    for (piece, split), ids in zip(pieces, words.encode_plain([sided.piece.text for sided in pieces]), strict=True):
        streams[split].append(np.array([*ids, end_id] if piece.ends else ids, dtype))
    return tuple(np.concatenate(streams[split]) for split in SPLITS)
