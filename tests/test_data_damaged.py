"""Prepared data that is not what was prepared: one line, whichever way it is read, and nothing of it is run."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from mdm_jax import InputError
from mdm_jax.data import builders
from mdm_jax.tasks.nae_sat.task import NaeSat

NUMS = {"train": 50, "test": 10}
TRAIN = "nae_sat-train.array_record-00000-of-00001"
JSON = ("dataset_info.json", "features.json")


def prepare(data):
    return NaeSat(num_latents=5, num_observations=8, num_train=50, num_test=10, seed=0).prepare(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A prepared dataset: the folder of all, and what stands in it."""
    data = tmp_path_factory.mktemp("data")
    builder = prepare(data)
    return builder.data_dir, {split: builders.read_split(builder, split)["tokens"] for split in NUMS}


def test_two_processes_that_want_the_same_data_make_it_once(tmp_path):
    program = f"""
import sys
from mdm_jax.tasks.nae_sat.task import NaeSat
task = NaeSat(num_latents=5, num_observations=8, num_train=3000, num_test=10, seed=0)
print(task.prepare({str(tmp_path)!r}).info.splits["train"].num_examples)
"""
    pair = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in pair]
    assert [out.strip() for out, _ in ended] == ["3000", "3000"], ended


def test_process_waits_for_another_that_makes_the_same_data_and_says_so(tmp_path, capsys):
    lock = tmp_path / ".x.lock"
    with builders._alone(lock):
        thread = threading.Thread(target=lambda: builders._alone(lock).__enter__(), daemon=True)
        thread.start()
        thread.join(1)
        assert thread.is_alive()
    thread.join(20)
    assert not thread.is_alive()
    assert "another process makes x in" in capsys.readouterr().err


@pytest.fixture
def copy(written, tmp_path):
    """A copy to damage."""
    folder = tmp_path.joinpath(*str(written[0]).split(os.sep)[-3:])
    shutil.copytree(written[0], folder)
    return folder


def assert_refused_or_right(folder, written, *, refused=True):
    """From the folder and by its builder; a builder knows its own features, and nothing that JSON says of them."""
    ways = [lambda: folder, lambda: prepare(folder.parents[2])]
    for number, way in enumerate(ways):
        try:
            found = {split: builders.read_split(way(), split)["tokens"] for split in NUMS}
        except InputError as error:
            text = str(error)
            assert text.isprintable()
            assert len(text) <= 1000
            assert str(folder) in text
            assert "delete the folder and prepare" in text or "holds no prepared" in text or "it holds" in text
        else:
            assert number or not refused, "read from the folder"
            for split, tokens in found.items():
                np.testing.assert_array_equal(tokens, written[1][split])


def test_copy_that_is_not_damaged_reads_either_way(copy, written):
    for source in (copy, str(copy), prepare(copy.parents[2])):
        for split, tokens in written[1].items():
            np.testing.assert_array_equal(builders.read_split(source, split)["tokens"], tokens)


def test_flipped_bit_is_noticed_or_changes_nothing(copy, written):
    rng = random.Random(1)
    for path in sorted(copy.iterdir()):
        data = path.read_bytes()
        written_places = [i for i, byte in enumerate(data) if byte]
        for _ in range(12):
            damaged = bytearray(data)
            damaged[rng.choice(written_places)] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            assert_refused_or_right(copy, written, refused=False)
        path.write_bytes(data)
    assert_refused_or_right(copy, written, refused=False)


@pytest.mark.parametrize("name", [*JSON, TRAIN])
def test_file_that_is_cut_gone_or_none_is_one_line(copy, written, name):
    path = copy / name
    data = path.read_bytes()
    for size in (0, 1, 100, len(data) // 2 if name in JSON else 65536):
        path.write_bytes(data[:size])
        assert_refused_or_right(copy, written)
    path.write_bytes(random.Random(2).randbytes(5000))
    assert_refused_or_right(copy, written)
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        path.unlink()
        make()
        assert_refused_or_right(copy, written)
        if path.is_dir():
            path.rmdir()
            path.touch()
    path.unlink()
    if name != JSON[0]:  # without it nothing counts as prepared, and the builder prepares
        assert_refused_or_right(copy, written)


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("text", ["null", "[]", "{}", "7", '"x"', "[" * 10**5, "9" * 5000, '{"splits": 3}', "\0"])
def test_json_of_something_else_is_one_line(copy, written, name, text):
    (copy / name).write_text(text)
    assert_refused_or_right(copy, written)


def places(value, path=()):
    """The paths to everything within a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


@pytest.mark.parametrize("name", JSON)
def test_json_with_a_value_of_another_type_is_one_line_or_right(copy, written, name):
    text = (copy / name).read_text()
    for path in places(json.loads(text)):
        for new in (None, [], "x", 10**12):
            value = json.loads(text)
            inner = value
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = new
            (copy / name).write_text(json.dumps(value))
            assert_refused_or_right(copy, written, refused=False)


@pytest.mark.parametrize("key", ["pythonClassName", "type"])
def test_features_of_a_class_elsewhere_import_nothing(copy, tmp_path, monkeypatch, key):
    (tmp_path / "taken_in.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = copy / "features.json"
    value = json.loads(path.read_text())
    inner = value["featuresDict"]["features"]["tokens"]
    for changed in (value, inner):
        former = changed.copy()
        changed[key] = "taken_in.Feature"
        changed["content"] = "{}"
        path.write_text(json.dumps(value))
        with pytest.raises(InputError, match="another program wrote"):
            builders.read_split(copy, "train")
        changed.clear()
        changed.update(former)


def test_dataset_info_that_names_files_elsewhere_opens_none(copy):
    path = copy / "dataset_info.json"
    path.write_text(path.read_text().replace("{DATASET}-{SPLIT}", "../../other/{DATASET}-{SPLIT}"))
    with pytest.raises(InputError, match="another program wrote"):
        builders.read_split(copy, "train")


def test_fewer_records_than_were_written_are_refused(copy):
    path = copy / "dataset_info.json"
    path.write_text(path.read_text().replace('"50"', '"40"'))
    with pytest.raises(InputError, match="holds 50 records, not 40"):
        builders.read_split(copy, "train")


@pytest.mark.parametrize("data", ["gs://bucket/data", "/dev/null/data", "/proc/data"])
def test_place_where_nothing_can_be_prepared_is_one_line(data):
    with pytest.raises(InputError, match=r"gcsfuse|cannot be made"):
        prepare(data)


@pytest.mark.parametrize("split", ["valid", "", None, 3, "train[:x]", ["train"], b"train"])
def test_split_that_is_none_is_one_line(written, split):
    with pytest.raises(InputError):
        builders.read_split(written[0], split)
