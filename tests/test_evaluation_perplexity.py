"""Perplexity under a judge, and the diversity that stands beside it."""

import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import toy
from hub import GPT2, LLAMA, write
from languages import write_model, write_tokenizer
from test_pretrained_real import stories, words

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.evaluation import diversity
from mdm_jax.evaluation.intervals import mean_interval, ratio_interval
from mdm_jax.evaluation.perplexity import judged, token_nats
from mdm_jax.text.tokenizer import read_tokenizer

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
TEXTS = ["the cat sat on the mat", "a rat", "def f(x): return x, the hat", "x", "", "Größe → 3"]

ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
"""Two programs of one float32 network: some hundred roundings (2^-24) of nats, and of logits of up to about 10."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A causal model that takes 16 tokens, and its tokenizer, which begins no text with a token."""
    folder = tmp_path_factory.mktemp("judge")
    write_tokenizer(folder)
    return write_model(folder, causal=True, pad_id=None, max_length=16)


@pytest.fixture(scope="module")
def judge(folder):
    return mdm_jax.load(folder)


def by_hand(judge, ids):
    """-log p of each token but the first, from all logits of the sequence alone, in float64."""
    log_p = toy.log_softmax(judge.denoiser(judge.params, jnp.asarray([ids])))[0]
    return -log_p[np.arange(len(ids) - 1), ids[1:]]


def test_tokens_are_scored_as_one_sequence_alone_is(judge):
    sequences = [[5, 9, 30, 31, 6], [7, 8], [100], [], [9] * 16]
    found = token_nats(judge, sequences, batch_size=2)
    assert [len(own) for own in found] == [4, 1, 0, 0, 15]
    for ids, own in zip(sequences, found, strict=True):
        if len(ids) > 1:
            np.testing.assert_allclose(own, by_hand(judge, ids), **ROUNDING)


def test_long_text_is_read_in_pieces_that_share_a_token(judge):
    ids = np.random.default_rng(0).integers(5, 250, 40).tolist()
    pieces = [by_hand(judge, ids[first : first + 16]) for first in (0, 15, 30)]
    np.testing.assert_allclose(token_nats(judge, [ids])[0], np.concatenate(pieces), **ROUNDING)


def test_first_token_and_its_bytes_count_only_behind_a_token_that_begins_every_text(folder, judge):
    tokenizer = read_tokenizer(folder)
    plain = judged(judge, tokenizer, TEXTS)
    ids = [tokenizer.encode(text) for text in TEXTS]
    assert plain.tokens.tolist() == [max(len(own) - 1, 0) for own in ids]
    behind = [text.encode()[len(tokenizer.decode(own[:1]).encode()) :] for text, own in zip(TEXTS, ids, strict=True)]
    assert plain.bytes.tolist() == [len(text) for text in behind]
    starting = read_tokenizer(folder)
    starting.backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<user> $A <end>", special_tokens=[("<user>", 3), ("<end>", 0)]
    )
    begun = judged(judge, starting, TEXTS)
    assert begun.tokens.tolist() == [len(own) for own in ids]
    assert begun.bytes.tolist() == [len(text.encode()) for text in TEXTS]
    np.testing.assert_allclose(begun.nats[0], by_hand(judge, [3, *ids[0]]).sum(), **ROUNDING)


def test_row_is_of_all_texts_together(folder, judge):
    found = judged(judge, read_tokenizer(folder), TEXTS)
    mean = found.nats.sum() / found.tokens.sum()
    assert found.fields["nats_per_token"] == pytest.approx(mean)
    assert found.fields["perplexity"] == pytest.approx(math.exp(mean))
    assert found.fields["nats_per_byte"] == pytest.approx(found.nats.sum() / found.bytes.sum())
    low, high = found.fields["nats_per_token_ci"]
    assert low < mean < high


def test_interval_of_a_ratio_is_that_of_a_mean_where_weights_are_equal_and_holds_the_truth_elsewhere():
    values = np.random.default_rng(0).normal(3, 1, 50)
    np.testing.assert_allclose(ratio_interval(6 * values, np.full(50, 6))[1:], mean_interval(values))
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        weights = rng.integers(1, 20, 60)
        _, low, high = ratio_interval(weights * 2 + np.sqrt(weights) * rng.normal(size=60), weights)
        hits += low < 2 < high
    assert 0.91 < hits / 400 < 0.98


