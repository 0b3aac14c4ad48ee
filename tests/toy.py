"""Small models with known answers, and plain NumPy readings of them."""

import functools
import itertools
import math
import os
import re

import jax
import jax.numpy as jnp
import numpy as np

import mdm_jax

MASK = 5
"""The mask token of the small nets: above their vocabulary of 0..4, with a row in the embedding."""
PAD = 7
"""A token that the small nets do not see."""
EMBED_ROWS = 8


def quick_compilation():
    """A module's fixture: XLA without its costly passes, which halves the time of tests that mostly compile.

    Tests that run as users do (conftest.py) have them all.
    """
    jax.config.update("jax_disable_most_optimizations", os.environ.get("MDM_JAX_LANE") != "user")
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def net_params(seed, *, vocab_size=5, length=12, width=6, scale=1.5):
    """Random parameters of `context_net` and `features_net`; a larger scale makes more confident predictions."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "embed": draw(EMBED_ROWS, width),
        "gate": draw(length, width),
        "place": draw(length, width),
        "head": scale * draw(width, vocab_size),
    }


def features_net(params, tokens):
    """A net whose prediction at each position depends on the tokens at all positions but those that hold PAD."""
    length = tokens.shape[1]
    embedded = params["embed"][tokens] * (tokens != PAD)[..., None].astype(jnp.float32)
    context = (embedded * params["gate"][None, :length]).sum(axis=1, keepdims=True)
    hidden = jnp.tanh(context + embedded + params["place"][None, :length])
    return mdm_jax.Features(hidden, params["head"])


def context_net(params, tokens):
    """`features_net` with its logits made: float32 [B, L, V]."""
    hidden, head = features_net(params, tokens)
    return hidden @ head


class OnlyFeatures:
    """The context net for samplers that say which positions they read; of the others it makes nonsense."""

    def __call__(self, params, tokens):
        raise AssertionError("asked for all logits")

    def features(self, params, tokens, is_read=None):
        logits = context_net(params, tokens)
        nonsense = 1e3 * jnp.arange(logits.shape[-1])[None, None]
        hidden = logits if is_read is None else jnp.where(is_read[..., None], logits, nonsense)
        return mdm_jax.Features(hidden, jnp.eye(logits.shape[-1]))


def log_softmax(logits, mask_id=None):
    """log softmax over the last axis in float64 NumPy; `mask_id`, if it is below V, has probability 0."""
    logits = np.array(logits, np.float64)
    if mask_id is not None and mask_id < logits.shape[-1]:
        logits[..., mask_id] = -np.inf
    shifted = logits - logits.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def sequences(num_values, length):
    """All sequences over {0..m-1}^L, int [m^L, L], in lexicographic order."""
    return np.array(list(itertools.product(range(num_values), repeat=length)))


def subsets(length):
    """All subsets of {0..L-1} as bool [2^L, L]."""
    return np.array(list(itertools.product([False, True], repeat=length)))


def random_joint(seed, num_values, length, concentration=0.5):
    """A distribution over {0..m-1}^L with dependent positions: float64 [m^L], in the order of `sequences`."""
    return np.random.default_rng(seed).dirichlet(np.full(num_values**length, concentration))


@functools.cache
def bayes_net(num_values, length):
    """The ideal denoiser: its parameters are the joint [m^L], its logits log p(x_i | x[M]); the mask token is m."""
    table = sequences(num_values, length)
    one_hot = (table[..., None] == np.arange(num_values)).astype(np.float32)

    def denoiser(joint, tokens):
        agrees = (tokens[:, None] == table[None]) | (tokens[:, None] == num_values)
        weight = agrees.all(axis=-1).astype(jnp.float32) * joint[None].astype(jnp.float32)
        marginal = jnp.einsum("bs,slv->blv", weight, one_hot)
        return jnp.log(marginal) - jnp.log(weight.sum(axis=1))[:, None, None]

    return denoiser


def nll_table(denoiser, params, x_0, mask_id):
    """-log p_theta(x_0^i | x[M]) for every subset M (a row) and i in M, else 0: float64 [2^L, L]."""
    x_0 = np.asarray(x_0)
    is_masked = subsets(len(x_0))
    logits = jax.jit(denoiser)(params, jnp.asarray(np.where(is_masked, mask_id, x_0), jnp.int32))
    if isinstance(logits, mdm_jax.Features):
        logits = np.asarray(logits.hidden, np.float64) @ np.asarray(logits.head, np.float64)
    log_p = log_softmax(logits, mask_id)
    picked = np.take_along_axis(log_p, np.broadcast_to(x_0, is_masked.shape)[..., None], axis=-1)[..., 0]
    return np.where(is_masked, -picked, 0)


def exact_loss(nll, is_free=None):
    """L_theta from `nll_table`: sum over non-empty free M of 1/|M| / C(L', |M|) times M's summed nll."""
    is_masked = subsets(nll.shape[1])
    is_free = np.ones(nll.shape[1], bool) if is_free is None else np.asarray(is_free)
    total = 0.0
    for member, row in zip(is_masked, nll, strict=True):
        if member.any() and not (member & ~is_free).any():
            total += row.sum() / member.sum() / math.comb(is_free.sum(), member.sum())
    return total


def chi_square_bound(degrees, tail=1e-5):
    """The value that a chi-square statistic with so many degrees of freedom exceeds with probability `tail`."""
    from scipy import stats

    return stats.chi2.isf(tail, degrees)


def chi_square(counts, probs):
    """Pearson's statistic of counts against exact probabilities; a count where the probability is 0 is infinite."""
    counts, probs = np.asarray(counts, float), np.asarray(probs, float)
    if (counts[probs == 0] > 0).any():
        return np.inf
    counts, expected = counts[probs > 0], counts.sum() * probs[probs > 0]
    return ((counts - expected) ** 2 / expected).sum()


def assert_frequencies(indices, probs, tail=1e-5):
    """The drawn indices follow `probs`: a correct sampler fails with probability `tail` over keys.

    Cells that expect fewer than 5 draws are pooled, so that Pearson's statistic is near its chi-square law.
    """
    probs = np.asarray(probs, float).ravel()
    assert abs(probs.sum() - 1) < 1e-6
    counts = np.bincount(np.asarray(indices).ravel(), minlength=probs.size)
    assert counts.size == probs.size
    assert not counts[probs == 0].any(), "an outcome of probability 0 was drawn"
    is_rare = (probs * counts.sum() < 5) & (probs > 0)
    counts = np.append(counts[~is_rare], counts[is_rare].sum())
    probs = np.append(probs[~is_rare], probs[is_rare].sum())
    statistic = chi_square(counts, probs)
    bound = chi_square_bound((probs > 0).sum() - 1, tail)
    assert statistic < bound, f"chi-square {statistic:.1f} exceeds {bound:.1f}\n{counts}\n{counts.sum() * probs}"


def largest_exchange(compiled):
    """Numbers in the largest array that devices exchange in a compiled program, given as text."""
    lines = re.findall(r"= (.*) (?:all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\(", compiled)
    shapes = [shape for line in lines for shape in re.findall(r"\w+\[([\d,]*)\]", line)]
    return max((math.prod(int(n) for n in shape.split(",") if n) for shape in shapes), default=0)


class Named:
    """A network that says how many ids it takes."""

    def __init__(self, num_tokens):
        self.num_tokens = num_tokens

    def __call__(self, params, tokens):
        return context_net(params, tokens)
