"""The flags of the evaluations of text. Importing this imports nothing heavy."""

import dataclasses
import pathlib
from typing import Annotated

from experiments.commands.flags import ViewerFlags
from experiments.flags import Corrector, DecodeFlags
from mdm_jax.ranges import INT32, Count, NotNegative, Range, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedModelFlags:
    """The flags that name a masked model of text."""

    checkpoint: pathlib.Path
    """a run's folder of a masked model, one of its checkpoints, or a Hugging Face folder"""
    tokenizer: pathlib.Path | None = None
    """a tokenizer.json (None: the one in the model's folder)"""
    mask_id: Annotated[int, Range(0, INT32)] | None = None
    """the mask token's id (None: as the model's folder says)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutFlags(MaskedModelFlags):
    """The flags that name a masked model, and rows of text that it was not trained on."""

    text: pathlib.Path | None = None
    """a text that the model was not trained on (None: the held-out rows of the run's data)"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, for the run's own"""
    length: Annotated[int, Range(2, INT32)] | None = None
    """tokens of a row (None: as many as the model takes)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood(HeldOutFlags):
    """The likelihood of held-out text along several orders, and its bound over all; the same command again goes on."""

    orders: str = "identity,closer,uniform"
    """the classes of orders, with commas: identity; much-closer and closer, with √L and L/10 random swaps; uniform"""
    limit: Count = 64
    """rows of text; each has an order of its own of every class"""
    num_steps: Annotated[int, Range(2, INT32)] | None = None
    """steps of each order that are counted, the same of every order, an even number (None: all, which is as many
    network calls on a row as it has tokens)"""
    num_draws: Annotated[int, Range(2, INT32)] = 128
    """masked subsets of each row for the bound, an even number"""
    proxy: pathlib.Path | None = None
    """a model of the same data that was trained for longer: add the squared differences to its log-probabilities"""
    batch_size: Count = 32
    """masked rows in a network call"""
    seed: Seed = 0
    """of the orders, the steps and the subsets"""
    out: pathlib.Path = pathlib.Path("runs/text-likelihood")
    """folder of results.json, the pictures, and what is done so far"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenPpl(HeldOutFlags):
    """Draw samples in several orders and numbers of steps, and judge them; the same command again goes on."""

    judge: pathlib.Path
    """folder of a causal model with its tokenizer.json: Hugging Face's (Llama-2-7B, GPT-2, SmolLM2-135M) or a run's"""
    number: Annotated[int, Range(2, INT32)] = 64
    """samples of each row; two are the fewest that have an interval"""
    steps: tuple[Count, ...] = (8, 16, 32, 64, 128)
    """the numbers of steps"""
    oracle: str = "top_prob,margin,neg_entropy"
    """the orders beside the vanilla one, with commas; your own as package.module:function"""
    noise: tuple[NotNegative, ...] = (0.001, 0.01, 0.1)
    """standard deviations of Gaussian noise on the margin, each a further order"""
    entropy_budget: tuple[Annotated[float, Range(0, infinite=True)], ...] = (0.1, 1.0)
    """entropy budgets (nats), each a row: how many tokens are revealed depends on how sure the model is of them"""
    search_width: Count | None = 2
    """width of a beam search, one row: in random order, with the likeliest tokens (None: no search)"""
    remask_steps: tuple[Count, ...] = ()
    """numbers of steps, each a row: by the margin, where each step may also mask revealed tokens again"""
    corrector: Corrector | None = None
    """by the margin, where a step takes tokens back that look wrong by now. leave-one-out: where others say so, for a
    call more for each token; filled, quality: for a model trained with this --loss"""
    tokens_per_step: tuple[Annotated[int, Range(2, INT32)], ...] = ()
    """with --corrector: numbers of tokens that a step reveals, each a row; it takes back fewer than it reveals"""
    temperature: NotNegative = 1.0
    """of the tokens drawn, except by the search; 0 takes the likeliest"""
    batch_size: Count = 16
    """samples in a batch"""
    seed: Seed = 0
    """of the samples"""
    out: pathlib.Path = pathlib.Path("runs/text-genppl")
    """folder of results.json, the pictures, the samples, and what is done so far"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(DecodeFlags, MaskedModelFlags, ViewerFlags):
    """Continue prompts or fill in their gaps, several times each; on a terminal the order shows by colour."""

    prompt: tuple[str, ...] = ()
    """texts to continue (without any, and without --infill: one from nothing)"""
    infill: tuple[str, ...] = ()
    """texts in which [12] is a gap of 12 tokens, such as "It was [12] night"; a bracket of the text is \\["""
    number: Count = 3
    """samples of each, in every order"""
    num_new: Count = 48
    """tokens behind a prompt"""
    temperature: NotNegative = 1.0
    """sampling temperature of the tokens; 0 takes the likeliest, the same in each sample"""
    batch_size: Count = 8
    """samples in a batch, where there is no terminal"""
    seed: Seed = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/text-sample")
    """folder of results.json, with the samples"""
