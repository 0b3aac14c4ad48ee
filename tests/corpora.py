"""Small corpora, written in every format that is read."""

import gzip
import json

import numpy as np
import pyarrow
import pyarrow.parquet

from mdm_jax.text.bpe import train_bpe
from mdm_jax.text.tokenizer import read_tokenizer

WORDS = ["night", "day", "the", "old", "sea", "Größe", "naïve", "夜", "🙂", "<|endoftext|>", "two  blanks", "x=1;"]


def documents(number, seed=0, lines=6):
    """Texts of whole lines, without empty ones."""
    rng = np.random.default_rng(seed)

    def line():
        return " ".join(rng.choice(WORDS, rng.integers(1, 9))) + "\n"

    return ["".join(line() for _ in range(rng.integers(1, lines))) for _ in range(number)]


def tokenizer_in(folder, texts=None, size=300):
    """A tokenizer that was trained on some documents."""
    return read_tokenizer(train_bpe(texts or documents(40), size, folder))


def as_json(texts, field="text"):
    return "".join(json.dumps({"id": i, field: text}) + "\n" for i, text in enumerate(texts)).encode()


def write_folder(folder, texts):
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:04d}.txt").write_text(text)
    (folder / "README.md").write_text("is of no kind that is read\n")
    return folder


def write_pattern(folder, texts):
    return f"{write_folder(folder, texts)}/0*.txt"


def write_lines(folder, texts):
    return _written(folder.with_suffix(".jsonl"), as_json(texts))


def write_gz(folder, texts):
    return _written(folder.with_suffix(".jsonl.gz"), gzip.compress(as_json(texts)))


def write_zst(folder, texts):
    path = folder.with_suffix(".jsonl.zst")
    with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
        file.write(as_json(texts))
    return path


def write_parquet(folder, texts):
    path = folder.with_suffix(".parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=7)
    return path


def write_empty_lines(folder, texts):
    return _written(folder.with_suffix(".txt"), "\n \n".join(texts).encode())


def _written(path, data):
    path.write_bytes(data)
    return path
