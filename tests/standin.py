"""A kind of network that has learned sequences by heart, and nothing else: a module that `--plugin` names."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.models import kinds
from mdm_jax.models.config import ModelConfig
from mdm_jax.models.weights import save_weights
from mdm_jax.ranges import INT32, Range
from mdm_jax.training.config import write_config

NOTHING = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByHeart(ModelConfig):
    """How many sequences; which tokens stand for a mask and for padding."""

    num_known: Annotated[int, Range(1, INT32)]
    mask_id: Annotated[int, Range(0, INT32)]
    pad_id: Annotated[int, Range(0, INT32)]


@dataclasses.dataclass(frozen=True)
class Recall:
    """The denoiser: of the first sequence that fits to what is shown, each token has almost all probability."""

    config: ByHeart

    def __call__(self, params, tokens):
        known = params["known"][:, : tokens.shape[1]].astype(jnp.int32)
        hidden = jnp.isin(tokens, jnp.asarray([self.config.mask_id, self.config.pad_id]))
        fits = ((tokens[:, None] == known[None]) | hidden[:, None]).all(axis=-1)
        said = jnp.where(fits.any(axis=-1)[:, None], known[fits.argmax(axis=-1)], NOTHING)
        return 30.0 * jax.nn.one_hot(said, self.config.vocab_size)


def init_params(config, key):
    del key
    return {"known": jnp.zeros((config.num_known, config.max_length))}


kinds.register("by_heart", kinds.Kind(ByHeart, init_params, Recall))


def write(folder, sequences, *, mask_id, pad_id, vocab_size):
    """A folder with a model that knows token sequences."""
    length = max(map(len, sequences))
    known = np.full((len(sequences), length), pad_id, np.float32)
    for row, sequence in zip(known, sequences, strict=True):
        row[: len(sequence)] = sequence
    config = ByHeart(vocab_size=vocab_size, max_length=length, num_known=len(sequences), mask_id=mask_id, pad_id=pad_id)
    write_config(folder, {"model": kinds.to_json(config)})
    save_weights(folder, {"known": known}, dtype="float32")
    return folder


def learn(folder, tokenizer, asked, *, mask_id, pad_id):
    """A model that knows the reference of every problem: `asked` are tasks of `experiments.llada_tasks`."""
    from experiments.llada_answers import with_gaps
    from mdm_jax.text.prompts import BLANK, lay_out

    sequences = []
    for task in asked:
        for problem in task.problems:
            reference = task.settings.benchmark.reference(problem)
            new = tokenizer.encode(reference, special=False)
            longest = task.settings.num_new or len(new)
            ids = lay_out(with_gaps(task.prompt(problem), tokenizer), tokenizer, longest)
            place = np.flatnonzero(ids == BLANK)
            ids[place] = ([*new, *[tokenizer.end_ids[0]] * len(place)])[: len(place)]
            sequences.append(ids)
    return write(folder, sequences, mask_id=mask_id, pad_id=pad_id, vocab_size=tokenizer.num_tokens)
