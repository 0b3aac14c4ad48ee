"""The protocols of a task and of a layout. NumPy in, NumPy out.

A task is a frozen dataclass whose fields name its data. It makes records and scores answers. A layout writes records
as sequences of tokens and reads answers back from sequences. Commands prepare, train, evaluate and solve any task
through these two.

The protocols also fit text and code, where a record is no puzzle and an answer no grid of cells:

    text            record  a document              start    masks only, or a prefix and then masks
                    answer  a string                score    the share of n-grams that are new, [N]
    code infilling  record  prefix, suffix, tests   start    prefix, masks, suffix, tokenized by the layout
                    answer  the middle              score    whether the tests pass, bool [N]
"""

import abc
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data import builders
from mdm_jax.data.checks import Records, Say, Split, silent
from mdm_jax.errors import InputError
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.report.board import View

Tokens = NDArray[np.int32]
"""[N, L]"""

Answers = NDArray[Any]
"""The answers that a layout reads from sequences, [N, ...]."""

Scores = Mapping[str, NDArray[Any]]
"""Scores by name: one value for each of N answers, [N], or for each of their parts, [N, ...], with NaN for parts that
do not count. Boolean values are successes. The parts of one answer are not independent, so a mean over parts has no
confidence interval."""


class Layout(Protocol):
    """How records become sequences of tokens, and how sequences become answers."""

    @property
    def name(self) -> str:
        """The name in flags."""
        ...

    @property
    def method(self) -> str:
        """The name of a model of this layout in results: mdm, arm or arm_ordered."""
        ...

    @property
    def mask_id(self) -> int | None:
        """The mask token, or None for a layout of autoregressive models."""
        ...

    @property
    def network(self) -> Mapping[str, Any]:
        """The fields of the network's config that the sequences fix, such as `vocab_size` and `max_length`."""
        ...

    def check(self, records: Records) -> None:
        """Raises InputError if the layout cannot write one of the records."""
        ...

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """The sequences to train on: `tokens` int32 [N, L] and `is_prompt` bool [N, L]."""
        ...

    def start(self, records: Records) -> Tokens:
        """The sequences that a model completes, [N, L].

        A masked model fills in the mask tokens. For an autoregressive model the sequences are prompts: they may be
        shorter than L, and shorter prompts are padded with -1.
        """
        ...

    def answers(self, tokens: Tokens) -> Answers:
        """The answers in complete sequences."""
        ...

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """Moves values of tokens, [N, L], to the parts of the answers, [N, ...]; -1 where a part has no token."""
        ...


