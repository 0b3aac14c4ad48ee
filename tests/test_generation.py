"""`generate`: the samplers behind prompts of every kind."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import toy
from languages import END, MASK, MODEL, USER, write_model, write_tokenizer

import mdm_jax
from mdm_jax import oracles
from mdm_jax.blocks import behind_end
from mdm_jax.correction import Remask, TakeBack
from mdm_jax.edits import Guided
from mdm_jax.errors import InputError
from mdm_jax.evaluation.likelihood import continuation
from mdm_jax.generation import hiding_unused
from mdm_jax.loading import Model
from mdm_jax.loop import Loop
from mdm_jax.models.decoder import make_decoder
from mdm_jax.sampling import Whole, decode_tokens
from mdm_jax.sharding import make_mesh
from mdm_jax.text.prompts import gaps, lay_out
from mdm_jax.text.special import end_ids_of, mask_id_of
from mdm_jax.text.tokenizer import read_tokenizer, rendered

PROMPTS = [[7, 8, 9], [20, 21, 22, 23, 24, 25, 26], [30, 31, 32]]

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder)
    return write_model(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return read_tokenizer(folder)


@pytest.fixture(scope="module")
def model(folder):
    return mdm_jax.load(folder)


@pytest.fixture(scope="module")
def unpadded(tmp_path_factory):
    """The same model, that hides no padding."""
    return mdm_jax.load(write_model(tmp_path_factory.mktemp("unpadded"), pad_id=None))


def keys(number, seed=0):
    return jax.random.fold_in(jax.random.key(seed), number)[None]


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ["model", "unpadded"])
def test_each_prompt_of_a_batch_is_continued_as_if_alone_whether_padding_is_hidden_or_there_is_none(name, request):
    model = request.getfixturevalue(name)
    options = {"temperature": 1.0, "selector": mdm_jax.TopK(4)}
    found = mdm_jax.generate(model, PROMPTS, num_new=6, mask_id=MASK, seed=5, **options)
    for number, (prompt, got) in enumerate(zip(PROMPTS, found, strict=True)):
        x_init = jnp.asarray([[*prompt, *[MASK] * 6]])
        alone = mdm_jax.sample(model.denoiser, model.params, keys(number, 5), x_init, mask_id=MASK, **options)
        assert got.tokens == alone.tokens[0, -6:].tolist(), number
        assert got.reveal_step == alone.reveal_step[0, -6:].tolist(), number
        # of sums in another order, at most some 100 roundings: 100 * 2^-24 = 6e-6
        np.testing.assert_allclose(sum(got.log_prob), alone.log_prob[0], rtol=1e-5)
        assert got.text is None


def test_ids_of_special_tokens_are_those_that_the_model_was_loaded_with_where_no_tokenizer_says_them(model):
    told = Model(*model, {"mask_token_id": MASK, "eos_token_id": [END]})
    assert mdm_jax.generate(told, [[5]], num_new=6, end="never") == mdm_jax.generate(
        model, [[5]], num_new=6, end="never", mask_id=MASK, end_ids=[END]
    )


def test_an_id_that_ends_a_text_must_be_one_of_the_model(model):
    num = model.config.num_tokens
    with pytest.raises(InputError, match=rf"an end_id is {num}, and the model has the ids 0 to {num - 1} alone"):
        mdm_jax.generate(model, [[5]], num_new=6, end="never", mask_id=MASK, end_ids=[END, num])


def decode_as_llada(denoiser, params, prompt, *, num_new, block, steps, guidance):
    """The loop of LLaDA's `generate.py` at temperature 0 with low-confidence remasking; the mask is never predicted."""
    network = jax.jit(denoiser)
    x = np.array([*prompt, *[MASK] * num_new])
    for first in range(len(prompt), len(x), block):
        for _ in range(steps):
            logits = np.array(network(params, x[None])[0], np.float64)
            if guidance:
                blind = np.where(np.arange(len(x)) < len(prompt), MASK, x)
                other = np.array(network(params, blind[None])[0], np.float64)
                logits = other + (guidance + 1) * (logits - other)
            logits[:, MASK] = -np.inf
            probs = np.exp(logits - logits.max(-1, keepdims=True))
            probs /= probs.sum(-1, keepdims=True)
            sure = np.where(x == MASK, probs.max(-1), -np.inf)
            sure[first + block :] = -np.inf
            best = np.argsort(-sure)[: block // steps]
            x[best] = probs.argmax(-1)[best]
    return x[len(prompt) :].tolist()


@pytest.mark.thinned(2)
@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.slow
def test_blocks_begin_behind_the_prompt_and_guidance_hides_it_as_in_lladas_decoder(unpadded, model, guidance):
    options = {"num_new": 12, "oracle": oracles.token_prob, "selector": mdm_jax.TopK(2), "block_length": 4}
    for net in (unpadded, model):
        found = mdm_jax.generate(net, PROMPTS[:2], mask_id=MASK, guidance=guidance, **options)
        for prompt, got in zip(PROMPTS, found, strict=False):
            llada = decode_as_llada(net.denoiser, net.params, prompt, num_new=12, block=4, steps=2, guidance=guidance)
            assert got.tokens == llada


def test_gaps_are_filled_and_what_stands_between_them_stays(model, tokenizer):
    prompt = gaps(r"def f(x):[5]return x\[0]; [3] the cat")
    assert prompt == ["def f(x):", mdm_jax.Gap(5), "return x[0]; ", mdm_jax.Gap(3), " the cat"]
    [got] = mdm_jax.generate(model, [prompt], tokenizer=tokenizer, end="never")
    first, second = got.gaps
    assert got.text == f"def f(x):{first}return x[0]; {second} the cat"
    assert len(got.tokens) == len(got.reveal_step) == len(got.log_prob) == 8
    assert sorted(got.reveal_step) == list(range(8))
    assert END not in got.tokens


def test_text_ends_at_the_first_end_in_each_gap(model, tokenizer):
    prompt = ["the", mdm_jax.Gap(6), " cat"]
    [whole] = mdm_jax.generate(model, [prompt], tokenizer=tokenizer, end_ids=[])
    [cut] = mdm_jax.generate(model, [prompt], tokenizer=tokenizer, end_ids=[whole.tokens[2]])
    place = whole.tokens.index(whole.tokens[2])
    assert cut.tokens == whole.tokens[:place]
    assert cut.log_prob == whole.log_prob[:place]
    assert cut.text == f"the{cut.gaps[0]} cat"


def by_place(params, tokens):
    """A network whose predictions depend on the position alone."""
    return jnp.broadcast_to(params[None], (*tokens.shape, params.shape[-1]))


@dataclasses.dataclass(frozen=True)
class Leaning:
    """An oracle with a number, as a pytree."""

    lean: float

    def __call__(self, key, confidence):
        return confidence.top_prob + self.lean * jnp.arange(confidence.top_prob.shape[-1])[None]


jax.tree_util.register_dataclass(Leaning)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("oracle", [oracles.margin, oracles.with_noise(oracles.margin, 0.0), Leaning(0.0)])
def test_positions_that_would_end_the_text_come_last(oracle):
    sure = jnp.asarray([5.0, 1.0, 4.0, 2.0, 3.0])
    params = jnp.zeros((5, 4)).at[jnp.arange(5), jnp.asarray([3, 1, 3, 2, 1])].set(sure)
    last = oracles.with_last(oracle, [3])
    got = mdm_jax.sample(
        by_place, params, jax.random.key(0), jnp.full((1, 5), 4), mask_id=4, oracle=last, temperature=0.0
    )
    assert got.tokens[0].tolist() == [3, 1, 3, 2, 1]
    assert got.reveal_step[0].tolist() == [3, 2, 4, 1, 0]
    assert jnp.isfinite(got.log_prob).all()


@pytest.mark.thinned(2)
@pytest.mark.parametrize("block_length", [4, None])
def test_nothing_is_predicted_behind_the_end_of_a_gap(model, block_length):
    tokens = [1, 2, 3, 4, 1, 2, 3, 4]  # by position; 3 ends a text
    net = model._replace(
        denoiser=by_place, params=jnp.full((64, 7), -9.0).at[jnp.arange(8), jnp.array(tokens)].set(9.0)
    )
    options = {"mask_id": 6, "num_new": 7, "oracle": oracles.left_to_right, "block_length": block_length}
    [whole] = mdm_jax.generate(net, [[0]], **options)
    [ended] = mdm_jax.generate(net, [[0]], end_ids=[3], **options)
    assert (whole.tokens, whole.nfe) == (tokens[1:], 7)
    assert (ended.tokens, ended.reveal_step, ended.nfe) == ([2], [0], 2)
    [backwards] = mdm_jax.generate(net, [[0]], end_ids=[3], **options | {"oracle": from_right_to_left})
    assert (backwards.tokens, backwards.nfe) == ([2], 4 if block_length else 7)  # masks before it


@pytest.mark.parametrize(
    ("row", "closed"),
    [
        ("p a m e m", "....."),  # a mask before the end
        ("p a e m m", "...xx"),
        ("p e m b m p m e", "..x.x..."),  # the next gap goes on
        ("e m m p e m", ".xx..x"),
        ("E m m", "..."),  # an end in the prompt is none
    ],
)
def test_masks_behind_the_end_are_those_of_its_gap(row, closed):
    kinds = np.array(row.split())[None]
    found = behind_end(kinds == "m", kinds == "e", np.isin(kinds, list("mabe")))
    assert "".join("x" if one else "." for one in found[0]) == closed


def from_right_to_left(key, confidence):
    return -oracles.left_to_right(key, confidence)


@pytest.mark.parametrize(
    "selector",
    [
        mdm_jax.Klass(0.05, 1.0),
        *(pytest.param(one, marks=pytest.mark.slow) for one in (mdm_jax.Threshold(0.1), mdm_jax.EntropyBudget(2.0))),
        pytest.param(mdm_jax.Binomial(3), marks=pytest.mark.slow),
    ],
    ids=lambda selector: type(selector).__name__,
)
def test_every_selector_fills_in_what_sample_fills_in(model, selector):
    options = {"mask_id": MASK, "selector": selector, "temperature": 0.7}
    (found,) = mdm_jax.generate(model, [[20, 21, 22]], num_new=5, seed=2, **options)
    row = jnp.asarray([[20, 21, 22] + [MASK] * 5], jnp.int32)
    want = mdm_jax.sample(model.denoiser, model.params, keys(0, 2), row, **options)
    assert found.tokens == want.tokens[0].tolist()[-len(found.tokens) :]
    assert (want.tokens != MASK).all()


def test_suppressed_ids_never_come_and_top_p_leaves_the_nucleus_alone(model):
    probs = np.array([0.05, 0.5, 0.3, 0.1, 0.05])
    net = model._replace(denoiser=by_place, params=jnp.tile(jnp.log(jnp.asarray([*probs, 0.0, 0.0])), (64, 1)))

    def drawn(**options):
        found = mdm_jax.generate(net, [[5]], num_new=60, mask_id=6, temperature=1.0, **options)[0]
        return set(found.tokens), dict(zip(found.tokens, np.exp(found.log_prob), strict=True))

    options = {"selector": mdm_jax.PerStep(60)}
    tokens, prob_of = drawn(**options, top_p=0.6)
    assert tokens == {1, 2}
    np.testing.assert_allclose([prob_of[1], prob_of[2]], [0.5 / 0.8, 0.3 / 0.8], rtol=1e-5)
    tokens, prob_of = drawn(**options, suppressed=[1], top_p=0.5)
    assert tokens == {2}
    tokens, _ = drawn(**options, end="never", end_ids=[1, 2])
    assert tokens == {0, 3, 4}


@pytest.mark.slow
def test_search_is_that_of_search_sample_and_edits_hold_in_it(model):
    unwanted = mdm_jax.generate(model, PROMPTS[:1], num_new=3, mask_id=MASK)[0].tokens[0]
    found = mdm_jax.generate(model, PROMPTS[:2], num_new=3, mask_id=MASK, search_width=3, suppressed=[unwanted])

    def without(params, tokens):
        return model.denoiser(params, tokens).at[..., unwanted].set(-jnp.inf)

    for number, (prompt, got) in enumerate(zip(PROMPTS, found, strict=False)):
        x_init = jnp.asarray([[*prompt, *[MASK] * 3]])
        one = mdm_jax.search_sample(without, model.params, keys(number), x_init, mask_id=MASK, width=3, doubt=0.01)
        assert got.tokens == one.tokens[0, -3:].tolist()
        assert unwanted not in got.tokens
        assert sum(got.log_prob) == pytest.approx(float(one.log_prob[0]), rel=1e-5)
    for selector in (mdm_jax.PerStep(1), mdm_jax.Threshold(0.1)):
        options = {"num_new": 3, "mask_id": MASK, "selector": selector}
        greedy, one = (mdm_jax.generate(model, PROMPTS[:1], **options, search_width=width) for width in (None, 1))
        assert (one[0].tokens, one[0].reveal_step) == (greedy[0].tokens, greedy[0].reveal_step)
    with pytest.raises(mdm_jax.InputError, match="a search takes the likeliest tokens of whole texts"):
        mdm_jax.generate(model, PROMPTS, num_new=3, mask_id=MASK, search_width=2, temperature=1.0)


def test_check_keeps_the_filling_that_search_sample_keeps(model):
    options = {"num_new": 3, "mask_id": MASK, "search_width": 4, "selector": mdm_jax.Threshold(0.3)}
    found = mdm_jax.generate(model, PROMPTS[:2], **options, check=2)
    for number, (prompt, got) in enumerate(zip(PROMPTS, found, strict=False)):
        x_init, given = jnp.asarray([[*prompt, *[MASK] * 3]]), {"mask_id": MASK, "width": 4, "check": 2}
        selector = options["selector"]
        one = mdm_jax.search_sample(model.denoiser, model.params, keys(number), x_init, selector=selector, **given)
        assert got.tokens == one.tokens[0, -3:].tolist()
    with pytest.raises(mdm_jax.InputError, match="give search_width"):
        mdm_jax.generate(model, PROMPTS, num_new=3, mask_id=MASK, check=2)


def test_judge_takes_back_what_correcting_sample_takes_back(model):
    options = {"num_new": 4, "mask_id": MASK, "selector": TakeBack(3), "judge": "leave-one-out"}
    [got] = mdm_jax.generate(model, PROMPTS[:1], **options)
    x_init = jnp.asarray([[*PROMPTS[0], *[MASK] * 4]])
    one = mdm_jax.correcting_sample(model.denoiser, model.params, keys(0), x_init, mask_id=MASK, k=3, temperature=0.0)
    assert (got.tokens, got.nfe) == (one.tokens[0, -4:].tolist(), int(one.nfe))
    for changes in ({"judge": None}, {"selector": mdm_jax.PerStep(2)}, {"judge": "anyone"}, {"guidance": 1.0}):
        with pytest.raises(mdm_jax.InputError, match="judge"):
            mdm_jax.generate(model, PROMPTS, **{**options, **changes})


def test_chat_puts_messages_into_the_template_and_the_template_may_refuse(model, tokenizer):
    assert tokenizer.chat([{"role": "user", "content": "the"}]) == [USER, *tokenizer.encode("the"), END, MODEL]
    chat = [{"role": "user", "content": "the cat"}]
    [got] = mdm_jax.generate(model, [chat], tokenizer=tokenizer, num_new=4)
    [same] = mdm_jax.generate(model, [[USER, *tokenizer.encode("the cat"), END, MODEL]], tokenizer=tokenizer, num_new=4)
    assert got == same
    with pytest.raises(mdm_jax.InputError, match=r"chat template of .* fails: TemplateError: no system here"):
        mdm_jax.generate(model, [[{"role": "system", "content": "x"}]], tokenizer=tokenizer)


@pytest.mark.slow
def test_causal_model_continues_prompts_as_autoregressive_sample_does(tmp_path, tokenizer):
    model = mdm_jax.load(write_model(tmp_path, causal=True, pad_id=None))
    found = mdm_jax.generate(model, PROMPTS, num_new=5, temperature=1.0, seed=3)
    decoder = make_decoder(model.config)
    for number, (prompt, got) in enumerate(zip(PROMPTS, found, strict=True)):
        alone = mdm_jax.autoregressive_sample(
            decoder,
            model.params,
            keys(number, 3),
            jnp.asarray([prompt]),
            jnp.asarray([len(prompt)]),
            length=len(prompt) + 5,
            temperature=1.0,
        )
        assert got.tokens == alone.tokens[0, -5:].tolist()
        np.testing.assert_allclose(sum(got.log_prob), alone.log_prob[0], rtol=1e-4)
        assert np.diff(got.reveal_step).tolist() == [1] * 4
    [free] = mdm_jax.generate(model, [[7]], num_new=5)
    [other] = mdm_jax.generate(model, [[7]], num_new=5, suppressed=free.tokens)
    assert not set(other.tokens) & set(free.tokens)
    for options in ({"guidance": 1.0}, {"block_length": 4}, {"oracle": oracles.random}, {"watch": print}):
        with pytest.raises(mdm_jax.InputError, match="a causal model goes from left to right"):
            mdm_jax.generate(model, [[7]], num_new=5, **options)
    with pytest.raises(mdm_jax.InputError, match="prompt 1 has gaps"):
        mdm_jax.generate(model, [["a", mdm_jax.Gap(2), "b"]], tokenizer=tokenizer)


def test_guidance_hides_what_was_given_and_never_what_was_written_or_filled_behind_an_end():
    seen, text = [], jnp.zeros((5, 4)).at[0, 3].set(9.0).at[3, 1].set(3.0).at[4, 1].set(2.0)

    def network(params, tokens):
        jax.debug.callback(lambda tokens: seen.append(tokens[0].tolist()), tokens, ordered=True)
        return text[None] + params

    loop = Loop(Guided(Whole(network), 1.0, 5), 5, 5, ends=(2, 3))
    given = jnp.array([[5, 5, 1, 5, 5]])  # two gaps, of which the first ends at once
    keys = jax.random.split(jax.random.key(0), 1)
    found, _ = decode_tokens(loop, jnp.zeros(()), keys, given, oracles.margin, mdm_jax.PerStep(1), 0.0)
    jax.effects_barrier()
    assert found.tokens.tolist() == [[3, 2, 1, 1, 1]]
    assert seen[1::2] == [[5, 5, 5, 5, 5], [3, 2, 5, 5, 5], [3, 2, 5, 1, 5]]


def test_further_watched_prompts_compile_nothing(model):
    traces, network = [], model.denoiser

    @dataclasses.dataclass(frozen=True)
    class Counting:
        def __call__(self, params, tokens):
            traces.append(1)
            return network(params, tokens)

    counting = Model(model.config, model.params, Counting())
    for prompt in ([7, 8], [9, 10], [11, 12]):
        mdm_jax.generate(counting, [prompt], mask_id=MASK, num_new=2, watch=lambda *arrays: None)
    assert len(traces) == 1


@pytest.mark.slow
def test_watched_prompt_shows_every_step_and_ends_as_one_that_is_not(model, tokenizer):
    seen = []
    options = {"tokenizer": tokenizer, "num_new": 8, "selector": Remask(4, noise=0.0), "temperature": 1.0}
    watched = mdm_jax.generate(model, ["the cat"], watch=lambda *arrays: seen.append(arrays), **options)
    for seen_one, other in zip(watched, mdm_jax.generate(model, ["the cat"], **options), strict=True):
        np.testing.assert_allclose(seen_one.log_prob, other.log_prob, rtol=1e-4)
        assert seen_one._replace(log_prob=None) == other._replace(log_prob=None)
    blanks = [int((tokens == -1).sum()) for tokens, _ in seen]
    assert blanks == [6, 4, 2, 0]
    given = tokenizer.encode("the cat")
    assert all(tokens[: len(given)].tolist() == given for tokens, _ in seen)


@pytest.mark.eight_devices
@pytest.mark.slow
def test_sharded_model_generates_what_one_device_does(folder, model):
    mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
    options = {"num_new": 6, "mask_id": MASK, "temperature": 1.0}
    sharded = mdm_jax.generate(mdm_jax.load(folder, mesh=mesh), PROMPTS[:2], **options)
    assert [got.tokens for got in sharded] == [got.tokens for got in mdm_jax.generate(model, PROMPTS[:2], **options)]


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [
        ("the cat", {}, "prompts must be a list"),
        ([], {}, "prompts must be a list"),
        (["a <mask> b"], {}, "prompt 1 holds the mask token, 1, which would be filled in"),
        ([[5], [999]], {}, "prompt 2 holds the id 999; the model's ids run from 0 to 279"),
        ([[-1]], {}, "token ids must be whole numbers from 0"),
        ([[1, [2, 3]]], {}, "token ids must be whole numbers from 0"),
        ([[5] * 100], {"num_new": 29}, "prompt 1 is 129 tokens long with those to generate, and the model takes 128"),
        ([["a", "b"]], {}, "has no gap to fill in"),
        ([["a", 3, mdm_jax.Gap(2)]], {}, "between texts and gaps stands 3"),
        ([[{"role": "user"}]], {}, "messages with role and content"),
        ([None], {}, "a prompt is text, token ids"),
        ([[5]], {"tokenizer": None}, "the mask token's id is not known"),
        (["a"], {"tokenizer": None, "mask_id": 1}, "there is no tokenizer"),
        ([[5]], {"tokenizer": None, "mask_id": 1, "end": "never"}, "end='never' needs the ids"),
        ([[5]], {"end": "soon"}, "end='soon' is unknown"),
        ([[5]], {"top_p": 0}, "top_p must be a number, above 0 and at most 1"),
        ([[5]], {"guidance": -1}, "guidance must be a number, at least 0"),
        ([[5]], {"num_new": 0}, "num_new must be a whole number"),
        ([[5]], {"suppressed": ["x"]}, "a number of suppressed must be a whole number"),
        ([[5]], {"suppressed": [3, 280]}, "a suppressed id is 280, and the model's vocabulary has 280 tokens"),
        ([[5]], {"mask_id": 280}, "mask_id is 280, and the network embeds"),
        ([[5]], {"selector": Remask(2), "block_length": 2}, "Remask corrects whole sequences"),
    ],
)
def test_unusable_input_is_refused_in_one_line(model, tokenizer, prompts, options, words):
    with pytest.raises(mdm_jax.InputError) as refused:
        mdm_jax.generate(model, prompts, **{"tokenizer": tokenizer, "num_new": 4} | options)
    assert words in str(refused.value)


