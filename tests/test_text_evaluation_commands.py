"""The commands that evaluate models of text, on tiny ones."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from commands import assert_refused, page_of, rows, run
from languages import MASK, write_model, write_tokenizer

import mdm_jax
from experiments.text import Train
from experiments.text_flags import HeldOutFlags
from experiments.text_held_out import held_out_rows
from experiments.text_verdicts import verdicts
from mdm_jax.evaluation.sequence_likelihood import along_order, bound
from mdm_jax.models.weights import save_weights
from mdm_jax.text.tokenizer import read_tokenizer

LENGTH = 12
TEXT = "the cat sat on the mat, the rat on the cat. def f(x): return x. " * 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of a masked model and of a judge with a tokenizer each, and a text."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "held-out.txt").write_text(TEXT)
    for name, fields in {"model": {}, "judge": {"causal": True, "pad_id": None, "max_length": 32}, "other": {}}.items():
        (folder / name).mkdir()
        write_model(folder / name, **{"max_length": LENGTH} | fields)
        write_tokenizer(folder / name)
    other = mdm_jax.load(folder / "other")
    params = jax.tree.map(lambda leaf: 0.7 * leaf, other.params)
    save_weights(folder / "other", params, dtype="float32")
    return folder


@pytest.mark.slow
def test_likelihood_has_a_row_for_each_order_and_the_bound(folder, tmp_path):
    flags = ["--checkpoint", folder / "model", "--text", folder / "held-out.txt", "--limit", 5, "--num-draws", 8]
    argv = ["likelihood", *flags, "--proxy", folder / "other", "--out", tmp_path]
    run("text", *argv)
    found = {row["order"]: row for row in rows(tmp_path)}
    assert list(found) == ["identity", "closer", "uniform", "all (bound)"]
    model, words = mdm_jax.load(folder / "model"), read_tokenizer(folder / "model")
    ids = words.encode(TEXT, special=False)
    number = len(ids) // LENGTH
    x_0 = np.array([ids[i * LENGTH : (i + 1) * LENGTH] for i in [j * number // 5 for j in range(5)]])
    options = {"mask_id": MASK, "seed": 0}
    nats = along_order(model.denoiser, model.params, x_0, np.tile(np.arange(LENGTH), (5, 1)), **options).nats / LENGTH
    np.testing.assert_allclose(found["identity"]["nats_per_token"], nats.mean(), rtol=1e-5)
    both = bound(model.denoiser, model.params, x_0, num_draws=8, **options)
    np.testing.assert_allclose(found["all (bound)"]["nats_per_token"], both.nats.mean() / LENGTH, rtol=1e-5)
    assert "minus_identity" not in found["identity"]
    apart = found["uniform"]["nats_per_token"] - found["identity"]["nats_per_token"]
    np.testing.assert_allclose(found["uniform"]["minus_identity"], apart, rtol=1e-5)
    assert found["closer"]["squared_error"] > 0
    assert found["closer"]["draw_error"] == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"likelihood.png", "errors.png"}
    begin = (tmp_path / "units.jsonl").read_bytes()
    run("text", *argv)
    assert (tmp_path / "units.jsonl").read_bytes() == begin, "a unit was done again"
    assert {row["order"]: row for row in rows(tmp_path)} == found


def test_rows_are_those_that_the_run_held_out(tmp_path):
    (tmp_path / "books").mkdir()
    for i in range(12):
        (tmp_path / "books" / f"{i}.txt").write_text(f"The {i}th cat sat on the {i}th mat. " * 20)
    trained = Train(source=str(tmp_path / "books"), held_out=0.3, length=LENGTH, vocab=300)
    task = trained.task()
    test = task.read(task.prepare(tmp_path / "data"), "test")["tokens"]
    network = trained.layout_of(task).network
    write_model(tmp_path, **network)
    fields = {name: getattr(trained, name) for name in Train.names}
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"task": {"name": "text", **fields}}))
    words = task.tokenizer_in(tmp_path / "data")
    flags = HeldOutFlags(checkpoint=tmp_path, data=tmp_path / "data")
    found = held_out_rows(flags, words, 4, LENGTH)
    number = len(test)
    np.testing.assert_array_equal(found, np.asarray(test)[[i * number // 4 for i in range(4)]])
    short = held_out_rows(dataclasses.replace(flags, length=5), words, 4, LENGTH)
    np.testing.assert_array_equal(short, found[:, :5])


def genppl(folder, out, *flags):
    """The rows of a command with few samples, by order and steps, and what it printed."""
    own = ["--checkpoint", folder / "model", "--judge", folder / "judge", "--text", folder / "held-out.txt"]
    text = run("text", "genppl", *own, "--number", 6, "--oracle", "margin", "--out", out, *flags).stdout
    return {(found["order"], found.get("num_steps")): found for found in rows(out)}, text


@pytest.mark.slow
def test_genppl_judges_every_way_and_goes_on(folder, tmp_path):
    flags = ["--noise", "--entropy-budget", "--search-width", "None", "--steps"]
    found, _ = genppl(folder, tmp_path, *flags, 3)
    assert list(found) == [("real text", None), ("vanilla", 3), ("margin", 3)]
    done = (tmp_path / "units.jsonl").read_text().splitlines()
    back = ["--remask-steps", 3, "--corrector", "leave-one-out", "--tokens-per-step", 6]
    more, text = genppl(folder, tmp_path, *flags, 3, 6, *back)
    assert list(more) == [*found, ("vanilla", 6), ("margin", 6), ("remasking", None), ("correction", None)]
    assert (tmp_path / "units.jsonl").read_text().splitlines()[: len(done)] == done
    assert all(more[key] == found[key] for key in found)
    assert all({"perplexity", "entropy", "distinct_4", "repeated", "overlap"} <= set(each) for each in more.values())
    assert more["margin", 6]["nfe"] == 6
    assert (more["remasking", None]["remask_steps"], more["remasking", None]["nfe"]) == (3, 3)
    corrected = more["correction", None]
    assert (corrected["corrector"], corrected["tokens_per_step"]) == ("leave-one-out", 6)
    assert corrected["nfe"] >= 2 + 6, "two steps, and a call for each token that the second one judges"
    said = json.loads((tmp_path / "results.json").read_text())["verdicts"]
    assert len(said) == 5, "one for each row of another order, and one of all"
    assert all(line in text for line in said)
    samples = (tmp_path / "samples" / "margin-num_steps=6.jsonl").read_text().splitlines()
    assert len({json.loads(line)["text"] for line in samples}) == 6
    assert {path.name for path in tmp_path.glob("*.png")} == {"genppl-axes.png", "genppl-front.png"}


@pytest.mark.slow
def test_genppl_judges_noise_budgets_and_search(folder, tmp_path):
    found, _ = genppl(folder, tmp_path, "--noise", 0.1, 0.5, "--entropy-budget", 2, "--steps", 3)
    names = ["real text", "vanilla", "margin", "margin + 0.1", "margin + 0.5", "entropy budget", "search"]
    assert [name for name, _ in found] == names
    assert found["search", None]["nfe"] > LENGTH
    assert found["margin + 0.1", 3]["perplexity"] != found["margin", 3]["perplexity"]


def row(order, nats, entropy, **fields):
    """A row with intervals of ±0.1."""
    ends = {"nats_per_token_ci": [nats - 0.1, nats + 0.1], "entropy_ci": [entropy - 0.1, entropy + 0.1]}
    fields = {"nfe": 8.0, "num_steps": 8, "perplexity": np.exp(nats)} | fields
    return {"order": order, "nats_per_token": nats, "entropy": entropy, **ends, **fields}


@pytest.mark.parametrize(
    ("nats", "entropy", "words"),
    [
        (3.0, 4.5, "better, on both axes"),
        (3.0, 3.5, "wins in perplexity and loses in entropy: not better"),
        (3.0, 4.05, "wins in perplexity and no difference is shown in entropy: not better"),
        (5.0, 4.5, "wins in entropy and loses in perplexity: not better"),
        (4.05, 4.5, "wins in entropy and no difference is shown in perplexity: not better"),
        (4.1, 3.9, "no difference is shown"),
        (5.0, 3.5, "worse, on both axes"),
        (5.0, 4.05, "no difference is shown in entropy and loses in perplexity: worse"),
    ],
)
def test_order_is_called_better_only_if_it_wins_on_both_axes(nats, entropy, words):
    line, last = verdicts([row("vanilla", 4.0, 4.0), row("margin", nats, entropy)])
    assert line.endswith(f": {words}")
    is_better = words == "better, on both axes"
    assert last == f"better than vanilla, on both axes: {'margin, 8 calls' if is_better else 'none'}"


def test_order_is_compared_with_the_vanilla_row_of_its_steps_or_of_the_nearest_calls():
    vanilla = [row("vanilla", 6.0, 4.0, nfe=7.0), row("vanilla", 3.0, 4.0, nfe=60.0, num_steps=64)]
    budget = {name: value for name, value in row("budget", 4.0, 5.0, nfe=40.0).items() if name != "num_steps"}
    lines = verdicts([*vanilla, row("margin", 4.0, 5.0, nfe=30.0), budget])
    assert "of vanilla in 7, " in lines[0]
    assert "of vanilla in 60, " in lines[1]
    assert lines[2].endswith("on both axes: margin, 30 calls")
    assert verdicts([row("margin", 4.0, 5.0)]) == []


@pytest.mark.slow
def test_sample_prints_and_records_several_samples_of_each(folder, tmp_path):
    flags = ["--checkpoint", folder / "model", "--oracle", "left_to_right", "--out", tmp_path]
    infill, prompt = ["--infill", "the [4] on"], ["--prompt", "the cat", "a", "--num-new", 5]
    text = run("text", "sample", *flags, "--number", 2, *infill, *prompt).stdout
    found = rows(tmp_path)
    assert [one["prompt"] for one in found] == ["the cat"] * 2 + ["a"] * 2 + ["the [4] on"] * 2
    assert [one["tokens"] for one in found] == [5] * 4 + [4] * 2
    assert all(one["left_to_rightness"] == 1 for one in found)
    assert found[0]["text"] != found[1]["text"]
    assert all(one["text"].startswith("the ") and one["text"].endswith(" on") for one in found[4:])
    assert f"1. the cat{found[0]['text']}" in text
    run("text", "sample", *flags, "--num-new", LENGTH, "--viewer", tmp_path / "page.html")
    (panel,) = page_of(tmp_path / "page.html")["panels"]
    assert [event[1] for event in panel["events"]] == list(range(LENGTH)), "from left to right"
    assert [(one["prompt"], one["tokens"]) for one in rows(tmp_path)] == [("", LENGTH)] * 3


def test_wrong_input_is_named(folder, tmp_path):
    (tmp_path / "short.txt").write_text("the cat")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    text, out = ["--text", folder / "held-out.txt"], ["--out", tmp_path / "out"]
    masked, causal = ["--checkpoint", folder / "model"], ["--checkpoint", folder / "judge"]
    likelihood, genppl = ["likelihood", *out], ["genppl", *out, *text]
    together = "--corrector and --tokens-per-step go together"
    cases = [
        ([*likelihood, *text, *causal], "holds a causal model, which has no orders"),
        (
            [*likelihood, *masked, "--text", tmp_path / "short.txt"],
            "short.txt has 0 rows of 12 tokens held out, and 64 are wanted",
        ),
        ([*likelihood, *masked, "--text", tmp_path / "bytes.txt"], "bytes.txt is no text in UTF-8"),
        ([*likelihood, *text, *masked, "--limit", 2, "--orders", "best"], "unknown order 'best'; choose from identity"),
        ([*likelihood, *text, *masked, "--limit", 2, "--num-steps", 3], "num_steps must be even"),
        ([*likelihood, *masked], "is a run of another task, not of text; or name a text that it has not seen"),
        ([*likelihood, *text, *masked, "--length", 13], "--length 13 is more than the 12 tokens that the model takes"),
        ([*genppl, *masked, "--judge", folder / "model", "--number", 2], "holds no causal model"),
        ([*genppl, *masked, "--judge", tmp_path, "--number", 2], "config.json"),
        ([*genppl, *masked, "--judge", tmp_path, "--tokens-per-step", 4], together),
        ([*genppl, *masked, "--judge", tmp_path, "--corrector", "filled"], together),
        (["sample", *masked, *out, "--search-width", 2], "--search-width is not for sample"),
        (["sample", *masked, *out, "--viewer", tmp_path / "page.txt"], "must end in .html"),
        (["sample", *masked, *out, "--num-new", 99], "is 99 tokens long"),
    ]
    assert_refused("text", cases)
