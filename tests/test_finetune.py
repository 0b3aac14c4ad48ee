"""Fine-tuning: examples as they are trained on, lines that are none, and runs that learn a format."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from commands import assert_refused, rows, run
from hub import FAMILIES, random_tensors, write
from languages import END, MASK, write_model, write_tokenizer

import mdm_jax
from experiments.commands.finetune import planned
from experiments.finetune import Train
from mdm_jax.errors import InputError
from mdm_jax.loading import Model, export
from mdm_jax.models import kinds
from mdm_jax.models.config import TransformerConfig
from mdm_jax.text.answers import read_examples, to_arrays
from mdm_jax.text.tokenizer import read_tokenizer
from mdm_jax.training.every_loop import EveryLoop
from mdm_jax.training.objectives import masked_loss

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

WORDS = ["the", "cat", "sat", "on", "def", "f"]
CONFIG = TransformerConfig(
    vocab_size=280, num_extra_tokens=2, max_length=12, num_layers=1, num_heads=2, width=16, mlp_width=32
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder as Hugging Face has LLaDA's, of random weights, and a tokenizer in it."""
    own, folder = (tmp_path_factory.mktemp(name) for name in ("own", "base"))
    fields = {"pad_id": None, "init_std": 0.25}
    model = mdm_jax.load(write_model(own, **fields))
    export(Model(*model, {"mask_token_id": MASK, "eos_token_id": END}), folder, format="huggingface")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def words(base):
    return read_tokenizer(base)


def write_lines(folder, lines, name="data.jsonl"):
    path = folder / name
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def arrays(folder, lines, words=None, *, config=CONFIG, mask_id=MASK):
    return to_arrays(read_examples(write_lines(folder, lines)), words, config, mask_id=mask_id, end_id=END)


def test_answer_and_the_ends_behind_it_are_free_and_the_prompt_is_given(tmp_path):
    found = arrays(tmp_path, [{"prompt": [7, 8], "answer": [9]}, "", {"prompt": [], "answer": [10, 11, 12, 13]}])
    assert found["tokens"].tolist() == [[7, 8, 9, END, END], [10, 11, 12, 13, END]]
    assert found["is_prompt"].tolist() == [[True, True, False, False, False], [False] * 5]


def test_causal_model_predicts_the_first_end_and_none_behind_it(tmp_path):
    lines = [{"prompt": [7, 8], "answer": [9]}, {"prompt": [7], "answer": [10, 11, 12, 13]}]
    found = arrays(tmp_path, lines, mask_id=None)
    assert found["tokens"].tolist() == [[7, 8, 9, END, END, END], [7, 10, 11, 12, 13, END]]
    assert found["is_prompt"].tolist() == [[True, True, False, False, True, True], [True, *[False] * 5]]


def test_texts_and_conversations_are_trained_on_as_generate_lays_them_out(tmp_path, words):
    lines = [{"prompt": "the cat", "answer": " sat"}, talk("the cat", " sat")]
    found = arrays(tmp_path, lines, words)
    given = [found["tokens"][i][found["is_prompt"][i]].tolist() for i in range(2)]
    assert given == [words.encode("the cat"), words.chat(lines[1]["messages"][:1])]
    for tokens, is_prompt in zip(found["tokens"], found["is_prompt"], strict=True):
        assert words.decode(tokens[~is_prompt]) == " sat"
        assert tokens[~is_prompt].tolist().count(END) >= 1