def test_tokenizer_of_another_model_and_gaps_of_nothing_are_refused(tmp_path, tokenizer):
    small = mdm_jax.load(write_model(tmp_path, vocab_size=200))
    with pytest.raises(mdm_jax.InputError, match="has ids up to 279, and the model has embeddings up to 199 alone"):
        mdm_jax.generate(small, ["a"], tokenizer=tokenizer)
    with pytest.raises(mdm_jax.InputError, match=r"\[0\] is a gap of no tokens; for the text write \\\[0\]"):
        gaps("x[0]")


def test_run_says_its_own_mask_and_end_whatever_its_tokenizer_says_and_a_folder_of_others_its_ends(model, tokenizer):
    run = Model(*model, {"name": "text", "mask_token_id": 7, "eos_token_id": 9})
    assert mask_id_of(run, None, tokenizer) == 7
    assert end_ids_of(run, None, tokenizer) == (9,)
    other = Model(*model, {"eos_token_id": 9})
    assert (mask_id_of(other, None, tokenizer), end_ids_of(other, None, tokenizer)) == (MASK, (END,))
    assert (mask_id_of(run, 5, tokenizer), end_ids_of(run, [3], tokenizer)) == (5, (3,))


def test_nothing_stands_between_a_prompt_and_what_is_wanted(tmp_path, folder):
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [("<user>", USER), ("<end>", END)]
    template = tokenizers.processors.TemplateProcessing(single="<user> $A <end>", special_tokens=special)
    backend.post_processor = template
    backend.save(str(tmp_path / "tokenizer.json"))
    words, plain = read_tokenizer(tmp_path), read_tokenizer(folder)
    ids = plain.encode("the cat")
    assert words.start == (USER,)
    assert plain.start == ()
    assert words.encode("the cat") == [USER, *ids]
    assert words.encode("") == [USER]
    assert lay_out("the cat", words, 2).tolist() == [USER, *ids, -1, -1]
    assert continuation(words, "the cat", " sat").prompt == [USER, *ids]


