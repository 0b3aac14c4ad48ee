"""How rows of text become the sequences of masked and of autoregressive models. One extra token starts or masks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records
from mdm_jax.tasks.base import Tokens


@dataclasses.dataclass(frozen=True)
class _Rows:
    """What both layouts share.

    Attributes:
      length: L.
      vocab_size: V. The id V is the mask, or the start of a sequence; V + 1 is padding.
      pads: whether rows have padding, which is never attended to and never scored.
    """

    length: int
    vocab_size: int
    pads: bool = False

    @property
    def _network(self) -> dict[str, Any]:
        pad_id = self.vocab_size + 1 if self.pads else None
        return {"vocab_size": self.vocab_size, "num_extra_tokens": 1 + self.pads, "pad_id": pad_id}

    def _is_padding(self, tokens: NDArray[Any]) -> NDArray[np.bool_]:
        return tokens == self.vocab_size + 1

    def check(self, records: Records) -> None:
        """Accepts all records."""


@dataclasses.dataclass(frozen=True)
class Masked(_Rows):
    """The row as it is."""

    name = "masked"
    method = "mdm"

    @property
    def mask_id(self) -> int:
        """V, the first row of the embedding that is never predicted."""
        return self.vocab_size

    @property
    def network(self) -> Mapping[str, Any]:
        """The fields of a `TransformerConfig` that the rows fix."""
        return {**self._network, "max_length": self.length, "causal": False}

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 and `is_prompt` bool [N, L]; padding is given."""
        tokens = np.asarray(records["tokens"]).astype(np.int32)
        return {"tokens": tokens, "is_prompt": self._is_padding(tokens)}

    def start(self, records: Records) -> Tokens:
        """Masks, [N, L]."""
        return np.full((len(records["tokens"]), self.length), self.mask_id, np.int32)

    def answers(self, tokens: Tokens) -> Tokens:
        """The rows."""
        return tokens

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """The values of the rows."""
        del tokens
        return values


@dataclasses.dataclass(frozen=True)
class Causal(_Rows):
    """A start, and behind it the row in one order, the same for all rows; positions count the slots.

    Source: Kim et al. 2025, sections 3.2 and C.1: with another order than the identity, its model is a π-learner.

    Attributes:
      order: π, a permutation of 0 to L - 1: the slot j holds the token at π(j). None is the identity.
    """

    order: tuple[int, ...] | None = None

    name = "causal"
    method = "arm"
    mask_id = None

    @property
    def start_id(self) -> int:
        """V, the first row of the embedding that is never predicted."""
        return self.vocab_size

    @property
    def network(self) -> Mapping[str, Any]:
        """The fields of a `TransformerConfig` that the sequences fix."""
        return {**self._network, "max_length": self.length + 1, "causal": True}

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 and `is_prompt` bool [N, 1 + L]; the start and padding are given."""
        tokens = np.asarray(records["tokens"]).astype(np.int32)
        tokens = tokens if self.order is None else tokens[:, np.array(self.order)]
        tokens = np.pad(tokens, ((0, 0), (1, 0)), constant_values=self.start_id)
        return {"tokens": tokens, "is_prompt": self._is_padding(tokens) | (np.arange(tokens.shape[1]) == 0)}

    def start(self, records: Records) -> Tokens:
        """Starts, [N, 1]."""
        return np.full((len(records["tokens"]), 1), self.start_id, np.int32)

    def answers(self, tokens: Tokens) -> Tokens:
        """The rows, each token in its place."""
        return self.steps(tokens, tokens)

    def steps(self, values: NDArray[Any], tokens: Tokens) -> NDArray[Any]:
        """The values of the tokens, each in the token's place."""
        del tokens
        values = values[:, 1:]
        return values if self.order is None else values[:, np.argsort(self.order)]
