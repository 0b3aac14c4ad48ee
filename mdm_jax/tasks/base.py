"""What a task is: records, the sequences that are made of them, and a judge of the answers. NumPy in, NumPy out.

A task is a frozen dataclass whose fields name its data. A layout writes records as sequences of tokens and reads
answers back from them. Commands need nothing else: they prepare, train, evaluate and solve any task.

The protocols were sketched for text before they were fixed, so that a record need not be a puzzle, nor an answer a
grid of cells:

    text            record  a document              start    masks only, or a prefix and masks behind it
                    answer  a string                score    the share of n-grams that are new, [N]
    code infilling  record  prefix, suffix, tests   start    prefix, masks, suffix; the layout tokenizes
                    answer  the middle              score    whether the tests pass, bool [N]
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data import builders
from mdm_jax.data.checks import Records, Say, Split, silent
from mdm_jax.errors import InputError

Tokens = NDArray[np.int32]
"""[N, L]"""

Answers = NDArray[Any]
"""What a layout reads from sequences, [N, ...]; the task's `score` takes it."""

Scores = Mapping[str, NDArray[Any]]
"""By name, one value for each of N answers, [N], or for each part of them, [N, ...] with NaN for parts that do not
count. Boolean values are successes. Values of one answer's parts are not independent, so a mean of parts has no
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
        """Sequences to train on: `tokens` int32 [N, L] and `is_prompt` bool [N, L]."""
        ...

    def start(self, records: Records) -> Tokens:
        """The sequences that a model completes, [N, L].

        A masked model fills in the mask tokens. An autoregressive model goes on behind a prompt, so that these may be
        shorter than L; -1 stands behind a prompt that is shorter than others.
        """
        ...

    def answers(self, tokens: Tokens) -> Answers:
        """The answers in complete sequences."""
        ...

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """Of one value for each token, [N, L], those of the parts of the answers; -1 where there is none."""
        ...


class Task(Protocol):
    """A kind of data, and which of it."""

    @property
    def name(self) -> str:
        """The name of the kind, which is the experiment's."""
        ...

    @property
    def title(self) -> str:
        """The name of the data in results."""
        ...

    @property
    def num_train(self) -> int:
        """The number of records to train on."""
        ...

    @property
    def num_test(self) -> int:
        """The number of records held out."""
        ...

    @property
    def metric(self) -> str:
        """The score that evaluations follow while a model is trained."""
        ...

    @property
    def temperature(self) -> float:
        """Of the tokens: 0 where a question has one answer, 1 where a distribution is learned."""
        ...

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """All layouts by name, the usual one first."""
        ...

    def prepare(self, data_dir: str | os.PathLike[str], *, say: Say = silent) -> Any:
        """Writes the records as a tfds dataset unless they are there; returns its builder."""
        ...

    def records(self, split: Split, num: int, *, say: Say = silent) -> Records:
        """The first `num` records of a split, without a dataset on disk."""
        ...

    def statistics(self, records: Records) -> dict[str, float]:
        """What is worth knowing of records, by name."""
        ...

    def score(self, answers: Answers, records: Records) -> Scores:
        """How good answers are."""
        ...

    def show(self, answer: NDArray[Any], steps: NDArray[Any], record: Mapping[str, Any]) -> str:
        """One answer as text for a terminal, with the steps at which its parts were filled in."""
        ...


class Generated:
    """Base class of a task whose records are made, or read, some at a time.

    A subclass gives `chunks`, `shapes` and `dataset`.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1.0.0"
    """Of the fields."""
    num_train: int
    num_test: int

    @property
    def dataset(self) -> str:
        """The name of the dataset on disk, by `named`. It changes with every input."""
        raise NotImplementedError

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each field of a record."""
        raise NotImplementedError

    def chunks(self, split: Split, num: int, say: Say) -> Iterator[Records]:
        """The first `num` records of a split, some at a time: int8 fields `[some, ...]`."""
        raise NotImplementedError

    def named(self, *words: str | int, inputs: tuple[bytes | str | int | None, ...]) -> str:
        """A name for the dataset that ends in a digest.

        Args:
            *words: The beginning of the name.
            inputs: All that the records follow from: options, seed, the generator's version, whole files.
        """
        return "-".join(map(str, (*words, builders.digest(*inputs, self.num_train, self.num_test))))

    def check_nums(self) -> None:
        """Raises InputError if a split would be empty."""
        if self.num_train < 1 or self.num_test < 1:
            raise InputError(f"num_train={self.num_train} and num_test={self.num_test}: give each at least 1")

    def prepare(self, data_dir: str | os.PathLike[str], *, say: Say = silent) -> Any:
        """Writes the records as a tfds dataset unless they are there.

        Args:
            data_dir: The folder of all datasets.
            say: Gets lines for the user.

        Returns:
            The prepared builder, with splits "train" and "test"; `builders.read_split` reads them.

        Raises:
            InputError: Records cannot be made or read, or what was prepared before is damaged.
        """
        from mdm_jax.data import dataset  # brings tfds along

        return dataset.prepare(self, data_dir, say)

    def records(self, split: Split, num: int, *, say: Say = silent) -> Records:
        """The first `num` records of a split, without a dataset on disk.

        Args:
            split: "train" or "test".
            num: How many records.
            say: Gets lines for the user.

        Raises:
            InputError: Records cannot be made or read, or there are not as many.
        """
        parts = list(self.chunks(split, num, say))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fields_of(task: Any) -> dict[str, Any]:
    """The fields that name a task's data, ready for JSON: paths become text."""
    values = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values.items()}


def take(num: int | None, records: Records) -> Records:
    """The first `num` records; all of them if `num` is None."""
    return {name: rows[:num] for name, rows in records.items()}
