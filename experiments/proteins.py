"""Order on a real pretrained masked model: residues of real antibodies are masked and filled in, in several orders.

Claim (Kim et al. 2025, section 4, of puzzles and text): the order in which tokens are revealed decides what a masked
model gets right. Here: which share of the masked residues of a chain a protein model recovers, by the order, the share
that is masked and the residues revealed in a step. All orders see the same masks, so that differences to the random
order are paired. 26M parameters take about 0.1 s of CPU time for a chain and a network call.

    python -m experiments.proteins recover --model DIR --sequences FILE.fasta
    python -m experiments.proteins recover --model DIR --sequences FILE.fasta --tokens-per-step 4 16 --limit 16
    python -m experiments.proteins recover --model DIR --sequences FILE.fasta --oracle random,margin --masked 50

DIR is a Hugging Face folder of a BertForMaskedLM with its vocab.txt, such as AntiBERTy's (docs/pretrained.md says how
to make it). Chains are cut behind their J region, since such models are trained on variable domains.
"""

import dataclasses
import pathlib
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from experiments.common import Results, Row, run, say, say_written
from mdm_jax.errors import InputError, shown
from mdm_jax.ranges import Count, Range, Seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mdm_jax.typing import Denoiser, Params

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
J_REGION = re.compile(r"WG.G.{7}|FG.G.{6}")
"""The last residues of a variable domain, heavy or light."""
FIRST, LAST = 80, 126
"""Where a J region may begin at the earliest, and end at the latest: with [CLS] and [SEP] these are 128 tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recover:
    """Mask residues of real sequences, fill them in in several orders, and compare with the truth."""

    model: pathlib.Path
    """a Hugging Face folder of a masked protein model, with vocab.txt"""
    sequences: pathlib.Path
    """a FASTA file of antibody chains"""
    limit: Count = 64
    """the number of different variable domains, drawn at random from those of the file"""
    masked: tuple[Annotated[int, Range(1, 100)], ...] = (15, 30, 50, 80)
    """the shares of residues that are masked, in percent; the smaller set is part of the larger"""
    tokens_per_step: tuple[Count, ...] = (1, 2, 4, 8)
    """how many residues are revealed in a step"""
    oracle: str = "random,left_to_right,top_prob,margin,neg_entropy"
    """the orders, with commas"""
    batch_size: Count = 16
    """sequences in a batch"""
    seed: Seed = 0
    """of the choice of sequences, the masks and the random order"""
    out: pathlib.Path = pathlib.Path("runs/proteins")
    """folder of results.json and the pictures"""


def recover(flags: Recover) -> None:
    """Adds a row for each order, share and number of tokens per step. The same command goes on after the last share."""
    from mdm_jax.training.lock import locked

    with locked(flags.out):
        _recover(flags)


def _recover(flags: Recover) -> None:
    import functools
    import zlib

    import numpy as np

    from experiments.journal import Journal
    from experiments.oracles import oracle_named
    from mdm_jax.loading import identity
    from mdm_jax.models.kinds import make_denoiser
    from mdm_jax.progress import Bar

    results = Results("proteins", "recover", out=flags.out, seed=flags.seed)
    oracles = {name: oracle_named(name) for name in flags.oracle.split(",")}
    ids, domains = read_vocabulary(flags.model), variable_domains(flags.sequences)
    model = _loaded(flags.model, ids)
    rng = np.random.default_rng(flags.seed)
    chosen = [domains[i] for i in rng.permutation(len(domains))[: flags.limit]]
    rows = [[ids["[CLS]"], *map(ids.__getitem__, domain), ids["[SEP]"]] for domain in chosen]
    orders = [rng.permutation(len(row) - 2) + 1 for row in rows]
    network = make_denoiser(dataclasses.replace(model.config, pad_id=ids["[PAD]"]))
    fill = functools.partial(recovered, network, model.params, rows, ids=ids, batch_size=flags.batch_size)
    say(f"{len(domains)} different variable domains in {flags.sequences}; {len(rows)} of them are masked")
    head = {"model": identity(flags.model), "seed": flags.seed, "oracle": flags.oracle}
    journal = Journal(flags.out, head | {"chains": zlib.crc32(" ".join(chosen).encode())}, None)
    cells = [(share, k) for share in flags.masked for k in flags.tokens_per_step]
    for share, k in Bar(cells, desc="shares and steps"):
        masks = [order[: max(1, round(share / 100 * len(order)))] for order in orders]
        compare = functools.partial(_compared, functools.partial(fill, masks, seed=flags.seed), oracles, k)
        head = {"masked": share / 100, "tokens_per_step": k, "residues": sum(map(len, masks))}
        for row in journal.rows(f"{share}% masked, {k} a step", compare):
            results.add(**head, **row)
    results.finish(seconds=journal.seconds, fields={"domains": len(domains)})
    say_written(*_pictures(flags.out, results.rows))


def _compared(fill: Any, oracles: dict[str, Any], k: int) -> list[Row]:
    """A row for each order, with its difference to the random one if that comes first."""
    from mdm_jax import PerStep
    from mdm_jax.evaluation.intervals import mean_interval

    found: list[Row] = []
    shares: dict[str, Any] = {}
    for name, oracle in oracles.items():
        begin = time.process_time()
        shares[name], nfe = fill(oracle=oracle, selector=PerStep(k))
        number = len(shares[name])
        row = {"oracle": name, "n": number, "nfe": nfe, "recovered": float(shares[name].mean())}
        row["recovered_ci"] = mean_interval(shares[name])
        if "random" in shares and name != "random":
            difference = shares[name] - shares["random"]
            row |= {"minus_random": float(difference.mean()), "minus_random_ci": mean_interval(difference)}
        found.append(row | {"cpu_seconds": round(time.process_time() - begin, 1)})
    return found


def read_fasta(path: pathlib.Path) -> list[str]:
    """The sequences of a FASTA file.

    Raises:
      InputError: it cannot be read, or is no FASTA file.
    """
    from mdm_jax.files import read_bytes

    found: list[str] = []
    for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
        if line.startswith(">"):
            found.append("")
        elif line.strip():
            if not found or not re.fullmatch(r"[A-Za-z*-]+", line.strip()):
                raise InputError(
                    f"{path}:{number} is {shown(line)}, no line of a FASTA file: > and a name, then letters"
                )
            found[-1] += line.strip().upper()
    return found


def variable_domains(path: pathlib.Path) -> list[str]:
    """The different variable domains of a FASTA file's chains, in the order of the alphabet.

    A chain without a J region where one must be, or with a letter that is no residue, is left out.

    Raises:
      InputError: as `read_fasta`; or no chain is left.
    """
    cut = {chain[: found.end()] for chain in read_fasta(path) if (found := J_REGION.search(chain, FIRST))}
    domains = sorted(domain for domain in cut if len(domain) <= LAST and set(domain) <= set(RESIDUES))
    if not domains:
        raise InputError(f"{path} holds no antibody chain: none has a J region such as WGQGTLVTVSS")
    return domains


def read_vocabulary(folder: pathlib.Path) -> dict[str, int]:
    """The ids of tokens, by the vocab.txt in a model's folder.

    Raises:
      InputError: it cannot be read, or lacks a residue or a special token.
    """
    from mdm_jax.files import read_bytes

    path = folder / "vocab.txt"
    ids = {token: i for i, token in enumerate(read_bytes(path, most=1 << 24).decode("utf-8", "replace").split())}
    lacking = [token for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]", *RESIDUES) if token not in ids]
    if lacking:
        raise InputError(f"{path} lacks {', '.join(lacking)}: it is not the vocabulary of a protein model")
    return ids


def _loaded(folder: pathlib.Path, ids: dict[str, int]) -> Any:
    """The model; InputError unless it is a masked one that has the ids and takes a variable domain."""
    import mdm_jax
    from mdm_jax.models.config import TransformerConfig

    model = mdm_jax.load(folder)
    fits = isinstance(model.config, TransformerConfig) and not model.config.causal
    if not fits or model.config.num_tokens < len(ids) or model.config.max_length < LAST + 2:
        raise InputError(f"{folder} holds no masked model of {len(ids)} tokens and {LAST + 2} positions at least")
    return model


def recovered(
    network: "Denoiser",
    params: "Params",
    rows: "list[list[int]]",
    masks: "list[NDArray[np.int64]]",
    *,
    ids: dict[str, int],
    oracle: Any,
    selector: Any,
    batch_size: int,
    seed: int,
) -> "tuple[NDArray[np.float64], float]":
    """The share of masked positions of each row that are filled in rightly, [N], and network calls per batch."""
    import functools

    import numpy as np

    import mdm_jax
    from mdm_jax.evaluation.prompts import fill_sequences

    truth = [np.asarray(row, np.int32) for row in rows]
    given = [row.copy() for row in truth]
    for row, mask in zip(given, masks, strict=True):
        row[mask] = ids["[MASK]"]
    decode = functools.partial(
        mdm_jax.sample,
        network,
        params,
        mask_id=ids["[MASK]"],
        oracle=oracle,
        selector=selector,
        temperature=0.0,
    )
    filled = fill_sequences(decode, given, pad_id=ids["[PAD]"], batch_size=batch_size, seed=seed, max_length=LAST + 2)
    right = zip(filled.rows, truth, masks, strict=True)
    return np.array([(row.tokens == true)[mask].mean() for row, true, mask in right]), filled.nfe


def _pictures(folder: pathlib.Path, rows: list[Row]) -> list[pathlib.Path]:
    """A picture for each number of tokens per step."""
    paths = []
    for k in dict.fromkeys(row["tokens_per_step"] for row in rows):
        paths.append(folder / f"recovered-{k}.png")
        plot(paths[-1], [row for row in rows if row["tokens_per_step"] == k])
    return paths


def plot(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws recovered residues against the share masked, by order, at one number of tokens per step."""
    from experiments.commands.curves import grouped
    from mdm_jax.report import plots

    plots.curves(
        path,
        grouped([row | {"percent": round(100 * row["masked"])} for row in rows], "percent", "recovered"),
        x_label="residues masked (%)",
        y_label="masked residues recovered (%)",
        title=f"{rows[0]['n']} antibody domains, {rows[0]['tokens_per_step']} residues a step, with 95% intervals",
    )


COMMANDS = {"recover": (Recover, "experiments.proteins:recover")}

if __name__ == "__main__":
    run("proteins")
