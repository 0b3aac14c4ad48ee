"""Figure 3: samples of a masked model of text in several orders, judged by a causal model and by their diversity.

Claim (Kim et al. 2025, Figure 3 and D.1.2; a masked model of 170M or 1.1B parameters, judged by Llama-2-7B): in as many
steps, samples in the order of the margin, with Gaussian noise on it, have a lower perplexity than vanilla ones at about
the same entropy. A judge's perplexity alone shows little: what repeats itself is easy to predict. So an order is called
better here only if it wins on both axes, by intervals.

    python -m experiments.text genppl --checkpoint RUN --judge SmolLM2-135M
    python -m experiments.text genppl --checkpoint RUN --judge Llama-2-7b-hf --number 512 --steps 16 64 256 1024
"""

import functools
import json
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import mdm_jax
from experiments.common import Results, Row, say_written, table
from experiments.journal import Journal
from experiments.oracles import oracle_named
from experiments.text_flags import GenPpl
from experiments.text_held_out import Masked, held_out_rows, load_masked, name_of
from experiments.text_verdicts import VANILLA, verdicts
from mdm_jax import oracles
from mdm_jax.errors import InputError
from mdm_jax.evaluation import diversity
from mdm_jax.evaluation.perplexity import Judged, judged
from mdm_jax.evaluation.prompts import fill_sequences
from mdm_jax.files import make_folder, write_whole
from mdm_jax.loading import identity, run_folder
from mdm_jax.report import plots
from mdm_jax.text.tokenizer import read_tokenizer
from mdm_jax.training.lock import locked

Judge = Callable[[Sequence[str]], Judged]
REAL = "real text"
COLUMNS = {
    "order": "order",
    "num_steps": "steps",
    "nfe": "NFE",
    "perplexity": "perplexity",
    "perplexity_ci": "95% interval",
    "nats_per_byte": "nats/byte",
    "entropy": "entropy",
    "entropy_ci": "95% interval ",
    "distinct_2": "distinct-2",
    "repeated": "repeated",
    "longest_repeat": "longest",
    "precision": "precision",
    "recall": "recall",
    "overlap": "overlap",
}


class Way(NamedTuple):
    """How samples are drawn."""

    name: str
    """of the order"""
    fields: Row
    """those of its row that name it"""
    decode: Callable[..., Any]
    """(keys [B], masks [B, L]) -> SampleResult"""


def genppl(flags: GenPpl) -> None:
    """Adds a row for real text and for each way, and says which orders win on which axis."""
    with locked(flags.out):
        _genppl(flags)


def _genppl(flags: GenPpl) -> None:
    results = Results("text", "genppl", out=flags.out, seed=flags.seed)
    if (flags.corrector is None) != (not flags.tokens_per_step):
        raise InputError("--corrector and --tokens-per-step go together: give both or neither")
    ours = load_masked(flags)
    ways = list(_ways(flags, ours))
    if not ways:
        raise InputError("there is no way to sample: give numbers of --steps")
    rows = held_out_rows(flags, ours.words, 2 * flags.number, ours.model.config.max_length)
    length = rows.shape[1]
    texts, others = list(rows[::2]), list(rows[1::2])
    head: Row = {name: str(getattr(flags, name)) for name in ("number", "temperature", "mask_id", "tokenizer", "seed")}
    head |= {"checkpoint": identity(flags.checkpoint), "judge": identity(flags.judge)}
    head |= {"text": zlib.crc32(rows.tobytes())}
    journal = Journal(flags.out, head, None)
    judge = functools.cache(functools.partial(_judge, flags.judge))

    def of_real_text() -> list[Row]:
        found = judge()([ours.words.decode(row) for row in others])
        return [{**found.fields, **diversity.describe(others, texts)}]

    common = {"dataset": name_of(flags, ours.model), "n": flags.number, "length": length}
    results.add(order=REAL, **common, **journal.rows(REAL, of_real_text)[0])
    for way in ways:
        unit = " ".join([way.name, *(f"{name}={value}" for name, value in way.fields.items())])
        (row,) = journal.rows(unit, functools.partial(_measured, flags, ours, judge, way, unit, texts, length))
        results.add(method="mdm", order=way.name, **way.fields, **common, **row)
    said = verdicts(results.rows)
    results.finish(
        seconds=journal.seconds,
        fields={"judge": str(flags.judge), "verdicts": said},
        shown=lambda rows: "\n".join([_table(rows), "", *said]),
    )
    paths = {flags.out / "genppl-axes.png": plot_axes, flags.out / "genppl-front.png": plot_front}
    for path, plot in paths.items():
        plot(path, results.rows)
    say_written(*paths)


def _judge(folder: pathlib.Path) -> Judge:
    """What judges texts."""
    model = mdm_jax.load(folder)
    if not getattr(model.config, "causal", False):
        raise InputError(f"--judge {folder} holds no causal model, which predicts each token from those before it")
    return functools.partial(judged, model, read_tokenizer(run_folder(folder)[0]), progress="judge")


