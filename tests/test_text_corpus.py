"""A corpus becomes rows: every format the same ones, whatever the processes, the pieces and the interruptions."""

import gzip
import itertools
import os
import signal
import subprocess
import sys
import time
import types
import unittest.mock

import corpora
import numpy as np
import pytest
import tokenizers
from commands import ENV, ROOT, assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_jax.data import builders
from mdm_jax.data.pipeline import Batches
from mdm_jax.errors import InputError
from mdm_jax.files import open_lock
from mdm_jax.tasks.text import documents, encode, rows
from mdm_jax.tasks.text.task import Text

TEXTS = corpora.documents(60)
LENGTH = 16
HELD_OUT = 0.3


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return corpora.tokenizer_in(tmp_path_factory.mktemp("tokenizer"))


def text(words, source, **options):
    options = {"length": LENGTH, "held_out": HELD_OUT, "tokenizer": str(words.place), "workers": 1} | options
    return Text(source=str(source), **options)


def prepared(task, data):
    made = task.prepare(data)
    return {split: builders.read_split(made, split)["tokens"] for split in ("train", "test")}


def expected(words, texts, split, length=LENGTH):
    mine = [one for one in texts if encode.split_of(one, HELD_OUT) == split]
    ids = [id for one in mine for id in [*words.encode_plain([one])[0], 0]]
    return np.array(ids[: len(ids) // length * length]).reshape(-1, length)


FORMATS = {
    name.removeprefix("write_"): (write, {"empty_lines": True} if name == "write_empty_lines" else {})
    for name, write in vars(corpora).items()
    if name.startswith("write_")
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_rows_of_its_documents(tmp_path, words, name):
    write, options = FORMATS[name]
    found = prepared(text(words, write(tmp_path / "corpus", TEXTS), **options), tmp_path / "data")
    for split, tokens in found.items():
        assert tokens.dtype == np.uint16
        np.testing.assert_array_equal(tokens, expected(words, TEXTS, split))


def test_rows_decode_to_whole_documents_of_one_split(tmp_path, words):
    task = text(words, corpora.write_lines(tmp_path / "corpus", TEXTS), length=2)
    found = {split: tokens.reshape(-1) for split, tokens in prepared(task, tmp_path / "data").items()}
    back = {}
    for split, ids in found.items():
        ends = np.flatnonzero(ids == 0)
        pieces = np.split(ids, ends + 1)[: len(ends)]
        back[split] = [words.backend.decode(piece[:-1].tolist(), skip_special_tokens=False) for piece in pieces]
    whole = [one for one in TEXTS if one in back["train"] or one in back["test"]]
    assert len(whole) >= len(TEXTS) - 2, "the last document of a split may end in the tokens that are left out"
    assert not set(back["train"]) & set(back["test"])
    assert 0.1 < len(back["test"]) / len(TEXTS) < 0.5


def test_data_set_of_the_hub_is_read_as_its_rows(tmp_path, words, monkeypatch):
    asked = []

    def load_dataset(name, config, *, split, streaming):
        asked.append((name, config, split, streaming))
        return ({"content": one} for one in TEXTS)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    task = text(words, "hf:someone/books:plain", field="content")
    np.testing.assert_array_equal(prepared(task, tmp_path / "data")["train"], expected(words, TEXTS, "train"))
    assert asked == [("someone/books", "plain", "train", True)]


def test_test_source_is_held_out_and_the_source_is_not(tmp_path, words):
    train, test = (corpora.write_lines(tmp_path / name, part) for name, part in (("a", TEXTS[:40]), ("b", TEXTS[40:])))
    found = prepared(text(words, train, test_source=str(test)), tmp_path / "data")
    for tokens, part in ((found["train"], TEXTS[:40]), (found["test"], TEXTS[40:])):
        ids = [id for one in part for id in [*words.encode_plain([one])[0], 0]]
        np.testing.assert_array_equal(tokens.reshape(-1), ids[: len(ids) // LENGTH * LENGTH])


def test_tokenizer_is_trained_on_what_is_not_held_out_alone(tmp_path):
    secret = ["xylophonexylophone " * 50 + "\n"] * 20
    files = [corpora.write_lines(tmp_path / name, part) for name, part in (("a", TEXTS), ("b", secret))]
    task = Text(source=str(files[0]), test_source=str(files[1]), length=8, vocab=400, workers=1)
    made = task.prepare(tmp_path / "data")
    words = task.tokenizer_in(tmp_path / "data")
    assert not any("xylo" in token for token in words.backend.get_vocab())
    assert words.end_ids == (0,)
    assert builders.read_split(made, "train")["tokens"].max() < words.num_tokens <= 400


def test_piece_by_piece_a_document_stays_whole_and_in_one_split(monkeypatch, tmp_path):
    long = " ".join(f"word{i}" for i in range(400)) + "\n" + "x" * 300 + "\n" + "夜" * 200 + "\n"
    path = tmp_path / "long.txt"
    path.write_text(long)
    origin = encode.Origin(corpora_place(path), None)
    monkeypatch.setattr(documents, "PIECE", 64)
    monkeypatch.setattr(documents, "BLOCK", 50)  # cuts characters of several bytes
    found = list(encode.read_sided(origin, encode.Reading("text", False, 0.5)))
    assert "".join(sided.piece.text for sided in found) == long
    assert all(len(sided.piece.text) <= 64 for sided in found)
    assert [sided.piece.begins for sided in found] == [True, *[False] * (len(found) - 1)]
    assert [sided.piece.ends for sided in found] == [*[False] * (len(found) - 1), True]
    assert len({sided.split for sided in found}) == 1


def corpora_place(path):
    from mdm_jax.tasks.text.sources import find_places

    return find_places(str(path))[0]


@pytest.mark.parametrize(
    ("name", "data", "empty_lines", "texts"),
    [
        ("bom.txt", b"\xef\xbb\xbfa\n", False, ["a\n"]),
        ("bom.jsonl", b'\xef\xbb\xbf{"text": "a"}', False, ["a"]),
        ("kept.txt", b"a\r\n\n  b", False, ["a\r\n\n  b"]),
        ("empty.txt", b"\n\na\r\n\r\n \t\nb\nc\n\n", True, ["a\r\n", "b\nc\n"]),
        ("surrogate.jsonl", b'{"text": "a\\ud83d b\\ud83d\\ude42"}\n\n', False, ["a\ufffd b🙂"]),
        ("blank.jsonl", b'{"text": " \\n"}\n{"text": ""}\n{"text": "a"}\n', False, ["a"]),
    ],
)
def test_documents_are_what_the_file_says(tmp_path, name, data, empty_lines, texts):
    (tmp_path / name).write_bytes(data)
    found = documents.read_pieces(corpora_place(tmp_path / name), field="text", empty_lines=empty_lines)
    assert [piece.text for piece in found] == texts


def test_processes_change_nothing(tmp_path, words, monkeypatch):
    monkeypatch.setattr(encode, "BATCH", 200)
    source = corpora.write_lines(tmp_path / "corpus", TEXTS)
    one, three = (prepared(text(words, source, workers=n), tmp_path / str(n)) for n in (1, 3))
    for split in one:
        np.testing.assert_array_equal(one[split], three[split])


class StoppedError(Exception):
    pass


def test_encoding_stopped_anywhere_goes_on_to_the_same_streams(tmp_path, words, monkeypatch):
    monkeypatch.setattr(encode, "BATCH", 100)
    monkeypatch.setattr(encode, "PART", 300)
    monkeypatch.setattr(documents, "PIECE", 100)
    folder = corpora.write_folder(tmp_path / "corpus", TEXTS[:20])
    origins = text(words, folder).origins

    def run(parts, most):
        calls = itertools.count()

        def progress(characters):
            if next(calls) == most:
                raise StoppedError

        reading = encode.Reading("text", False, HELD_OUT)
        how = {"end_id": 0, "dtype": "uint16", "workers": 1, "progress": progress}
        return encode.encode(parts, origins, reading, words.place, **how)

    whole = run(tmp_path / "whole", None)
    streams = {s: np.concatenate(list(encode.read_stream(tmp_path / "whole", s, "uint16"))) for s in encode.SPLITS}
    assert len(encode.read_records(tmp_path / "whole")) > 3
    for first in range(1, 12, 2):
        parts = tmp_path / str(first)
        with pytest.raises(StoppedError):
            run(parts, first)
        assert run(parts, None) == whole
        for split, stream in streams.items():
            np.testing.assert_array_equal(np.concatenate(list(encode.read_stream(parts, split, "uint16"))), stream)


KILLED = """
import sys
from mdm_jax.tasks.text import encode
from mdm_jax.tasks.text.task import Text
encode.BATCH, encode.PART = 2000, 5000
if __name__ == "__main__":
    Text(source=sys.argv[1], tokenizer=sys.argv[2], length=16, held_out=0.3, workers=2).prepare(sys.argv[3])
"""


def test_prepare_killed_goes_on_and_leaves_no_process(tmp_path, words):
    many = corpora.documents(3000, seed=1)
    source = corpora.write_lines(tmp_path / "corpus", many)
    (tmp_path / "program.py").write_text(KILLED)
    command = [sys.executable, tmp_path / "program.py", source, words.place, tmp_path / "data"]
    env = ENV | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, start_new_session=True)
    while not list((tmp_path / "data").glob("text/*/parts/000002.json")):
        assert process.poll() is None, "it was over before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = prepared(text(words, source), tmp_path / "data")
    np.testing.assert_array_equal(found["train"], expected(words, many, "train"))
    assert not list((tmp_path / "data").glob("text/*/parts"))
    deadline = time.monotonic() + 60
    while is_alive(process.pid):
        assert time.monotonic() < deadline, "processes of the pool are left"
        time.sleep(0.1)


def test_data_that_another_process_prepares_are_refused_until_it_ends(tmp_path, words):
    task = text(words, corpora.write_lines(tmp_path / "corpus", TEXTS))
    with open_lock(task.folder(tmp_path / "data")), pytest.raises(InputError, match="is in use by process"):
        task.prepare(tmp_path / "data")
    assert len(prepared(task, tmp_path / "data")["train"])


def is_alive(group):
    """Whether a group has a process that is no zombie."""
    listed = subprocess.run(["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True, check=False)
    return any(not line.startswith("Z") for line in listed.stdout.split())


def test_prepared_rows_are_found_when_the_source_is_gone_and_not_when_it_has_changed(tmp_path, words):
    source = corpora.write_lines(tmp_path / "corpus", TEXTS)
    first = prepared(text(words, source), tmp_path / "data")
    source.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(prepared(text(words, source), tmp_path / "data")["train"], first["train"])
    with pytest.raises(InputError, match="No such file"):
        text(words, source, length=8).prepare(tmp_path / "data")
    source.write_bytes(corpora.as_json(TEXTS[:30]))
    assert len(prepared(text(words, source), tmp_path / "data")["train"]) < len(first["train"])


def test_rows_on_disk_are_batched_as_those_in_memory(tmp_path, words, monkeypatch):
    made = text(words, corpora.write_lines(tmp_path / "corpus", TEXTS)).prepare(tmp_path / "data")
    in_memory = builders.open_split(made, "train")
    monkeypatch.setattr(builders, "IN_MEMORY", 0)
    on_disk = builders.open_split(made, "train")
    assert isinstance(in_memory["tokens"], np.ndarray)
    assert not isinstance(on_disk["tokens"], np.ndarray)
    np.testing.assert_array_equal(on_disk["tokens"][:5], in_memory["tokens"][:5])
    np.testing.assert_array_equal(np.asarray(on_disk["tokens"]), in_memory["tokens"])
    assert np.asarray(on_disk["tokens"], np.float32).dtype == np.float32
    batches = [Batches(records, batch_size=8, seed=1) for records in (in_memory, on_disk)]
    for _ in range(6):
        one, other = map(next, batches)
        np.testing.assert_array_equal(one["tokens"], other["tokens"])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=9),
    left=st.integers(0, 7),
    length=st.integers(1, 4),
    block=st.integers(1, 8),
    at_once=st.integers(1, 5),
)
def test_rows_of_documents_are_those_of_a_loop(lengths, left, length, block, at_once):
    ids = itertools.count(1)
    texts = [[next(ids) for _ in range(n)] + [0] for n in lengths]
    stream = np.array([id for one in texts for id in one], np.int32)
    parts = [stream[i : i + block] for i in range(0, len(stream), block)]
    joined = np.concatenate([np.zeros((0, length), np.int32), *rows.cut_rows(parts, length)])
    np.testing.assert_array_equal(joined, stream[: len(stream) // length * length].reshape(-1, length))
    with unittest.mock.patch.object(rows, "AT_ONCE", at_once):
        made = list(rows.document_rows(parts, length, end_id=0, pad_id=-1))
    cut = [one[i : i + length] for one in texts for i in range(0, len(one), length)]
    want = [row + [-1] * (length - len(row)) for row in cut]
    found = np.concatenate([np.zeros((0, length), np.int32), *made])
    np.testing.assert_array_equal(found, np.array(want, np.int32).reshape(-1, length))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"packing": "document"}, "unknown packing 'document'; choose one of joined, documents"),
        ({"length": 0}, "length must be a whole number"),
        ({"held_out": 1.0}, "held_out must be a number"),
        ({"workers": 0}, "workers must be a whole number"),
    ],
)
def test_corpus_of_settings_that_are_none_is_refused_before_anything_is_read(change, words):
    with pytest.raises(InputError, match=words):
        Text(source="nowhere", **change)


def test_bad_corpora_are_refused_by_file_and_line(tmp_path, words):
    def file(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "nothing").mkdir()
    good = corpora.as_json(TEXTS)
    third = b'{"text": "a"}\n' * 2
    cases = {
        file("latin.txt", b"one\ntwo\n\xe9t\xe9\n"): "line 3 of",
        file("latin.jsonl", third + b'{"text": "\xe9"}\n'): "line 3 of",
        file("broken.jsonl", third + b'{"text": "a"\n'): "line 3 of",
        file("deep.jsonl", third + b"[" * 100_000 + b"\n"): "is no JSON",
        file("missing.jsonl", third + b'{"body": "a"}\n'): "has no field 'text', but body: name it with --field",
        file("number.jsonl", third + b'{"text": 3}\n'): "line 3 of",
        file("list.jsonl", third + b"[1, 2]\n"): "line 3 of",
        file("cut.jsonl.gz", gzip.compress(good)[:-30]): "is damaged or cut off",
        file("no.jsonl.gz", b"hello\n" * 9): "is damaged or cut off",
        file("no.jsonl.zst", b"hello\n" * 9): "is damaged or cut off",
        file("no.parquet", b"hello\n" * 9): "cannot be read as a parquet file",
        file("blank.txt", b" \n \n"): "no document with a visible character",
        file(
            "short.jsonl", corpora.as_json([f"a{i}\n" for i in range(12)])
        ): "fewer than a row of 64: give a smaller --length",
        file("one.txt", b"one document " * 999): "none of the documents of",
        file("notes.md", b"text"): "is of no kind that is read",
        tmp_path / "absent.txt": "No such file",
        tmp_path / "absent/*.txt": "has no file to read",
        tmp_path / "nothing": "has no file to read",
        tmp_path / "pipe.txt": "is a pipe",
        "gs://bucket/texts": "is not a path in the file system",
        "hf:": "wants the name",
    }
    argv = [
        "prepare",
        "--held-out",
        0.5,
        "--tokenizer",
        words.place,
        "--length",
        64,
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "o",
    ]
    more = [
        (["--source", tmp_path / "short.jsonl", "--length", 1], "at least 2"),
        (["--source", tmp_path / "short.jsonl", "--end-token", "<stop>"], "has no token '<stop>'"),
        (["--source", tmp_path / "short.jsonl", "--held-out", 1], "below 1"),
        (["--source", tmp_path / "short.jsonl", "--test-source", tmp_path / "cut.jsonl.gz"], "is damaged or cut off"),
    ]
    refused = [([*argv, "--source", source], says) for source, says in cases.items()]
    assert_refused("text", [*refused, *(([*argv, *flags], says) for flags, says in more)])


BOUNDED = r"""
import re, sys
from mdm_jax.tasks.text.task import Text
source, test_source, tokenizer, data = sys.argv[1:]
Text(
    source=source, test_source=test_source, tokenizer=tokenizer, end_token="<end>", length=256, workers=1
).prepare(data)
print(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_a_document(tmp_path):
    line = b"It was a dark and stormy night, and the rain fell in torrents.\n"
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<end>": 0, "\n": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("\n", "isolated")  # quick: two tokens a line
    backend.save(str(tmp_path / "tokenizer.json"))
    peaks = []
    for size in (20, 200):
        source, test = tmp_path / f"{size}.txt", tmp_path / "test.txt"
        source.write_bytes(line * (size * 1_000_000 // len(line)))
        test.write_bytes(line * 999)
        command = [sys.executable, "-c", BOUNDED, source, test, tmp_path / "tokenizer.json", tmp_path / "data"]
        done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 60, peaks
    assert peaks[1] < 400, peaks
