"""Reads documents in pieces, so that memory does not depend on their size."""

import codecs
import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from mdm_jax.errors import InputError, of_extra, one_line, shown
from mdm_jax.tasks.text.sources import HUB, Place

PIECE = 1 << 20
"""The most characters of a piece."""
BLOCK = 1 << 20
"""Bytes that are read at once."""
MOST_LINE = 1 << 28
"""The most bytes of a line of JSON, which has to be parsed as a whole."""


class Piece(NamedTuple):
    """A part of a document."""

    text: str
    begins: bool
    """whether it is the document's first"""
    ends: bool
    """whether it is the document's last"""


def read_pieces(place: Place, *, field: str, empty_lines: bool) -> Iterator[Piece]:
    """The documents of a place, in pieces. Documents without a visible character are left out.

    Args:
      place: a file, of which each line of JSON, each row of parquet, or the whole text is a document.
      field: the field or column with the text.
      empty_lines: whether in a .txt file an empty line ends a document.

    Raises:
      InputError: something is malformed. The message names the file, and the line or row.
    """
    if place.kind == HUB:
        return cut(_of_hub(place, field))
    if place.kind == ".parquet":
        return cut(_of_parquet(place, field))
    if place.kind == ".jsonl":
        return cut(_of_json_lines(place, field))
    return cut(_by_empty_lines(_decoded(place)) if empty_lines else _whole(_decoded(place)))


def cut(texts: Iterable[tuple[str, bool]]) -> Iterator[Piece]:
    """Cuts documents into pieces, behind the end of a line where there is one, else in front of a blank.

    Args:
      texts: parts of documents, of any length, and whether the document ends behind each.
    """
    rest, begins = "", True
    for text, ends in texts:
        rest = rest + text if rest else text
        start = 0
        while len(rest) - start > PIECE:
            end = _cut_at(rest, start)
            yield Piece(rest[start:end], begins, False)
            start, begins = end, False
        rest = rest[start:] if start else rest
        if ends:
            if not begins or not (rest == "" or rest.isspace()):
                yield Piece(rest, begins, True)
            rest, begins = "", True


def _cut_at(text: str, start: int) -> int:
    """Where the piece that begins at `start` ends."""
    least, most = start + PIECE // 2, start + PIECE
    if (line := text.rfind("\n", least, most)) >= 0:
        return line + 1
    if (blank := text.rfind(" ", least, most)) >= 0:
        return blank
    return most


def _whole(blocks: Iterable[str]) -> Iterator[tuple[str, bool]]:
    for block in blocks:
        yield block, False
    yield "", True


def _by_empty_lines(blocks: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Lines, and an end at each empty one."""
    rest, is_whole = "", True  # the line that has not ended, and whether all of it is in `rest`
    for block in blocks:
        *lines, rest = (rest + block).split("\n")
        for line in lines:
            is_empty = is_whole and (line == "" or line.isspace())
            yield ("", True) if is_empty else (f"{line}\n", False)
            is_whole = True
        if len(rest) > PIECE:
            yield rest, False
            rest, is_whole = "", False
    yield rest, True


def _decoded(place: Place) -> Iterator[str]:
    """The text of a file in blocks, without a mark of the byte order."""
    decoder, line, is_first = codecs.getincrementaldecoder("utf-8")(), 1, True
    with _opened(place) as file:
        while True:
            with _readable(place, line):
                block = file.read(BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise InputError(_not_utf8(place, line)) from None
            line += text.count("\n")
            text = text.removeprefix("\ufeff") if is_first else text
            is_first = is_first and not text
            if text:
                yield text
            if not block:
                return


def _of_json_lines(place: Place, field: str) -> Iterator[tuple[str, bool]]:
    number = 1
    with _opened(place) as file:
        while True:
            with _readable(place, number):
                line = file.readline(MOST_LINE + 1)
            if not line:
                return
            where = f"line {number} of {place.path}"
            if len(line) > MOST_LINE:
                raise InputError(f"{where} has more than {MOST_LINE:,} bytes, the most of a line of JSON that is read")
            if not line.isspace():
                yield _text_of(_parsed(line, where, place, number), field, where), True
            number += 1


def _parsed(line: bytes, where: str, place: Place, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(_not_utf8(place, number)) from None
    except (ValueError, RecursionError):
        raise InputError(f"{where} is no JSON: {shown(line[:60].decode('utf-8', 'replace'))}") from None


def _text_of(row: Any, field: str, where: str) -> str:
    """The text of a record; half of a surrogate pair, which no file can hold, becomes U+FFFD."""
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str):
        fields = ", ".join(map(str, row)) if isinstance(row, dict) else shown(row)
        what = "no text" if isinstance(row, dict) and field in row else "no"
        raise InputError(f"{where} has {what} field {shown(field)}, but {one_line(fields, 200)}: name it with --field")
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _of_parquet(place: Place, field: str) -> Iterator[tuple[str, bool]]:
    with of_extra("text"):
        import pyarrow
        import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(place.path, memory_map=True) as file:
            if field not in (names := file.schema_arrow.names):
                known = one_line(", ".join(names), 200)
                raise InputError(f"{place.path} has no column {shown(field)}, but {known}: name it with --field")
            for batch in file.iter_batches(batch_size=64, columns=[field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield _text_of({field: text}, field, f"row {number} of {place.path}"), True
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        behind = f" behind row {number}" if number else ""
        reason = one_line(error, 200)
        raise InputError(f"{place.path} cannot be read as a parquet file{behind}: {reason}") from None


def _of_hub(place: Place, field: str) -> Iterator[tuple[str, bool]]:
    with of_extra("hub"):
        import datasets
    name, config, split, *more = [*place.path.split(":"), "", ""]
    if any(more):
        raise InputError(f"{HUB}{place.path} has too many colons: give {HUB}NAME, {HUB}NAME:CONFIG or with :SPLIT")
    number = 0
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        for row in rows:
            number += 1
            yield _text_of(row, field, f"row {number} of {HUB}{place.path}"), True
    except InputError:
        raise
    except Exception as error:  # the library raises what it will
        reason = one_line(f"{type(error).__name__}: {error}", 300)
        raise InputError(f"{HUB}{place.path} cannot be read, behind row {number}: {reason}") from None


def _opened(place: Place) -> IO[bytes] | io.BufferedIOBase:
    """The decompressed bytes of a file."""
    with _readable(place, 1):
        if place.compression == ".gz":
            return gzip.open(place.path, "rb")
        if place.compression == ".zst":
            with of_extra("text"):
                import pyarrow
            stream: Any = pyarrow.input_stream(place.path, compression="zstd")
            return io.BufferedReader(stream, BLOCK)
        return open(place.path, "rb", buffering=BLOCK)


@contextlib.contextmanager
def _readable(place: Place, line: int) -> Iterator[None]:
    """Raises InputError for every failure to read a file, near a line."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:  # gzip and pyarrow raise these
        what = "is damaged or cut off" if place.compression else "cannot be read"
        raise InputError(f"{place.path} {what}, at line {line} or behind it: {one_line(error, 200)}") from None


def _not_utf8(place: Place, line: int) -> str:
    return f"line {line} of {place.path} is no text in UTF-8: convert the file, such as with iconv -t UTF-8"
