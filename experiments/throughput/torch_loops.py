"""Loops in PyTorch that fill in masked sequences, for comparison. `torch_peer` says what each is."""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import mdm_jax
from experiments.throughput.torch_network import Network, Tensor, torch
from mdm_jax.errors import InputError
from mdm_jax.typing import Selector


def scores_of(oracle: str, p: Tensor, token: Tensor) -> Tensor:
    """The oracle's scores [...] from probabilities [..., V] and the tokens drawn [...]."""
    if oracle == "random":
        return torch.rand(token.shape, device=p.device)
    if oracle == "top_prob":
        return p.amax(dim=-1)
    if oracle == "top_log_prob":
        return p.amax(dim=-1).log()
    if oracle in ("margin", "log_margin"):
        top = p.topk(2, dim=-1).values
        if oracle == "log_margin":
            top = top.clamp_min(torch.finfo(torch.float32).tiny).log()
        return top[..., 0] - top[..., 1]
    if oracle == "neg_entropy":
        return torch.special.xlogy(p, p).sum(dim=-1)
    return p.gather(-1, token[..., None])[..., 0]


def counts(num_masks: int, selector: Selector) -> list[int]:
    """The number of tokens that each step reveals; raises InputError unless the selector fixes the numbers."""
    if not isinstance(selector, mdm_jax.PerStep | mdm_jax.TopK):
        raise InputError(f"--compare torch takes the selectors per_step and top_k, not {selector}")
    if isinstance(selector, mdm_jax.PerStep):
        k = int(selector.k)
        return [k] * (num_masks // k) + ([num_masks % k] if num_masks % k else [])
    steps = int(selector.num_steps)
    left = [num_masks * (steps - j) // steps for j in range(steps + 1)]
    return [before - after for before, after in itertools.pairwise(left) if before > after]


class Way(NamedTuple):
    """How sequences are filled in."""

    mask_id: int
    oracle: str
    selector: Selector
    temperature: float
    block_length: int | None
    """None: whole sequences are one block"""
    keeps: bool
    """whether all steps of a block but the first read the block alone"""


def steps(network: Network, x: Tensor, way: Way) -> Iterator[tuple[slice, int, Tensor]]:
    """For each step the open block, how many of its tokens to reveal, and hidden states [B, P, D] of what was read.

    Those to whom it gives a step write into x [B, L]. All rows have masks at the same positions of each block.
    """
    batch, length = x.shape
    size = min(way.block_length or length, length)
    everywhere = torch.arange(length, device=x.device)
    kept = network.kept(batch, length) if way.keeps else None
    for first in range(0, length, size):
        end = min(first + size, length)
        block = slice(end - size, end)
        for step, num_reveal in enumerate(counts(int((x[0, block] == way.mask_id).sum()), way.selector)):
            is_read = block if kept is not None and step else slice(length)
            yield block, num_reveal, network.hidden(x[:, is_read], everywhere[is_read], kept)


def of_block(read: Tensor, block: slice) -> Tensor:
    """What belongs to the block, of what was read: the block, or whole sequences."""
    return read if read.shape[1] == block.stop - block.start else read[:, block]


@torch.no_grad()
def as_users_run_it(network: Network, x: Tensor, way: Way) -> Tensor:
    """Fills in the masks of x [B, L]."""
    x, mask_id, temperature = x.clone(), way.mask_id, way.temperature
    for block, num_reveal, hidden in steps(network, x, way):
        tokens = x[:, block]
        is_masked = tokens == mask_id
        logits = of_block(network.logits(hidden), block)
        logits[..., mask_id : mask_id + 1] = -torch.inf
        noisy = logits
        if temperature > 0:
            wide = logits.to(torch.float64)
            noisy = wide.exp() / (-torch.rand_like(wide).log()) ** temperature
        token = noisy.argmax(dim=-1)
        if way.oracle == "left_to_right":
            scores = -torch.arange(tokens.shape[1], device=x.device, dtype=torch.float64).expand(tokens.shape)
        else:
            scores = scores_of(way.oracle, logits.to(torch.float64).softmax(dim=-1), token).to(torch.float64)
        scores = torch.where(is_masked, scores, -torch.inf)
        chosen = torch.zeros_like(is_masked)
        for row in range(x.shape[0]):
            chosen[row, scores[row].topk(num_reveal).indices] = True
        x[:, block] = torch.where(chosen, token, tokens)
    return x


@functools.partial(torch.compile, dynamic=True)
def tokens_and_scores(
    logits: Tensor, positions: Tensor, mask_id: int, oracle: str, temperature: float
) -> tuple[Tensor, Tensor]:
    """A token and a score for each position, from positions [B, P] and their logits [B, P, V]."""
    logits = logits.to(torch.float32, copy=True)  # a copy, since it is written to
    logits[..., mask_id : mask_id + 1] = -torch.inf
    noisy = logits
    if temperature > 0:
        noisy = logits - temperature * (-torch.rand_like(logits).log()).log()
    token = noisy.argmax(dim=-1)
    if oracle == "left_to_right":
        return token, -positions.float()
    return token, scores_of(oracle, logits.softmax(dim=-1), token)


@torch.no_grad()
def at_its_best(network: Network, x: Tensor, way: Way) -> Tensor:
    """The same in float32, at masked positions only."""
    x = x.clone()
    for block, num_reveal, hidden in steps(network, x, way):
        tokens, hidden = x[:, block], of_block(hidden, block)
        positions = (tokens == way.mask_id).nonzero()[:, 1].reshape(x.shape[0], -1)
        logits = network.logits(hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[2])))
        token, scores = tokens_and_scores(logits, positions, way.mask_id, way.oracle, way.temperature)
        best = scores.topk(num_reveal, dim=-1).indices
        tokens.scatter_(1, positions.gather(1, best), token.gather(1, best))
    return x


@torch.no_grad()
def network_alone(network: Network, x: Tensor, calls: int) -> Tensor:
    """Computes all logits `calls` times. Returns the first logit of the last call."""
    for _ in range(calls):
        logits = network(x)
    return logits[0, 0, 0]
