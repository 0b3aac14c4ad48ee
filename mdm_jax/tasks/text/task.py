"""A corpus as a task: rows of tokens of one length, in two splits that share no document."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data import builders
from mdm_jax.data.checks import Records, Say, Split, silent
from mdm_jax.errors import InputError, shown
from mdm_jax.files import make_folder, read_json, write_whole
from mdm_jax.progress import Bar
from mdm_jax.report.board import Board, View
from mdm_jax.tasks.base import Scores, Tokens
from mdm_jax.tasks.text import VERSION, encode
from mdm_jax.tasks.text.layouts import Causal, Masked
from mdm_jax.tasks.text.rows import cut_rows, document_rows
from mdm_jax.tasks.text.sources import find_places
from mdm_jax.text.bpe import train_bpe
from mdm_jax.text.tokenizer import FILE, Tokenizer, copy_tokenizer, read_tokenizer

TRAINED_ON = 1 << 28
"""The most characters that a tokenizer is trained on, an equal part of each file."""
PER_WORKER = 1 << 23
"""Bytes of a corpus for which a further process is worth its start."""
COUNTS = "counts.json"
"""The file with the numbers of documents, bytes and tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """The rows of a corpus.

    Attributes:
      source: a file, a folder, a pattern, or hf:NAME; see `sources.find_places`.
      test_source: the same, of the documents held out; None holds out a part of the source's.
      held_out: the share of the source's documents that are held out, each by its hash.
      length: L.
      tokenizer: a tokenizer.json, or its folder; None trains one on the documents that are not held out.
      vocab: the tokens of one that is trained.
      end_token: the token that ends a document; None is what the tokenizer's folder says.
      packing: "joined" cuts the joined documents into rows; "documents" begins each document in a row of its own, so
        that attention stays within it, and pads the last row of each.
      field: the field of JSON, or the column, that holds the text.
      empty_lines: whether in a .txt file an empty line ends a document; if not, it is one document.
      workers: processes that prepare; None is up to one a core.
    """

    source: str
    test_source: str | None = None
    held_out: float = 0.01
    length: int = 256
    tokenizer: str | None = None
    vocab: int = 4096
    end_token: str | None = None
    packing: Literal["joined", "documents"] = "joined"
    field: str = "text"
    empty_lines: bool = False
    workers: int | None = dataclasses.field(default=None, compare=False)

    name: ClassVar[str] = "text"
    metric: ClassVar[str] = "entropy"
    temperature: ClassVar[float] = 1.0
    num_train: ClassVar[None] = None
    num_test: ClassVar[None] = None

    @property
    def title(self) -> str:
        """The name of the source."""
        return self.source if self.source.startswith("hf:") else pathlib.Path(self.source).name

    @functools.cached_property
    def words(self) -> Tokenizer | None:
        """The tokenizer that is given; None if one is trained."""
        return None if self.tokenizer is None else read_tokenizer(self.tokenizer)

    @property
    def vocab_size(self) -> int:
        """V, of the network."""
        return self.vocab if self.words is None else self.words.num_tokens

    @property
    def dtype(self) -> str:
        """Of the tokens on disk; two ids more than V are used."""
        return "uint16" if self.vocab_size + 2 <= 1 << 16 else "int32"

    @property
    def masked(self) -> Masked:
        """The layout of masked models."""
        return Masked(self.length, self.vocab_size, self.packing == "documents")

    @property
    def causal(self) -> Causal:
        """The layout of autoregressive models, from left to right."""
        return Causal(self.length, self.vocab_size, self.packing == "documents")

    @property
    def layouts(self) -> Mapping[str, Masked | Causal]:
        """Both."""
        return {"masked": self.masked, "causal": self.causal}

    @functools.cached_property
    def origins(self) -> list[encode.Origin]:
        """Where documents come from."""
        if self.test_source is None:
            return [encode.Origin(place, None) for place in find_places(self.source)]
        train = [encode.Origin(place, "train") for place in find_places(self.source)]
        return [*train, *(encode.Origin(place, "test") for place in find_places(self.test_source))]

    @property
    def reading(self) -> encode.Reading:
        """How documents are read."""
        return encode.Reading(self.field, self.empty_lines, self.held_out)

    @functools.cached_property
    def dataset(self) -> str:
        """The name on disk: the length, and a digest of all inputs, of files by name, size and time of change."""
        words: bytes | int = self.vocab if self.words is None else self.words.backend.to_str().encode()
        held_out = self.held_out if self.test_source is None else None
        options = (VERSION, self.length, words, self.end_token, self.packing, self.field, self.empty_lines, held_out)
        places = [f"{origin.split} {origin.place.identity()}" for origin in self.origins]
        return f"{self.length}-{builders.digest(*options, *places)}"

    def folder(self, data_dir: str | os.PathLike[str]) -> pathlib.Path:
        """Where the dataset lies, with its tokenizer."""
        return pathlib.Path(data_dir) / self.name / self.dataset

    def prepare(self, data_dir: str | os.PathLike[str], *, say: Say = silent) -> Any:
        """Writes the rows as a tfds dataset if it is not there yet. A call that was killed can be repeated: it goes on.

        Args:
          data_dir: the folder of all datasets.
          say: receives lines for the user.

        Returns:
          The prepared builder, with splits "train" and "test".

        Raises:
          InputError: the corpus is malformed, or too small; or the dataset on disk is damaged.
        """
        from mdm_jax.tasks.text import builder  # imports tfds

        folder = self.folder(data_dir)
        parts, counts = folder / "parts", dict.fromkeys(encode.SPLITS, 0)
        is_there = (folder / VERSION).exists()
        if not is_there:
            words = self._make_tokenizer(folder, say)
            self._encode(folder, parts, words, say)
            counts = {split: sum(map(len, self._rows(parts, words, split))) for split in encode.SPLITS}
            self._check_counts(folder, counts)
        words = read_tokenizer(folder)
        made = builder.prepare(
            data_dir,
            builder.Config(
                self.dataset,
                length=self.length,
                dtype=self.dtype,
                counts=counts,
                rows=functools.partial(self._rows, parts, words),
            ),
        )
        if not is_there:
            shutil.rmtree(parts, ignore_errors=True)
        return made

    def read(self, made: Any, split: Split) -> Records:
        """The rows of a split, on disk if they are many."""
        return builders.open_split(made, split)

    def tokenizer_in(self, data_dir: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer of the prepared data."""
        return read_tokenizer(self.folder(data_dir))

    def counts(self, data_dir: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
        """The documents, bytes and tokens of each split of the prepared data."""
        found: dict[str, dict[str, int]] = read_json(self.folder(data_dir) / COUNTS, "counts")
        return found

    def end_id(self, words: Tokenizer) -> int:
        """The token that ends a document; InputError if it is not known."""
        if self.end_token is not None:
            found = words.backend.token_to_id(self.end_token)
            if found is None:
                raise InputError(f"{words.place} has no token {shown(self.end_token)}")
            return int(found)
        if words.end_ids:
            return words.end_ids[0]
        raise InputError(f"the folder of {words.place} does not say which token ends a text: name it with --end-token")

    def _make_tokenizer(self, folder: pathlib.Path, say: Say) -> Tokenizer:
        """Trains or copies the tokenizer, unless it is there."""
        if not (folder / FILE).exists():
            if self.words is not None:
                self.end_id(self.words)
                copy_tokenizer(self.words, make_folder(folder))
            else:
                say(f"trains a tokenizer of {self.vocab} tokens ...")
                train_bpe(self._texts(), self.vocab, folder)
        return read_tokenizer(folder)

    def _texts(self) -> Iterator[str]:
        """What a tokenizer is trained on: the beginning of each file, up to an equal share."""
        most = max(1, TRAINED_ON // len(self.origins))
        for origin in self.origins:
            left = most
            for piece, split in encode.read_sided(origin, self.reading):
                if split == "train":
                    yield piece.text[:left]
                    left -= len(piece.text)
                if left <= 0:
                    break

    def _encode(self, folder: pathlib.Path, parts: pathlib.Path, words: Tokenizer, say: Say) -> None:
        sizes = [origin.place.num_bytes() for origin in self.origins]
        size = None if None in sizes else sum(filter(None, sizes))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = self.workers or max(1, min(cores, cores if size is None else size // PER_WORKER))
        say(f"encodes {len(sizes)} files in {workers} processes ...")
        with Bar(total=size, desc="text", unit="B", unit_scale=True, leave=False) as bar:
            counts = encode.encode(
                parts,
                self.origins,
                self.reading,
                folder / FILE,
                end_id=self.end_id(words),
                dtype=self.dtype,
                workers=workers,
                progress=bar.update,
            )
        write_whole(folder / COUNTS, json.dumps(counts) + "\n")

    def _rows(self, parts: pathlib.Path, words: Tokenizer, split: Split) -> Iterator[NDArray[Any]]:
        stream = encode.read_stream(parts, split, self.dtype)
        if self.packing == "joined":
            return cut_rows(stream, self.length)
        return document_rows(stream, self.length, end_id=self.end_id(words), pad_id=self.vocab_size + 1)

    def _check_counts(self, folder: pathlib.Path, counts: Mapping[Split, int]) -> None:
        """Raises InputError if a split has no row."""
        found = read_json(folder / COUNTS, "counts")
        for split, number in counts.items():
            documents, tokens = (found[split].get(name, 0) for name in ("documents", "tokens"))
            if number:
                continue
            source = self.source if split == "train" or self.test_source is None else self.test_source
            total = sum(found[name].get("documents", 0) for name in encode.SPLITS)
            if documents == 0 and total and self.test_source is None:
                what = "held out" if split == "test" else "trained on"
                raise InputError(
                    f"none of the {total} documents of {source} is {what}, with a share of {self.held_out} held out: "
                    "give another --held-out or a --test-source, or end a document at each empty line: --empty-lines"
                )
            have = f"{documents} documents of {tokens} tokens" if tokens else "no document"
            raise InputError(
                f"{source} has {have} for the {split} split: a row has {self.length}; give a smaller --length"
            )

    def statistics(self, records: Records) -> dict[str, float]:
        """Nothing: `counts` has it."""
        del records
        return {}

    def records(self, split: Split, num: int, *, say: Say = silent) -> Records:
        """InputError: a row is known only when all are prepared."""
        raise InputError(
            f"{num} rows of {self.title} cannot be made alone: prepare the data, and read the {split} split"
        )

    def score(self, answers: Tokens, records: Records) -> Scores:
        """The entropy of the tokens of each answer, nats: -Σ p log p of their frequencies (Kim et al. 2025, D.1.2)."""
        del records
        entropies = []
        for row in answers:
            share = np.unique(row, return_counts=True)[1] / len(row)
            entropies.append(-(share * np.log(share)).sum())
        return {"entropy": np.array(entropies)}

    def show(self, answer: NDArray[Any], steps: NDArray[Any], record: Mapping[str, Any]) -> str:
        """The ids, as the tokenizer lies with the data."""
        del steps, record
        return " ".join(map(str, answer)) + "\n"

    def view(self, record: Mapping[str, Any]) -> View:
        """The ids in a line. No token is known to be right."""
        del record
        return View(
            Board(),
            [str(i) for i in range(self.vocab_size + 2)],
            self.vocab_size,
            lambda answer: np.full_like(answer, -1),
        )
