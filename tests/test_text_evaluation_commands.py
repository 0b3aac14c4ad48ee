"""The commands that evaluate models of text, on tiny ones."""

import json

import numpy as np
import pytest
from commands import assert_refused, rows, run
from languages import MASK, write_model, write_tokenizer

import mdm_jax
from experiments.text_verdicts import verdicts
from mdm_jax.evaluation.sequence_likelihood import along_order, bound
from mdm_jax.text.tokenizer import read_tokenizer

LENGTH = 12
TEXT = "the cat sat on the mat, the rat on the cat. def f(x): return x. " * 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of a masked model and of a judge with a tokenizer each, and a text."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "held-out.txt").write_text(TEXT)
    for name, fields in {"model": {}, "judge": {"causal": True, "pad_id": None}, "longer": {"init_std": 0.3}}.items():
        (folder / name).mkdir()
        write_model(folder / name, max_length=LENGTH if name != "judge" else 32, **fields)
        write_tokenizer(folder / name)
    return folder


def test_likelihood_has_a_row_for_each_order_and_the_bound(folder, tmp_path):
    flags = ["--checkpoint", folder / "model", "--text", folder / "held-out.txt", "--limit", 5, "--num-draws", 8]
    argv = ["likelihood", *flags, "--proxy", folder / "longer", "--out", tmp_path]
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
    assert "minus_first" not in found["identity"]
    apart = found["uniform"]["nats_per_token"] - found["identity"]["nats_per_token"]
    np.testing.assert_allclose(found["uniform"]["minus_first"], apart, rtol=1e-5)
    assert found["closer"]["squared_error"] > 0
    assert found["closer"]["draw_error"] == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"likelihood.png", "errors.png"}
    begin = (tmp_path / "units.jsonl").read_bytes()
    run("text", *argv)
    assert (tmp_path / "units.jsonl").read_bytes() == begin, "a unit was done again"
    assert {row["order"]: row for row in rows(tmp_path)} == found


def test_genppl_judges_every_way_and_goes_on(folder, tmp_path):
    flags = ["--checkpoint", folder / "model", "--judge", folder / "judge", "--text", folder / "held-out.txt"]
    flags += ["--number", 6, "--oracle", "margin", "--noise", 0.1, "--entropy-budget", 2, "--out", tmp_path]
    run("text", "genppl", *flags, "--steps", 3)
    names = ["real text", "vanilla", "margin", "margin + 0.1", "entropy budget", "search"]
    assert [row["order"] for row in rows(tmp_path)] == names
    done = (tmp_path / "units.jsonl").read_text().splitlines()
    text = run("text", "genppl", *flags, "--steps", 3, 6).stdout
    found = rows(tmp_path)
    assert [row["order"] for row in found] == [*names[:4], *names[1:4], *names[4:]]
    assert (tmp_path / "units.jsonl").read_text().splitlines()[: len(done)] == done
    assert all({"perplexity", "entropy", "distinct_4", "repeated", "overlap"} <= set(row) for row in found)
    by_name = {(row["order"], row.get("num_steps")): row for row in found}
    assert by_name["margin", 6]["nfe"] == 6
    assert by_name["search", None]["nfe"] > LENGTH
    said = json.loads((tmp_path / "results.json").read_text())["verdicts"]
    assert len(said) == len(found) - 3 + 1, "one for each row but real text and vanilla, and one of all"
    assert all(line in text for line in said)
    samples = (tmp_path / "samples" / "margin-num_steps=6.jsonl").read_text().splitlines()
    assert len({json.loads(line)["text"] for line in samples}) == 6
    assert {path.name for path in tmp_path.glob("*.png")} == {"genppl-axes.png", "genppl-front.png"}


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


def test_sample_prints_and_records_several_samples_of_each(folder, tmp_path):
    flags = ["--checkpoint", folder / "longer", "--number", 2, "--oracle", "margin,left_to_right", "--out", tmp_path]
    done = run("text", "sample", *flags, "--infill", "the [4] on", "--prompt", "the cat", "--num-new", 5)
    found = rows(tmp_path)
    assert [(one["prompt"], one["oracle"]) for one in found[::2]] == [
        *[("the cat", name) for name in ("margin", "left_to_right")],
        *[("the [4] on", name) for name in ("margin", "left_to_right")],
    ]
    assert all(one["left_to_rightness"] == 1 for one in found if one["oracle"] == "left_to_right")
    assert found[0]["text"] != found[1]["text"]
    assert all(one["text"].startswith("the ") and one["text"].endswith(" on") for one in found[4:])
    assert f"1. the cat{found[0]['text']}" in done.stdout
    run("text", "sample", "--checkpoint", folder / "longer", "--num-new", LENGTH, "--out", tmp_path)
    assert [one["prompt"] for one in rows(tmp_path)] == [""] * 3


def test_wrong_input_is_named(folder, tmp_path):
    (tmp_path / "short.txt").write_text("the cat")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    text, out = ["--text", folder / "held-out.txt"], ["--out", tmp_path / "out"]
    masked, causal = ["--checkpoint", folder / "model"], ["--checkpoint", folder / "judge"]
    likelihood, genppl = ["likelihood", *out], ["genppl", *out, *text]
    cases = [
        ([*likelihood, *text, *causal], "holds a causal model, which has no orders to choose from"),
        (
            [*likelihood, *masked, "--text", tmp_path / "short.txt"],
            "short.txt has 0 rows of 12 tokens, and 64 are wanted",
        ),
        ([*likelihood, *masked, "--text", tmp_path / "bytes.txt"], "bytes.txt is no text in UTF-8"),
        ([*likelihood, *text, *masked, "--limit", 2, "--orders", "best"], "unknown order 'best'; choose from identity"),
        ([*likelihood, *text, *masked, "--limit", 2, "--num-steps", 3], "num_steps must be even"),
        ([*genppl, *masked, "--judge", folder / "model", "--number", 2], "holds no causal model"),
        ([*genppl, *masked, "--judge", tmp_path, "--number", 2], "config.json"),
        (["sample", *masked, *out, "--search-width", 2], "--search-width is not for sample"),
        (["sample", *masked, *out, "--num-new", 99], "is 99 tokens long"),
    ]
    assert_refused("text", cases)
