"""`prepare`, `train` and `evaluate` of text, as a user runs them, on a small corpus."""

import json

import commands
import corpora
import numpy as np
import pytest
from commands import assert_refused

import mdm_jax
from mdm_jax.text.tokenizer import read_tokenizer

SMALL = ("--layers", 1, "--width", 16, "--heads", 2, "--steps", 4, "--batch-size", 8, "--evaluate-limit", 8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    corpora.write_lines(folder / "corpus", corpora.documents(400))
    return folder


def flags(home, *more, length=16):
    data = ("--source", home / "corpus.jsonl", "--data", home / "data", "--length", length, "--vocab", 300)
    return [*data, "--held-out", 0.2, *more]


@pytest.fixture(scope="module")
def trained(home):
    """A masked model of padded documents, and a causal model."""
    for loss, packing in (("subset", "documents"), ("causal", "joined")):
        more = ("--loss", loss, "--packing", packing, "--out", home / loss)
        commands.run("text", "train", *flags(home, *SMALL, *more))
    return home


def test_prepare_says_what_there_is(home):
    commands.run("text", "prepare", *flags(home, "--out", home / "prepared"))
    train, test = commands.rows(home / "prepared")
    assert train["documents"] + test["documents"] == 400
    assert train["bytes"] + test["bytes"] == sum(len(text.encode()) for text in corpora.documents(400))
    for row in (train, test):
        assert row["n"] == row["tokens"] // 16
        assert 1 < row["bytes_per_token"] < 8


@pytest.mark.slow
def test_train_and_evaluate_give_one_loss(trained, tmp_path):
    for name, method in (("subset", "mdm"), ("causal", "arm")):
        (row,) = commands.rows(trained / name)
        assert row["method"] == method
        assert 3 < row["nats_per_token"] < 8
        evaluate = ("evaluate", "--checkpoint", trained / name, "--data", trained / "data", "--out", tmp_path)
        commands.run("text", *evaluate, "--limit", 8, "--batch-size", 8)
        (again,) = commands.rows(tmp_path)
        assert again["nats_per_token"] == pytest.approx(row["nats_per_token"], rel=1e-5)
        assert again["bits_per_byte"] == pytest.approx(row["bits_per_byte"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["subset", "causal"])
def test_trained_model_generates_text_with_the_tokenizer_beside_it_and_once_exported(trained, tmp_path, name):
    model, ids = mdm_jax.load(trained / name), read_tokenizer(trained / name).encode("the old")
    assert (ids[0] == 300) == (name == "causal"), "an autoregressive model wants its start"
    blocks = {} if name == "causal" else {"block_length": 2}
    prompts, options = ["the", "the old sea"], {"tokenizer": trained / name, "num_new": 4, **blocks}
    together = mdm_jax.generate(model, prompts, **options)
    alone = [mdm_jax.generate(model, [prompt], numbers=[i], **options)[0] for i, prompt in enumerate(prompts)]
    assert [found.tokens for found in together] == [found.tokens for found in alone]
    assert all(isinstance(found.text, str) for found in together)
    exported = tmp_path / "exported"
    commands.run("text", "export", "--checkpoint", trained / name, "--dtype", "float32", "--out", exported)
    again = mdm_jax.generate(mdm_jax.load(exported), prompts, **{**options, "tokenizer": exported})
    assert [found.text for found in again] == [found.text for found in together]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ("--loss", "elbo"),
        ("--loss", "order"),
        ("--loss", "order", "--order", "much-closer"),
        ("--loss", "causal", "--order", "closer"),
        ("--loss", "causal", "--order", "uniform", "--packing", "documents"),
        ("--loss", "subset", "--packing", "documents", "--positions", "rope"),
    ],
    ids=" ".join,
)
def test_every_loss_and_order_trains_and_evaluates(home, tmp_path, how):
    commands.run("text", "train", *flags(home, *SMALL, *how, "--out", tmp_path / "run"))
    (row,) = commands.rows(tmp_path / "run")
    assert np.isfinite(row["nats_per_token"])
    evaluate = ("evaluate", "--checkpoint", tmp_path / "run", "--data", home / "data", "--out", tmp_path / "evaluate")
    commands.run("text", *evaluate, "--limit", 8, "--batch-size", 8)
    (again,) = commands.rows(tmp_path / "evaluate")
    assert again["nats_per_token"] == pytest.approx(row["nats_per_token"], rel=1e-5)


@pytest.mark.slow
def test_wrong_flags_are_refused(trained, tmp_path):
    def train(*more, out=tmp_path / "run"):
        return ["train", *flags(trained, *SMALL, *more, "--out", out)]

    assert_refused(
        "text",
        [
            (train("--order", "closer"), "--loss subset is over all orders"),
            (train("--batch-size", 100_000), "choose 1 to"),
            (train("--model", "sudoku-9"), "unknown preset"),
            (train("--width", 15), "num_heads"),
            (train("--loss", "causal", "--order-seed", 1, out=trained / "causal"), "order_seed 0 -> 1"),
            (["evaluate", "--checkpoint", tmp_path / "absent"], "there is no folder"),
        ],
    )
    assert json.loads((trained / "causal" / "config.json").read_text())["task"]["dataset"].startswith("16-")