@pytest.mark.parametrize("fields", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_perplexity_is_that_of_transformers(fields, tmp_path):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**fields | {"vocab_size": 280})
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    words = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    found = judged(mdm_jax.load(tmp_path), read_tokenizer(tmp_path), TEXTS)
    for text, nats, number in zip(TEXTS, found.nats, found.tokens, strict=True):
        ids = torch.tensor([words(text)["input_ids"]], dtype=torch.long)
        if ids.shape[1] > 1:
            with torch.no_grad():
                loss = float(theirs(ids, labels=ids).loss)
            assert math.exp(nats / number) == pytest.approx(math.exp(loss), rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the files in shared/data are not there")
def test_real_judge_prefers_a_story_to_its_words_shuffled(tmp_path):
    write(tmp_path, *stories(SHARED / "stories260K.bin"))
    pieces = words(SHARED / "tok512.bin")
    story = "Once upon a time, there was a little girl named Lily. She loved to play"
    shuffled = " ".join(np.random.default_rng(0).permutation(story.split()))
    found = [
        token_nats(mdm_jax.load(tmp_path), [[1, *greedy(pieces, " " + text)]])[0].mean() for text in (story, shuffled)
    ]
    assert found[0] < 0.3
    assert found[1] > 4


def greedy(pieces, text):
    """Token ids of a text, the longest piece at a time, which is near enough to what the model has learned."""
    ids = []
    while text:
        size, token = max((len(piece), i) for i, piece in enumerate(pieces) if text.startswith(piece) and i > 2)
        ids.append(token)
        text = text[size:]
    return ids


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"texts": ["", "x"]}, "none of 2 texts has a token to score"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_wrong_argument_is_named(folder, judge, change, words):
    options = {"judge": judge, "tokenizer": read_tokenizer(folder), "texts": TEXTS} | change
    with pytest.raises(InputError, match=words):
        judged(**options)


def test_judge_that_is_not_causal_and_foreign_ids_are_refused(judge, tmp_path):
    masked = mdm_jax.load(write_model(tmp_path, vocab_size=24))
    with pytest.raises(InputError, match="must be a causal model"):
        token_nats(masked, [[1, 2]])
    with pytest.raises(InputError, match="text 2 holds the id 280"):
        token_nats(judge, [[1, 2], [5, 280]])


def test_diversity_of_samples_by_hand():
    assert diversity.entropy([7, 7, 7, 7]) == 0
    assert diversity.entropy([1, 1, 2, 3]) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert diversity.entropy(np.arange(9)) == pytest.approx(math.log(9))
    samples = [[1, 2, 1, 2], [1, 2, 3]]
    assert diversity.distinct(samples, 1) == 3 / 7
    assert diversity.distinct(samples, 2) == 3 / 5
    assert diversity.distinct(samples, 4) == 1
    assert math.isnan(diversity.distinct(samples, 5))
    assert diversity.repeated([1, 2, 1, 2, 1], 2) == 0.5
    assert diversity.repeated([1, 2], 4) == 0


@pytest.mark.parametrize(
    ("tokens", "longest"),
    [([], 0), ([4], 0), ([4, 5], 0), ([4, 4], 1), ([4, 4, 4, 4], 3), ([1, 2, 3, 9, 1, 2, 3, 1, 2], 3)],
)
def test_longest_repeat_is_the_longest_that_stands_twice(tokens, longest):
    assert diversity.longest_repeat(tokens) == longest


def test_overlap_is_the_front_at_its_ends_and_its_middle():
    samples, texts = [[1, 2, 3, 1, 2]], [[1, 2, 4], [3, 1, 5]]  # pairs 12 23 31 12 and 12 24 31 15
    found = diversity.overlap(samples, texts)
    assert found == (3 / 4, 2 / 4, 1 / 4 + 1 / 4)
    p, q = np.array([2, 1, 1, 0, 0]) / 4, np.array([1, 0, 1, 1, 1]) / 4
    for slope, value in ((1e-6, found.precision), (1e6, found.recall), (1.0, found.both)):
        recall = np.minimum(slope * p, q).sum()
        assert (recall / slope if slope <= 1 else recall) == pytest.approx(value)
    assert diversity.overlap(texts, texts) == (1, 1, 1)
    with pytest.raises(InputError, match="must hold 2 tokens"):
        diversity.overlap([[1]], texts)


def test_repetition_shows_in_every_field():
    loops = [np.tile([20, 30], 8)] * 4
    mixed = list(np.random.default_rng(0).integers(5, 250, (4, 16)))
    found, other = diversity.describe(loops, mixed), diversity.describe(mixed, mixed)
    names = ("entropy", "distinct_1", "distinct_4", "precision", "recall", "overlap")
    assert all(found[name] < other[name] for name in names)
    assert found["repeated"] > other["repeated"]
    assert found["longest_repeat"] == 14
    assert "recall" not in diversity.describe(loops)
