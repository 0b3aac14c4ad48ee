"""How samples differ: within each, among each other, and from real text. NumPy in, numbers out.

A judge's perplexity falls when samples repeat themselves, so it says little without these. An n-gram is n neighbouring
tokens of one sample.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import mean_interval

Ngram = tuple[int, ...]
REPEATS = 4
"""The n of n-grams that count as repeated: fewer tokens recur in any text."""
PAIRS = 2
"""The n of n-grams that are compared with real text."""


def ngrams(tokens: ArrayLike, n: int) -> list[Ngram]:
    """The n-grams of a sample, int [L], in their order; none if it is shorter than n."""
    ids = np.asarray(tokens).tolist()
    return list(zip(*(ids[i:] for i in range(n)), strict=False))


def entropy(tokens: ArrayLike) -> float:
    """-Σ p_i log p_i over the tokens of a sample, int [L], with p_i the share of token i: nats, 0 to log L.

    Source: Kim et al. 2025, D.1.2, with the sign that makes it positive.
    """
    counts = np.unique(np.asarray(tokens), return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def distinct(samples: Sequence[ArrayLike], n: int) -> float:
    """Different n-grams of all samples together, divided by all n-grams. It falls as samples become more.

    Source: Li et al. 2016 (arXiv:1510.03055). NaN if all samples are shorter than n.
    """
    found = [ngram for sample in samples for ngram in ngrams(sample, n)]
    return len(set(found)) / len(found) if found else float("nan")


def repeated(tokens: ArrayLike, n: int) -> float:
    """The share of a sample's n-grams that stand in it before; 0 if it is shorter than n."""
    found = ngrams(tokens, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def longest_repeat(tokens: ArrayLike) -> int:
    """The largest n of which a sample has an n-gram twice, which may overlap: 3 for four equal tokens; 0 for none."""
    low, high = 0, len(np.asarray(tokens))  # whatever recurs, its beginning recurs too
    while high - low > 1:
        n = (low + high) // 2
        low, high = (n, high) if repeated(tokens, n) else (low, n)
    return low


class Overlap(NamedTuple):
    """The front of precision and recall of samples, at its two ends and where both are equal.

    With p and q the shares of n-grams among those of the samples and of real text, the front is recall α(λ) = Σ min(λ
    p, q) and precision α(λ) / λ, for every λ > 0. Source: Sajjadi et al. 2018 (arXiv:1806.00035), on n-grams. All three
    rise with the number of tokens: compare equal numbers only, and with what real text has with other real text.
    """

    precision: float
    """λ -> 0: the share of the samples' n-grams that real text has"""
    recall: float
    """λ -> ∞: the share of real text's n-grams that the samples have"""
    both: float
    """λ = 1: Σ min(p, q), precision and recall at once"""


def overlap(samples: Sequence[ArrayLike], texts: Sequence[ArrayLike], n: int = PAIRS) -> Overlap:
    """The overlap of samples with real texts, both sequences of token ids.

    Raises:
      InputError: there are no n-grams on one side.
    """
    ours, theirs = (collections.Counter(g for row in rows for g in ngrams(row, n)) for rows in (samples, texts))
    if not ours or not theirs:
        raise InputError(f"samples and texts must hold {n} tokens or more")
    num, other = ours.total(), theirs.total()
    return Overlap(
        precision=sum(ours[g] for g in ours if g in theirs) / num,
        recall=sum(theirs[g] for g in theirs if g in ours) / other,
        both=sum(min(ours[g] * other, theirs[g] * num) for g in ours) / (num * other),
    )


def describe(samples: Sequence[ArrayLike], texts: Sequence[ArrayLike] | None = None) -> dict[str, object]:
    """The fields of a table's row: means over samples, what they are together, and the overlap with real texts.

    Args:
      samples: token ids of each, at least one.
      texts: real texts as token ids; as many as there are samples and as long, so that rows are comparable.
    """
    entropies = [entropy(sample) for sample in samples]
    fields: dict[str, object] = {"entropy": float(np.mean(entropies)), "entropy_ci": mean_interval(entropies)}
    fields |= {f"distinct_{n}": distinct(samples, n) for n in (1, 2, 3, 4)}
    fields["repeated"] = float(np.mean([repeated(sample, REPEATS) for sample in samples]))
    fields["longest_repeat"] = float(np.mean([longest_repeat(sample) for sample in samples]))
    if texts is not None:
        found = overlap(samples, texts)
        fields |= {"precision": found.precision, "recall": found.recall, "overlap": found.both}
    return fields