def _ways(flags: GenPpl, ours: Masked) -> Iterator[Way]:
    """The vanilla way and the adaptive ones for each number of steps, then others, each with what counts its steps."""
    model, mask_id = ours.model, ours.mask_id
    adaptive = {name: oracle_named(name) for name in flags.oracle.split(",") if name}
    adaptive |= {f"margin + {scale:g}": mdm_jax.with_noise(oracles.margin, scale) for scale in flags.noise}

    def by(sampler: Callable[..., Any], oracle: Any, **options: Any) -> Callable[..., Any]:
        return functools.partial(sampler, model.denoiser, model.params, mask_id=mask_id, oracle=oracle, **options)

    drawn: Row = {"temperature": flags.temperature}

    def sampling(oracle: Any, selector: Any) -> Callable[..., Any]:
        return by(mdm_jax.sample, oracle, selector=selector, **drawn)

    for number in flags.steps:
        fields = {"num_steps": number}
        yield Way(VANILLA, fields, sampling(oracles.random, mdm_jax.Binomial(number)))
        for name, oracle in adaptive.items():
            yield Way(name, fields, sampling(oracle, mdm_jax.TopK(number)))
    for budget in flags.entropy_budget:
        decode = sampling(oracles.neg_entropy, mdm_jax.EntropyBudget(budget))
        yield Way("entropy budget", {"entropy_budget": budget}, decode)
    if flags.search_width is not None:
        decode = by(mdm_jax.search_sample, oracles.random, width=flags.search_width)
        yield Way("search", {"search_width": flags.search_width}, decode)
    for number in flags.remask_steps:
        decode = by(mdm_jax.remasking_sample, oracles.margin, num_steps=number, noise=0.0, **drawn)
        yield Way("remasking", {"remask_steps": number}, decode)
    for k in flags.tokens_per_step:
        decode = by(mdm_jax.correcting_sample, oracles.margin, judge=flags.corrector, k=k, **drawn)
        yield Way("correction", {"corrector": flags.corrector, "tokens_per_step": k}, decode)


def _measured(
    flags: GenPpl,
    ours: Masked,
    judge: Callable[[], Judge],
    way: Way,
    unit: str,
    texts: list[NDArray[np.int32]],
    length: int,
) -> list[Row]:
    """Draws the samples, writes them to a file, and measures them."""
    masks = np.full(length, ours.mask_id, np.int32)
    options: dict[str, Any] = {"pad_id": None, "batch_size": flags.batch_size, "seed": flags.seed, "progress": unit}
    filled = fill_sequences(way.decode, [masks] * flags.number, **options)
    samples = [row.tokens for row in filled.rows]
    found = [ours.words.decode(sample) for sample in samples]
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in found)
    write_whole(make_folder(flags.out / "samples") / f"{unit.replace(' ', '-').replace(':', '.')}.jsonl", lines)
    return [{"nfe": filled.nfe, **judge()(found).fields, **diversity.describe(samples, texts)}]


def _table(rows: Sequence[Row]) -> str:
    return table([{head: row.get(name) for name, head in COLUMNS.items()} for row in rows])


QUALITY, VARIETY = "nats per token, by the judge", "entropy of a sample (nats)"
FAR = 0.9
"""Samples whose entropy is below this share of real text's are left out of the pictures."""


def plot_axes(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws both axes of the figure, each by network calls."""
    real, sampled, title = _drawn(rows)
    calls = [row["nfe"] for row in sampled]
    parts: dict[str, dict[str, plots.Curve]] = {}
    for label, field in {QUALITY: "nats_per_token", VARIETY: "entropy"}.items():
        curves = {REAL: plots.Curve([min(calls), max(calls)], [real[field]] * 2)}
        for name, own in _by_order(sampled, "nfe").items():
            low, high = ([row[f"{field}_ci"][i] for row in own] for i in (0, 1))
            curves[name] = plots.Curve([row["nfe"] for row in own], [row[field] for row in own], low, high)
        parts[label] = curves
    plots.panels(path, parts, x_label="network calls", title=title, log_x=True)


def plot_front(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws one axis of the figure against the other."""
    real, sampled, title = _drawn(rows)
    front = {
        name: plots.Curve([row["entropy"] for row in own], [row["nats_per_token"] for row in own])
        for name, own in {REAL: [real], **_by_order(sampled, "entropy")}.items()
    }
    plots.panels(path, {QUALITY: front}, x_label=VARIETY, title=f"{title} (better: down and right)")


def _drawn(rows: Sequence[Row]) -> tuple[Row, list[Row], str]:
    """The row of real text, the others that are drawn, and a title, which names what lies far outside."""
    real, *sampled = rows
    title = f"{real['n']} samples of {real['length']} tokens"
    far = [row for row in sampled if row["entropy"] < FAR * real["entropy"]]
    if far and len(far) < len(sampled):
        sampled = [row for row in sampled if row not in far]
        names = ", ".join(f"{row['order']} ({row['nats_per_token']:.2f}, {row['entropy']:.2f})" for row in far)
        title += f"; outside: {names}"
    return real, sampled, title


def _by_order(rows: Sequence[Row], field: str) -> dict[str, list[Row]]:
    """The rows of each order, by a field."""
    names = dict.fromkeys(row["order"] for row in rows)
    return {name: sorted((row for row in rows if row["order"] == name), key=lambda row: row[field]) for name in names}
