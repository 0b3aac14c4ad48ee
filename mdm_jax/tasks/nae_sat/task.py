"""L&O-NAE-SAT as a task. The observations of a generated sequence should agree with its latents."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records, Say, Split
from mdm_jax.report.board import Board, View
from mdm_jax.tasks.base import Generated, Scores, Tokens
from mdm_jax.tasks.nae_sat import distribution


@dataclasses.dataclass(frozen=True)
class Padded:
    """The layout: latents, observations and padding.

    Attributes:
      used: N + P, the number of tokens before the padding.
      length: L.
    """

    used: int
    length: int

    name = "padded"
    method = "mdm"
    mask_id = distribution.MASK_ID

    @property
    def network(self) -> Mapping[str, Any]:
        """The fields of a `TransformerConfig`: two values to predict, and embeddings of the padding and the mask."""
        return {"vocab_size": 2, "num_extra_tokens": 2, "max_length": self.length, "causal": False}

    def check(self, records: Records) -> None:
        """Accepts all records."""

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 and `is_prompt` bool `[num, L]` to train on."""
        return distribution.examples(records["tokens"], self.length)

    def start(self, records: Records) -> Tokens:
        """N + P masks and then padding, int32 `[num, L]`. Only the number of records matters."""
        return distribution.start(len(records["tokens"]), self.used, self.length)

    def answers(self, tokens: Tokens) -> Tokens:
        """Latents and observations, `[num, N + P]`."""
        return tokens[:, : self.used]

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """Values `[num, L]` without those of the padding."""
        del tokens
        return values[:, : self.used]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaeSat(Generated):
    """Sequences of one distribution.

    Attributes:
      num_latents: N.
      num_observations: P.
      num_train: the number of sequences to train on.
      num_test: the number of held-out sequences.
      seed: the seed of the triples and the sequences.
      length: the length with padding, which is not part of the data; None adds no padding.
    """

    num_latents: int
    num_observations: int
    num_train: int
    num_test: int
    seed: int = 0
    length: int | None = None

    name: ClassVar[str] = "nae_sat"
    metric: ClassVar[str] = "accuracy"
    temperature: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        self.check_nums()
        distribution.observations(self.num_latents, self.num_observations, self.seed)
        distribution.check_length(self.length, self.num_latents + self.num_observations)

    @property
    def title(self) -> str:
        """The name of the distribution in results."""
        return f"N={self.num_latents}, P={self.num_observations}"

    @property
    def layouts(self) -> Mapping[str, Padded]:
        """The one layout."""
        used = self.num_latents + self.num_observations
        return {"padded": Padded(used, used if self.length is None else self.length)}

    @property
    def dataset(self) -> str:
        """The name on disk, such as `25-275-0123456789ab`."""
        sizes = self.num_latents, self.num_observations
        return self.named(*sizes, inputs=(distribution.VERSION, *sizes, self.seed))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the one field."""
        return {"tokens": (self.num_latents + self.num_observations,)}

    def chunks(self, split: Split, num: int, say: Say) -> Iterator[Records]:
        """Yields the first sequences of a split in one chunk."""
        del say
        sizes = self.num_latents, self.num_observations
        yield {"tokens": distribution.generate(num, *sizes, seed=self.seed, split=split)}

    def statistics(self, records: Records) -> dict[str, float]:
        """The share of observations that are 1."""
        return {"observations_that_are_1": float(records["tokens"][:, self.num_latents :].mean())}

    def score(self, answers: Tokens, records: Records) -> Scores:
        """The share of observations that agree with the latents of the sequence, whether all do, and the observations.

        The records do not matter, since a sequence is compared with itself.
        """
        del records
        functions = distribution.observations(self.num_latents, self.num_observations, self.seed)
        shares = distribution.accuracy(answers, functions, self.num_latents)
        return {"accuracy": shares, "all_agree": shares == 1, "ones": answers[:, self.num_latents :]}

    def show(self, answer: NDArray[Any], steps: NDArray[Any], record: Mapping[str, Any]) -> str:
        """Formats the latents and the observations, with the step of each."""
        del record
        lines = []
        for name, part in (("latents", slice(0, self.num_latents)), ("observations", slice(self.num_latents, None))):
            values = " ".join(f"{value}@{step + 1}" for value, step in zip(answer[part], steps[part], strict=True))
            lines.append(f"{name} (value@step): {values}")
        return "\n".join(lines) + "\n"

    def view(self, record: Mapping[str, Any]) -> View:
        """Latents and observations in two lines. An observation is right if it agrees with the latents beside it."""
        del record
        functions = distribution.observations(self.num_latents, self.num_observations, self.seed)

        def solution(answer: Tokens) -> Tokens:
            expected = functions.probabilities(answer[None, : self.num_latents])[0].astype(np.int32)
            return np.concatenate([np.full(self.num_latents, -1, np.int32), expected])

        board = Board(sections=(("latents", 0), ("observations", self.num_latents)))
        return View(board, ["0", "1", "", ""], distribution.MASK_ID, solution)
