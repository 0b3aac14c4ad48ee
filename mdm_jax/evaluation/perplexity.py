"""The perplexity of texts under a causal model, the judge, which reads them by its own tokenizer.

A token is scored if a token stands before it. So where the judge's tokenizer begins every text with a token, all of the
text is scored; elsewhere its first token is not. Tokens and bytes that are divided by are those of the scored part. A
text that is longer than the judge takes is read in pieces, each of which begins with the last token of the one before.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.checks import call
from mdm_jax.decoding import Network
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import ratio_interval
from mdm_jax.evaluation.prompts import padded_length
from mdm_jax.logits import scored_nll
from mdm_jax.models.kinds import make_denoiser, without_padding
from mdm_jax.progress import Bar
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.text.special import check_ids, check_tokenizer
from mdm_jax.text.tokenizer import Tokenizer
from mdm_jax.typing import Array, Denoiser, Params


class Judged(NamedTuple):
    """N texts, as a judge finds them."""

    nats: NDArray[np.float64]
    """float64 [N]: -log p of the scored tokens"""
    tokens: NDArray[np.int64]
    """int [N]: how many these are, of the judge's tokenizer"""
    bytes: NDArray[np.int64]
    """int [N]: of the text that they add, in UTF-8"""

    @property
    def fields(self) -> dict[str, object]:
        """The fields of a table's row, of all texts together: a long text weighs more than a short one."""
        mean, low, high = ratio_interval(self.nats, self.tokens)
        return {
            "perplexity": math.exp(mean),
            "perplexity_ci": (math.exp(low), math.exp(high)),
            "nats_per_token": mean,
            "nats_per_token_ci": (low, high),
            "nats_per_byte": float(self.nats.sum() / max(self.bytes.sum(), 1)),
        }


def judged(
    judge: Network,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    batch_size: int = 8,
    progress: str | None = None,
) -> Judged:
    """What a judge makes of texts.

    Args:
      judge: a causal model, from `mdm_jax.load`.
      tokenizer: the judge's.
      texts: at least one of them has two tokens, or one behind a token that begins every text.
      batch_size: pieces of text in a network call.
      progress: the label of a progress bar; None shows none.

    Raises:
      InputError: the judge is not causal, the tokenizer is another model's, no token can be scored, or an option is
        off.
    """
    check_tokenizer(tokenizer, judge.config)
    ids = [tokenizer.encode(text) for text in texts]
    nats = token_nats(judge, ids, batch_size=batch_size, progress=progress)
    sizes = [len(tokenizer.behind(own[:1], own[1:]).encode()) for own in ids]
    found = Judged(np.array([own.sum() for own in nats]), np.array([len(own) for own in nats]), np.array(sizes))
    if not found.tokens.sum():
        raise InputError(f"none of {len(texts)} texts has a token to score: each is empty, or one token alone")
    return found


def token_nats(
    judge: Network, sequences: Sequence[ArrayLike], *, batch_size: int = 8, progress: str | None = None
) -> list[NDArray[np.float32]]:
    """-log p(x_i | x_{<i}) of each token of sequences but the first: float32 [L - 1] each, nats.

    Args:
      judge: a causal model.
      sequences: token ids of each, int [L]; a sequence of none or one has nothing to score.
      batch_size: pieces in a network call.
      progress: the label of a progress bar; None shows none.

    Raises:
      InputError: the judge is not causal, or does not have or predict an id.
    """
    check_number("batch_size", batch_size, Range(1, INT32), whole=True)
    if not getattr(judge.config, "causal", False):
        raise InputError("the judge must be a causal model, which predicts each token from those before it")
    rows = [np.asarray(sequence, np.int64).reshape(-1) for sequence in sequences]
    for number, row in enumerate(rows, 1):
        check_ids(row, None, judge.config, f"text {number}")
    most = judge.config.max_length
    places = [(i, first) for i, row in enumerate(rows) for first in range(0, len(row) - 1, most - 1)]
    places.sort(key=lambda place: min(len(rows[place[0]]) - place[1], most))
    network = make_denoiser(without_padding(judge.config))
    found = [np.zeros(max(len(row) - 1, 0), np.float32) for row in rows]
    batches = [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    for batch in Bar(batches, desc=progress, unit="batch", disable=progress is None, leave=False):
        pieces = [rows[i][first : first + most] for i, first in batch]
        x = np.zeros((batch_size, min(padded_length(max(map(len, pieces))), most)), np.int32)
        is_scored = np.zeros(x.shape, bool)
        for row, scored, piece in zip(x, is_scored, pieces, strict=False):
            row[: len(piece)], scored[: len(piece) - 1] = piece, True
        nats = np.asarray(_next_token_nats(network, judge.params, x, is_scored))
        for (i, first), own, piece in zip(batch, nats, pieces, strict=False):
            found[i][first : first + len(piece) - 1] = own[: len(piece) - 1]
    return found


@functools.partial(jax.jit, static_argnums=0)
def _next_token_nats(network: Denoiser, params: Params, x: Array, is_scored: Array) -> Array:
    """-log p(x_{i + 1} | x_{..i}) where scored, else 0: float32 [B, L]."""
    return scored_nll(call(network, params, x), jax.numpy.roll(x, -1, axis=1), is_scored, mask_id=None)