GOOD = {"prompt": "the", "answer": "cat"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "data.jsonl holds no example"),
        ([GOOD, "", "{"], "data.jsonl:3 is no JSON"),
        (
            [GOOD, {"prompt": "the"}],
            "data.jsonl:2 is {'prompt': 'the'}; wanted is an object with prompt and answer, or",
        ),
        (["[1]"], "data.jsonl:1 is [1]; wanted is an object"),
        ([{"prompt": "the", "answer": ""}], "data.jsonl:1: the answer is empty"),
        ([{"prompt": [5], "answer": []}], "data.jsonl:1: the answer is empty"),
        ([{"prompt": "the", "answer": 5}], "data.jsonl:1: the answer must be a text or token ids, got 5"),
        ([{"prompt": None, "answer": "a"}], "data.jsonl:1: the prompt must be a text or token ids, got None"),
        ([{"prompt": [5], "answer": [5.5]}], "data.jsonl:1: a prompt's token ids must be whole numbers from 0"),
        (
            [{"messages": [{"role": "user", "content": "a"}]}],
            "data.jsonl:1: messages must be at least two, and the last",
        ),
        ([{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}], "data.jsonl:1: a conversation is"),
        (
            [{"messages": ["a", {"role": "assistant"}]}],
            "data.jsonl:1: the answer must be a text or token ids, got None",
        ),
        ([{"prompt": "the <mask>", "answer": "cat"}], "data.jsonl:1 holds the mask token, 1, which would be filled in"),
        ([{"prompt": [5], "answer": [6, MASK]}], "data.jsonl:1 holds the mask token, 1"),
        ([{"prompt": [282], "answer": [6]}], "data.jsonl:1 holds the id 282; the model's ids run from 0 to 281"),
        (
            [{"prompt": [281], "answer": [280]}],
            "data.jsonl:1: the answer holds the id 280, which the model never predi",
        ),
        (
            [GOOD, {"prompt": [5] * 11, "answer": [6]}, {"prompt": [5] * 5, "answer": [6] * 7}],
            "data.jsonl:2 is 13 tokens long with the end of its answer, and the model takes 12; 2 of 3 lines are",
        ),
    ],
)
def test_line_that_is_no_example_is_named_by_file_and_line(tmp_path, words, lines, said):
    with pytest.raises(InputError, match=re.escape(said)):
        arrays(tmp_path, lines, words)


def test_text_without_a_tokenizer_and_a_prompt_of_nothing_for_a_causal_model_are_named_too(tmp_path):
    with pytest.raises(InputError, match=r"data.jsonl:1: a prompt is text, and there is no tokenizer"):
        arrays(tmp_path, [GOOD])
    with pytest.raises(InputError, match=r"data.jsonl:1: the prompt is empty; a causal model goes on behind"):
        arrays(tmp_path, [{"prompt": [], "answer": [5]}], mask_id=None)


def test_looped_model_is_tuned_at_every_loop(tmp_path):
    config = kinds.adapted(CONFIG, {"kind": "looped_transformer", "num_loops": 3})
    params, denoiser = kinds.init_params(config, jax.random.key(0)), kinds.make_denoiser(config)
    model = Model(config, params, denoiser, {"mask_token_id": MASK, "eos_token_id": END})
    lines = [{"prompt": [7, 8], "answer": [9, 10]}] * 2
    flags = Train(model=tmp_path, data=write_lines(tmp_path, lines))
    plan = planned(flags, model, None, [read_examples(flags.data)], flags.mesh.make())
    batch = {name: jnp.asarray(array) for name, array in plan.data.items()}
    nats = {
        name: loss.nll(denoiser.features, params, loss.draw(jax.random.key(1), batch), paired=True)
        for name, loss in (("tuned", plan.loss), ("every", masked_loss(MASK, EveryLoop())), ("last", masked_loss(MASK)))
    }
    np.testing.assert_array_equal(nats["tuned"], nats["every"])
    assert (nats["tuned"] != nats["last"]).all()


def said_by(folder):
    """What a model says to words that it was not trained on."""
    prompts = ["say rat:", "say mat:"]
    found = mdm_jax.generate(mdm_jax.load(folder), prompts, tokenizer=folder, num_new=6)
    return [one.text for one in found]


def examples(folder, answer):
    """Whatever is said is to be answered so, in texts and in conversations."""
    lines = [{"prompt": f"say {one}{other}:", "answer": answer} for one in WORDS for other in WORDS]
    lines += [talk(word, answer) for word in WORDS[:2]]
    return write_lines(folder, lines)


def talk(asked, answer):
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def train(folder, *argv):
    run("finetune", "train", "--out", folder, "--batch-size", "12", "--steps", "80", *argv)
    [row] = rows(folder)
    assert row["nats_per_token"] < 0.5 < 2 < row["nats_per_token_before"]


