"""A corpus as a task: rows of tokens of one length, in two splits that share no document."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data import builders
from mdm_jax.data.checks import Records, Say, Split, lookup, silent
from mdm_jax.errors import InputError
from mdm_jax.files import local_path, open_lock, read_json, write_whole
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.report.board import Board, View
from mdm_jax.tasks.base import Scores, Tokens, fields_of
from mdm_jax.tasks.text import VERSION, encode
from mdm_jax.tasks.text.layouts import Causal, Masked
from mdm_jax.tasks.text.prepare import end_id_of, make_tokenizer, write_streams
from mdm_jax.tasks.text.rows import cut_rows, document_rows
from mdm_jax.tasks.text.sources import find_places
from mdm_jax.text.tokenizer import Tokenizer, read_tokenizer

Packing = Literal["joined", "documents"]
MADE = "made.json"
"""The file that says what was prepared, and of how many documents, bytes and tokens."""


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
    packing: Packing = "joined"
    field: str = "text"
    empty_lines: bool = False
    workers: int | None = dataclasses.field(default=None, compare=False)

    name: ClassVar[str] = "text"
    metric: ClassVar[str] = "entropy"
    temperature: ClassVar[float] = 1.0
    num_train: ClassVar[None] = None
    num_test: ClassVar[None] = None

    def __post_init__(self) -> None:
        lookup("packing", dict.fromkeys(get_args(Packing)), self.packing)
        for name, least in (("length", 2), ("vocab", 1)):
            check_number(name, getattr(self, name), Range(least, INT32), whole=True)
        check_number("held_out", self.held_out, Range(above=0, below=1))
        if self.workers is not None:
            check_number("workers", self.workers, Range(1, INT32), whole=True)

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
        """Where the dataset lies, with its tokenizer. Once it is prepared, the source may be gone."""
        parent = local_path(data_dir) / self.name
        try:
            return parent / self.dataset
        except InputError:
            found = [path for path in parent.glob(f"{self.length}-*/{MADE}") if self._made(path) == fields_of(self)]
            if len(found) != 1:
                raise
            return found[0].parent

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
        config = functools.partial(builder.Config, folder.name, length=self.length, dtype=self.dtype)
        if (folder / VERSION).exists():
            return builder.prepare(data_dir, config())
        if self.words is not None:
            end_id_of(self.words, self.end_token)  # before anything is written
        with open_lock(folder):
            parts = folder / "parts"
            counts, rows = self._write(folder, parts, say)
            found = builder.prepare(data_dir, config(counts=counts, rows=rows))
            shutil.rmtree(parts, ignore_errors=True)
        return found

    def _write(
        self, folder: pathlib.Path, parts: pathlib.Path, say: Say
    ) -> tuple[dict[Split, int], Callable[[Split], Iterator[NDArray[Any]]]]:
        """Writes all but the rows: the number of rows of each split, and what gives them."""
        words = make_tokenizer(folder, self.words, self.vocab, self.origins, self.reading, say)
        end_id = end_id_of(words, self.end_token)
        made = write_streams(
            parts,
            self.origins,
            self.reading,
            words,
            end_id=end_id,
            dtype=self.dtype,
            workers=self.workers,
            say=say,
        )
        rows = functools.partial(self._rows, parts, end_id)
        counts = {split: self._count(made[split], rows(split)) for split in encode.SPLITS}
        for split, number in counts.items():
            if not number:
                raise InputError(self._why_none(made, split))
        write_whole(folder / MADE, json.dumps({"task": fields_of(self), **made}, indent=1) + "\n")
        return counts, rows

    def read(self, made: Any, split: Split) -> Records:
        """The rows of a split; they stay on disk if they are many."""
        return builders.open_split(made, split)

    def tokenizer_in(self, data_dir: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer of the prepared data."""
        return read_tokenizer(self.folder(data_dir))

    def counts(self, data_dir: str | os.PathLike[str]) -> dict[Split, dict[str, int]]:
        """The documents, bytes and tokens of each split of the prepared data."""
        made = read_json(self.folder(data_dir) / MADE, "what was prepared")
        return {split: made[split] for split in encode.SPLITS}

    @staticmethod
    def _made(path: pathlib.Path) -> Any:
        """The fields of the task that prepared the data."""
        made = read_json(path, "what was prepared")
        return made.get("task") if isinstance(made, dict) else None

    def _rows(self, parts: pathlib.Path, end_id: int, split: Split) -> Iterator[NDArray[Any]]:
        stream = encode.read_stream(parts, split, self.dtype)
        if self.packing == "joined":
            return cut_rows(stream, self.length)
        return document_rows(stream, self.length, end_id=end_id, pad_id=self.vocab_size + 1)

    def _count(self, counts: Mapping[str, int], rows: Iterator[NDArray[Any]]) -> int:
        """The number of rows; documents in rows of their own have to be counted."""
        return counts["tokens"] // self.length if self.packing == "joined" else sum(map(len, rows))

    def _why_none(self, made: Mapping[str, Mapping[str, int]], split: Split) -> str:
        """Why a split has no row, and what to do."""
        source = self.source if split == "train" or self.test_source is None else self.test_source
        total = sum(made[name]["documents"] for name in encode.SPLITS)
        if not made[split]["documents"] and (self.test_source is not None or not total):
            return f"{source} has no document with a visible character"
        if not made[split]["documents"]:
            return (
                f"none of the documents of {source} is {'held out' if split == 'test' else 'trained on'}, {total} in "
                f"all, with a share of {self.held_out} held out: give another --held-out or a --test-source, or end a "
                "document at each empty line of a .txt file (--empty-lines)"
            )
        return (
            f"the documents of {source} for the {split} split have {made[split]['tokens']} tokens, fewer than a row of "
            f"{self.length}: give a smaller --length"
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