@runtime_checkable
class Symmetric(Protocol):
    """A layout of records with symmetries, which turn a sequence of the task into another one."""

    def symmetries(self, num: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draws symmetries, the first of which changes nothing.

        Returns:
          For each, the position that moves to each position, [num, L], and the new id of each token, [num, V]; the mask
          keeps its id. Form s of a sequence x has the token `ids[s, x[positions[s, i]]]` at position i.
        """
        ...


class Task(Protocol):
    """One set of data, and how answers about it are scored."""

    @property
    def name(self) -> str:
        """The name of the kind, which is the experiment's."""
        ...

    @property
    def title(self) -> str:
        """The name of the data in results."""
        ...

    @property
    def num_train(self) -> int | None:
        """The number of records to train on; None if only the prepared data say it."""
        ...

    @property
    def num_test(self) -> int | None:
        """The number of records held out; None if only the prepared data say it."""
        ...

    @property
    def metric(self) -> str:
        """The score that evaluations follow while a model is trained."""
        ...

    @property
    def temperature(self) -> float:
        """The sampling temperature: 0 where a question has one answer, 1 where the model learns a distribution."""
        ...

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """All layouts by name, the default first."""
        ...

    def prepare(self, data_dir: str | os.PathLike[str], *, say: Say = silent) -> Any:
        """Writes the records as a tfds dataset if it is not there yet; returns its builder."""
        ...

    def read(self, builder: Any, split: Split) -> Records:
        """All records of a split, by the builder that `prepare` returns."""
        ...

    def records(self, split: Split, num: int, *, say: Say = silent) -> Records:
        """The first `num` records of a split, without a dataset on disk."""
        ...

    def statistics(self, records: Records) -> dict[str, float]:
        """Statistics of records, by name."""
        ...

    def score(self, answers: Answers, records: Records) -> Scores:
        """Scores answers."""
        ...

    def show(self, answer: NDArray[Any], steps: NDArray[Any], record: Mapping[str, Any]) -> str:
        """Formats one answer for a terminal, with the steps at which its parts were filled in."""
        ...

    def view(self, record: Mapping[str, Any]) -> View:
        """How an answer to a record is laid out on the viewer's page."""
        ...


class Generated(abc.ABC):
    """A task whose records are made or read in chunks."""

    name: ClassVar[str]
    version: ClassVar[str] = "1.0.0"
    """the version of the fields"""
    num_train: int
    num_test: int

    @property
    @abc.abstractmethod
    def dataset(self) -> str:
        """The name of the dataset on disk, made by `named`. It changes with every input."""

    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each field of a record."""

    @abc.abstractmethod
    def chunks(self, split: Split, num: int, say: Say) -> Iterator[Records]:
        """Yields the first `num` records of a split in chunks: int8 fields [chunk, ...]."""

    def named(self, *words: str | int, inputs: tuple[bytes | str | int | None, ...]) -> str:
        """Makes the name of a dataset, which ends in a digest.

        Args:
          *words: the beginning of the name.
          inputs: all that determines the records: options, seed, the generator's version, whole files.
        """
        return "-".join(map(str, (*words, builders.digest(*inputs, self.num_train, self.num_test))))

    def check_nums(self) -> None:
        """Raises InputError if a split would be empty."""
        if self.num_train < 1 or self.num_test < 1:
            raise InputError(f"num_train={self.num_train} and num_test={self.num_test}: give each at least 1")

    def prepare(self, data_dir: str | os.PathLike[str], *, say: Say = silent) -> Any:
        """Writes the records as a tfds dataset if it is not there yet.

        Args:
          data_dir: the folder of all datasets.
          say: receives lines for the user.

        Returns:
          The prepared builder, with splits "train" and "test"; `builders.read_split` reads them.

        Raises:
          InputError: records cannot be made or read, or the dataset on disk is damaged.
        """
        from mdm_jax.data import dataset  # imports tfds

        return dataset.prepare(
            self.name,
            self.dataset,
            self.version,
            shapes=self.shapes(),
            splits={"train": self.num_train, "test": self.num_test},
            chunks=functools.partial(self.chunks, say=say),
            data_dir=data_dir,
        )

    def read(self, builder: Any, split: Split) -> Records:
        """All records of a split, in memory."""
        return builders.read_split(builder, split)

    def records(self, split: Split, num: int, *, say: Say = silent) -> Records:
        """The first `num` records of a split, without a dataset on disk.

        Args:
          split: "train" or "test".
          num: the number of records.
          say: receives lines for the user.

        Raises:
          InputError: records cannot be made or read, or the split has fewer than `num`.
        """
        check_number("the number of records", num, Range(1, INT32), whole=True)
        parts = list(self.chunks(split, num, say))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fields_of(task: Any) -> dict[str, Any]:
    """The fields of a task as JSON values: paths become text. Those that do not tell tasks apart are left out."""
    values = {field.name: getattr(task, field.name) for field in dataclasses.fields(task) if field.compare}
    return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values.items()}


def held_out(task: Task, limit: int | None, *, say: Say = silent) -> Records:
    """The first `limit` held-out records; all of them if `limit` is None."""
    wanted = [number for number in (limit, task.num_test) if number is not None]
    return task.records("test", min(wanted), say=say)


def take(num: int | None, records: Records) -> Records:
    """The first `num` records; all of them if `num` is None."""
    return {name: rows[:num] for name, rows in records.items()}