def test_template_may_mark_what_is_trained_on():
    template = "{% for m in messages %}{% generation %}{{ m.content }}!{% endgeneration %}{% endfor %}"
    assert rendered(template, [{"role": "user", "content": "a"}], {}, pathlib.Path()) == "a!"


@pytest.mark.slow
def test_causal_batch_ends_when_all_its_texts_have(tmp_path, tokenizer):
    model = mdm_jax.load(write_model(tmp_path, causal=True, pad_id=None))
    free = mdm_jax.generate(model, [PROMPTS[0]], num_new=12)[0]
    end = free.tokens[3]
    first = free.tokens.index(end)
    ended = mdm_jax.generate(model, [PROMPTS[0]], num_new=12, end_ids=[end])[0]
    assert ended.tokens == free.tokens[:first]
    assert (free.nfe, ended.nfe) == (13, first + 2)  # one call reads the prompt
    both = mdm_jax.generate(model, PROMPTS[:2], num_new=12, end_ids=[end])
    assert both[0]._replace(nfe=ended.nfe) == ended
    with pytest.raises(InputError, match="and no end='last'"):
        mdm_jax.generate(model, PROMPTS[:1], num_new=4, end="last", end_ids=[end])


def test_prompts_of_different_lengths_share_a_batch_where_the_tokenizer_leaves_an_id_over(tmp_path, tokenizer):
    model = mdm_jax.load(write_model(tmp_path, pad_id=None, num_extra_tokens=1))
    found = mdm_jax.generate(model, PROMPTS[:2], num_new=3, tokenizer=tokenizer)
    alone = [mdm_jax.generate(model, [prompt], num_new=3, tokenizer=tokenizer)[0] for prompt in PROMPTS[:2]]
    assert [each.tokens for each in found] == [each.tokens for each in alone]
    hiding = hiding_unused(model, tokenizer, MASK)
    assert hiding.config.pad_id == 280
    assert hiding_unused(model, None, MASK) is model
    assert hiding_unused(hiding, tokenizer, MASK) is hiding


@pytest.mark.parametrize("name", ["numbers", "end_ids", "suppressed"])
@pytest.mark.parametrize("values", [5, "12", [2**40], [1.5]])
def test_lists_of_ids_and_numbers_are_lists_of_whole_numbers(model, name, values):
    with pytest.raises(InputError, match=name):
        mdm_jax.generate(model, [[5]], num_new=2, mask_id=MASK, **{name: values})
