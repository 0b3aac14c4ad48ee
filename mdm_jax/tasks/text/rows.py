"""Cuts streams of tokens into rows of one length."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.unsignedinteger] | NDArray[np.int32]
AT_ONCE = 4096
"""Rows of documents that are in memory together."""


def cut_rows(stream: Iterable[Ids], length: int) -> Iterator[Ids]:
    """Rows [n, L] of the joined documents; tokens behind the last whole row are left out.

    Args:
      stream: the tokens in parts, each [number].
      length: L.
    """
    rest: Ids | None = None
    for part in stream:
        joined = part if rest is None or not len(rest) else np.concatenate([rest, part])
        number = len(joined) // length
        if number:
            yield joined[: number * length].reshape(number, length)
        rest = joined[number * length :]


def document_rows(stream: Iterable[Ids], length: int, *, end_id: int, pad_id: int) -> Iterator[Ids]:
    """Rows [n, L] that each hold one document, or a part of one; the last of a document is padded on the right.

    Args:
      stream: the tokens in parts, each [number].
      length: L.
      end_id: the last token of every document.
      pad_id: what pads.
    """
    rest: Ids | None = None
    for part in stream:
        joined = part if rest is None or not len(rest) else np.concatenate([rest, part])
        behind = np.flatnonzero(joined == end_id) + 1
        if not len(behind):
            rest = joined
        else:
            sizes = np.diff(behind, prepend=0)
            counts = -(-sizes // length)
            document = np.repeat(np.arange(len(sizes)), counts)
            within = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
            first = (behind - sizes)[document] + within * length
            for few in range(0, len(document), AT_ONCE):  # short documents make far more padding than text
                own = slice(few, few + AT_ONCE)
                columns = first[own, None] + np.arange(length)
                is_real = columns < behind[document[own]][:, None]
                yield np.where(is_real, joined[np.minimum(columns, len(joined) - 1)], joined.dtype.type(pad_id))
            rest = joined[behind[-1] :]
        if len(rest) >= length:  # of a long document
            number = len(rest) // length
            yield rest[: number * length].reshape(number, length)
            rest = rest[number * length :]
