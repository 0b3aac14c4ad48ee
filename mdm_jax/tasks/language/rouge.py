"""ROUGE: how much two texts have in common, by words (Lin 2004). F1 of lower-case words, without stemming."""

import collections
import re


def words(text: str) -> list[str]:
    """The words of a text."""
    return re.findall(r"[a-z0-9]+", text.lower())


def f1(common: int, ours: int, theirs: int) -> float:
    """The harmonic mean of the shares of ours and of theirs that are common."""
    return 2 * common / (ours + theirs) if ours + theirs else 0.0


def rouge_n(reference: list[str], answer: list[str], n: int) -> float:
    """By n-grams."""
    counts = [collections.Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (reference, answer)]
    return f1((counts[0] & counts[1]).total(), counts[0].total(), counts[1].total())


def rouge_l(reference: list[str], answer: list[str]) -> float:
    """By the longest common subsequence."""
    row = [0] * (len(answer) + 1)
    for word in reference:
        before = 0
        for i, other in enumerate(answer, 1):
            before, row[i] = row[i], before + 1 if word == other else max(row[i], row[i - 1])
    return f1(row[-1], len(reference), len(answer))


def rouge(reference: str, answer: str) -> tuple[float, float, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L, from 0 to 1."""
    texts = words(reference), words(answer)
    return rouge_n(*texts, 1), rouge_n(*texts, 2), rouge_l(*texts)
