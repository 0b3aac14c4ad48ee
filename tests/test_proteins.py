"""Recovery of masked residues: which chains are taken, what is counted, and that orders see the same masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from commands import assert_refused, rows, run
from hub import BERT, BERT_SHAPES, D, random_tensors, write

import mdm_jax
from experiments.proteins import RESIDUES, read_vocabulary, recovered, variable_domains
from mdm_jax import oracles
from mdm_jax.errors import InputError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *RESIDUES]
IDS = {token: i for i, token in enumerate(VOCABULARY)}
V = len(VOCABULARY)

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)


def chain(length, seed, end="WGQGTLVTVSS"):
    """Residues in which no J region begins, and one behind them."""
    rng = np.random.default_rng(seed)
    return "".join(rng.choice(list(RESIDUES.replace("G", "")), length - len(end))) + end


def write_fasta(path, chains):
    path.write_text("".join(f">chain {i}\n{c[:60]}\n{c[60:]}\n" for i, c in enumerate(chains)))
    return path


def test_chains_are_cut_behind_the_j_region_and_each_is_taken_once(tmp_path):
    heavy, light = chain(110, 0), chain(101, 1, end="FGGGTKLEIK")
    others = [
        chain(110, 2)[:-5],
        chain(110, 3).replace("WGQG", "WAQG"),
        "X" + chain(110, 4)[1:],
        chain(127, 5),
        chain(85, 6),
    ]
    path = write_fasta(tmp_path / "chains.fasta", [heavy + "ASTKGPSVFPLAPSS", heavy, light + "RTVAAPS", *others])
    assert variable_domains(path) == sorted([heavy, light])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ACD\n", "file:1 is 'ACD', no line of a FASTA file"),
        (">one\nACD 1\n", "file:2 is 'ACD 1', no line of a FASTA file"),
        ("", "file holds no antibody chain"),
        (f">one\n{'A' * 120}\n", "file holds no antibody chain: none has a J region such as WGQGTLVTVSS"),
    ],
)
def test_file_that_holds_no_chains_is_named(tmp_path, text, words):
    (tmp_path / "file").write_text(text)
    with pytest.raises(InputError, match=words):
        variable_domains(tmp_path / "file")


def test_vocabulary_that_lacks_a_residue_is_named(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(token for token in VOCABULARY if token not in ("W", "[MASK]")))
    with pytest.raises(InputError, match=r"vocab.txt lacks \[MASK\], W: it is not the vocabulary of a protein model"):
        read_vocabulary(tmp_path)


def always(residue):
    """A network that predicts one residue everywhere."""

    def network(params, tokens):
        return jnp.broadcast_to(10.0 * jax.nn.one_hot(IDS[residue], V), (*tokens.shape, V))

    return network


def next_in_the_alphabet(params, tokens):
    """A network that knows the residue behind a known one, and takes any other for an alanine."""
    first, number = IDS["A"], len(RESIDUES)
    before = jnp.roll(tokens, 1, axis=1)
    known = jnp.where(before >= first, first + (before - first + 1) % number, first)
    return 10.0 * jax.nn.one_hot(known, V)


def of(text):
    return [IDS["[CLS]"], *(IDS[letter] for letter in text), IDS["[SEP]"]]


def found(network, texts, masks, oracle, k=1):
    selector, sizes = mdm_jax.PerStep(k), [np.asarray(mask) for mask in masks]
    options = {"ids": IDS, "oracle": oracle, "selector": selector, "batch_size": 8, "seed": 0}
    return recovered(network, None, [of(text) for text in texts], sizes, **options)


def test_share_is_of_the_masked_positions_of_each_row_alone():
    shares, nfe = found(always("A"), ["AAAACC", "CACA", "WWWWWWWW"], [[1, 2, 5, 6], [2], [1, 8]], oracles.random, k=2)
    assert shares.tolist() == [0.5, 1.0, 0.0]
    assert nfe == 2


def test_order_decides_where_a_residue_follows_from_the_one_before_it():
    text = RESIDUES * 2
    masks = [np.arange(2, 40)]
    in_order, calls = found(next_in_the_alphabet, [text], masks, oracles.left_to_right)
    assert in_order.tolist() == [1.0]
    assert calls == 38
    assert found(next_in_the_alphabet, [text], masks, oracles.random)[0][0] < 0.9
    at_once = found(next_in_the_alphabet, [text], masks, oracles.left_to_right, k=38)[0]
    assert at_once.tolist() == [2 / 38]  # the first of them, and the alanine


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    shapes = BERT_SHAPES | {"bert.embeddings.position_embeddings.weight": (160, D)}
    write(folder, BERT | {"max_position_embeddings": 160}, random_tensors(shapes))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return folder


@pytest.mark.slow
def test_command_compares_orders_on_the_same_masks(model, tmp_path):
    chains = write_fasta(tmp_path / "chains.fasta", [chain(100 + i, i) for i in range(5)])
    argv = ["--model", model, "--sequences", chains, "--limit", "3", "--oracle", "random,left_to_right"]
    done = run(
        "proteins", "recover", *argv, "--masked", "10", "50", "--tokens-per-step", "16", "--out", tmp_path / "out"
    )
    table = rows(tmp_path / "out")
    assert [(row["masked"], row["oracle"]) for row in table] == [
        (share, name) for share in (0.1, 0.5) for name in ("random", "left_to_right")
    ]
    for random, other in zip(table[::2], table[1::2], strict=True):
        assert random["residues"] == other["residues"]
        assert "minus_random" not in random
        np.testing.assert_allclose(other["minus_random"], other["recovered"] - random["recovered"], atol=1e-9)
        low, high = other["minus_random_ci"]
        assert low <= other["minus_random"] <= high
    assert table[0]["nfe"] == 1 < table[2]["nfe"] == 4
    assert "recovered-16.png" in done.stdout
    run("proteins", "recover", *argv, "--masked", "50", "--tokens-per-step", "16", "--out", tmp_path / "out")
    assert rows(tmp_path / "out") == table[2:], "what is done is not done again"


def test_command_says_in_one_line_what_does_not_fit(model, tmp_path):
    chains = write_fasta(tmp_path / "chains.fasta", [chain(100, 0)])
    short = tmp_path / "short"
    write(short, BERT, random_tensors(BERT_SHAPES))
    (short / "vocab.txt").write_text("\n".join(VOCABULARY))

    def argv(model, sequences, *more):
        return ["recover", "--model", model, "--sequences", sequences, "--out", tmp_path / "out", *more]

    cases = [
        (argv(model, tmp_path / "none"), f"{tmp_path / 'none'} cannot be read"),
        (argv(tmp_path, chains), "vocab.txt cannot be read"),
        (argv(short, chains), "holds no masked model of 25 tokens and 128 positions at least"),
        (argv(model, chains, "--masked", "101"), "--masked must be a whole number, at least 1 and at most 100"),
        (argv(model, chains, "--oracle", "best"), "unknown oracle 'best'"),
    ]
    assert_refused("proteins", cases)
