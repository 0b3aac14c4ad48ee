"""The viewer's page of text while it fills in: what `generate` shows its `watch`, kept frame by frame."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError
from mdm_jax.evaluation.replay import Trace
from mdm_jax.report.board import Board
from mdm_jax.report.trajectory import write_html
from mdm_jax.text.prompts import BLANK

Piece = Callable[[Sequence[int], int], str]
"""(ids before, id) -> the text that the id adds"""


@dataclasses.dataclass
class Film:
    """A `watch` of `generate` that keeps what it is shown, and hands it on.

    Attributes:
      then: another `watch`, such as a `Screen`; None for none.
    """

    then: Callable[[NDArray[Any], NDArray[Any]], None] | None = None
    _frames: list[NDArray[np.int32]] = dataclasses.field(default_factory=list)
    _is_target: NDArray[np.bool_] | None = None

    def __call__(self, tokens: NDArray[Any], reveal_step: NDArray[Any]) -> None:
        """Keeps the tokens, int [L] with BLANK where none is."""
        self._frames.append(np.array(tokens, np.int32))
        is_target = (self._frames[-1] == BLANK) | (np.asarray(reveal_step) >= 0)
        self._is_target = is_target if self._is_target is None else self._is_target | is_target
        if self.then is not None:
            self.then(tokens, reveal_step)

    def trace(self) -> Trace:
        """The decoding.

        Raises:
          InputError: nothing was shown.
        """
        if self._is_target is None:
            raise InputError("there is nothing to play: a causal model, or a prompt without a token to fill in")
        start = np.where(self._is_target, BLANK, self._frames[-1])
        return Trace(np.stack([start, *self._frames])[:, None].astype(np.int32), BLANK)


def write_text(path: str | os.PathLike[str], traces: Mapping[str, Trace], piece: Piece, *, title: str) -> None:
    """Writes the page of one text that was filled in in one or more orders.

    Args:
      path: the file.
      traces: by the name of the order.
      piece: the text of each token.
      title: the head of the page.

    Raises:
      InputError: the texts are not of one input, or the file cannot be written.
    """

    def pieces(tokens: NDArray[Any]) -> list[str]:
        ids = tokens.tolist()
        return [piece(ids[max(i - 1, 0) : i], token) for i, token in enumerate(ids)]

    write_html(path, traces, pieces=pieces, board=Board(), title=title)