@pytest.mark.slow
def test_format_is_learned_whole_and_another_one_on_top_of_it_by_adapters(base, tmp_path):
    assert [text for text in said_by(base) if "ok" in text] == []
    whole, adapted = tmp_path / "whole", tmp_path / "adapted"
    train(whole, "--model", base, "--data", examples(tmp_path, "[ok]"), "--learning-rate", "3e-2")
    assert said_by(whole) == ["[ok]"] * 2
    train(
        adapted, "--model", whole, "--data", examples(tmp_path, "(ok)"), "--learning-rate", "3e-2", "--lora-rank", "8"
    )
    assert said_by(adapted) == ["(ok)"] * 2
    export(adapted, tmp_path / "theirs", format="huggingface")
    ours, theirs = mdm_jax.load(adapted), mdm_jax.load(tmp_path / "theirs")
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert (theirs.task["mask_token_id"], theirs.task["eos_token_id"]) == (MASK, END)


@pytest.mark.slow
def test_command_says_in_one_line_what_does_not_fit(base, tmp_path):
    causal = tmp_path / "causal"
    write(causal, FAMILIES["llama"][0] | {"eos_token_id": 2}, random_tensors(FAMILIES["llama"][1]))
    texts = write_lines(tmp_path, [GOOD], "texts.jsonl")
    ids = write_lines(tmp_path, [{"prompt": [5], "answer": [6]}], "ids.jsonl")
    bad = write_lines(tmp_path, [{"prompt": [5], "answer": [6]}, {"prompt": [5]}], "bad.jsonl")
    bare = tmp_path / "bare"
    write(bare, FAMILIES["smdm"][0], random_tensors(FAMILIES["smdm"][1]))

    def argv(model, data, *more):
        return ["train", "--model", model, "--data", data, "--out", tmp_path / "out", "--batch-size", "1", *more]

    cases = [
        (argv(base, bad), f"{bad}:2 is "),
        (argv(base, texts, "--batch-size", "2"), f"--batch-size 2 is more examples than {texts} has, 1"),
        (argv(base, texts, "--lora-rank", "0"), "--lora-rank must be a whole number, at least 1"),
        (argv(base, texts, "--lora-rank", "2", "--param-dtype", "float32"), "--param-dtype is for training whole"),
        (argv(base, texts, "--end-id", str(MASK)), f"the id {MASK} cannot end an answer"),
        (argv(base, texts, "--best-metric", "held_out_loss_per_token"), "--best-metric wants --held-out"),
        (
            argv(base, texts, "--best-metric", "foo", "--held-out", texts),
            "--best-metric foo is none of the evaluation's",
        ),
        (argv(base, texts, "--loss", "quality"), f"is for a model with a quality head, and {base} has none"),
        (argv(causal, ids, "--mask-id", "4", "--end-id", "2"), f"--mask-id is for masked models, and {causal} is not"),
        (argv(tmp_path / "none", texts), f"there is no folder {tmp_path / 'none'}"),
        (argv(causal, texts), "there is no tokenizer"),
        (argv(causal, ids, "--loss", "subset"), f"--loss subset is for masked models, and {causal} is not"),
        (argv(causal, ids, "--tokenizer", base), "it is the tokenizer of another model"),
        (argv(bare, ids, "--end-id", "2"), "the mask token's id is not known"),
        (argv(bare, ids, "--mask-id", "40"), "the token that ends an answer is not known: give --end-id"),
    ]
    assert_refused("finetune", cases)


@pytest.mark.slow
def test_causal_model_is_trained_from_left_to_right_and_evaluated_on_a_file_of_its_own(tmp_path):
    model = tmp_path / "causal"
    write(model, FAMILIES["llama"][0] | {"eos_token_id": 2}, random_tensors(FAMILIES["llama"][1]))
    data = write_lines(tmp_path, [{"prompt": [i], "answer": [7, 8, 9]} for i in range(10, 18)])
    held_out = write_lines(tmp_path, [{"prompt": [30], "answer": [7, 8, 9]}], "held-out.jsonl")
    argv = ["--model", model, "--data", data, "--held-out", held_out, "--out", tmp_path / "run", "--batch-size", "8"]
    run("finetune", "train", *argv, "--steps", "40", "--learning-rate", "2e-2")
    assert [row["dataset"] for row in rows(tmp_path / "run")] == ["data.jsonl", "held-out.jsonl"]
    [found] = mdm_jax.generate(mdm_jax.load(tmp_path / "run"), [[31]], num_new=6)
    assert found.tokens == [7, 8, 9]
