"""The same network and the same decoding in PyTorch, for comparison.

Two loops follow LLaDA (Nie et al. 2025, arXiv:2502.09992), in our own code. "eager, float64" is what its users run:
scores and Gumbel noise in float64 over the whole vocabulary at every position, and a Python loop over the rows.
"compiled, float32" is the best that we can do: torch.compile for the network and for everything that is computed from
the logits, in float32, at masked positions only, for all rows at once. On a CPU its weights are frozen, which lets the
compiler choose their layout. "network" is the compiled network alone.
"""

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

import mdm_jax
from experiments.common import Row
from experiments.flags import resolve_dtype
from experiments.throughput.workload import Workload
from mdm_jax.errors import InputError, RunError, shown
from mdm_jax.evaluation.benchmark import Case, Work
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.decoder import make_decoder
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.oracles import ORACLES
from mdm_jax.typing import Selector

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise InputError("--compare torch needs PyTorch: pip install torch") from None

Tensor: TypeAlias = Any
"""torch.Tensor. The type check runs without PyTorch."""
Kept: TypeAlias = list[tuple[Tensor, Tensor]]
"""The keys and values of all positions in each layer, [B, H, L, D / H]."""


class Network:
    """A `Transformer` with the parameters of ours. Calls take int64 [B, L] and give logits [B, L, V]."""

    def __init__(self, config: TransformerConfig, params: Any, dtype: "torch.dtype") -> None:
        """Copies the parameters to the device, in `dtype`."""
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.weights = torch.nn.ParameterDict()
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            weight = torch.tensor(np.asarray(leaf, np.float32), dtype=dtype, device=self.device)
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            self.weights[name] = torch.nn.Parameter(weight, requires_grad=False)

    def __call__(self, tokens: Tensor) -> Tensor:
        """The logits."""
        return self.logits(self.hidden(tokens, torch.arange(tokens.shape[1], device=self.device)))

    def kept(self, batch: int, length: int) -> Kept:
        """Room for the keys and values of whole sequences."""
        shape = (batch, self.config.num_heads, length, self.config.head_width)
        like = self.weights["token_embedding/embedding"]
        return [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(self.config.num_layers)]

    def hidden(self, tokens: Tensor, positions: Tensor, kept: Kept | None = None) -> Tensor:
        """The input of the head, [B, P, D], of tokens [B, P] at positions [P].

        They see one another, or with `kept` also what it holds of other positions; their keys and values go into it.
        """
        config, weights = self.config, self.weights
        x = functional.embedding(tokens, weights["token_embedding/embedding"])
        if config.positions == "learned":
            x = x + weights["position_embedding/embedding"][positions]
        for i in range(config.num_layers):
            layer = f"layers_{i}"
            y = self._norm(x, f"{layer}/attention_norm")
            q, k, v = (self._heads(y, f"{layer}/attention/{name}") for name in ("query", "key", "value"))
            if config.qk_norm:
                q, k = (self._norm(x, f"{layer}/attention/{name}_norm") for x, name in ((q, "query"), (k, "key")))
            if config.positions == "rope":
                q, k = self._rope(q, positions), self._rope(k, positions)
            if kept is not None:
                for old, new in zip(kept[i], (k, v), strict=True):
                    old.index_copy_(2, positions, new)
                k, v = kept[i]
            y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + self._linear(y, f"{layer}/attention/output")
            y = self._norm(x, f"{layer}/mlp_norm")
            hidden = self._linear(y, f"{layer}/mlp/up")
            if config.mlp == "swiglu":
                hidden = hidden * functional.silu(self._linear(y, f"{layer}/mlp/gate"))
            else:
                hidden = functional.gelu(hidden, approximate="tanh")
            x = x + self._linear(hidden, f"{layer}/mlp/down")
        x = self._norm(x, "final_norm")
        if config.shift_logits:
            x = torch.cat([x[:, :1], x[:, :-1]], dim=1)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        if self.config.tie_head:
            return hidden @ self.weights["token_embedding/embedding"][: self.config.vocab_size].T
        return hidden @ self.weights["head/kernel"]

    def compiled(self) -> "Network":
        """The same, compiled."""
        mode = "reduce-overhead" if self.device == "cuda" else None  # CUDA graphs
        torch._inductor.config.freezing = self.device == "cpu"
        compiled = copy.copy(self)
        compiled.hidden = torch.compile(self.hidden, dynamic=False, mode=mode)  # type: ignore[method-assign]
        return compiled

    def _linear(self, x: Tensor, name: str) -> Tensor:
        y, bias = x @ self.weights[f"{name}/kernel"], self.weights.get(f"{name}/bias")
        return y if bias is None else y + bias

    def _heads(self, x: Tensor, name: str) -> Tensor:
        y = self._linear(x, name)
        return y.reshape(*x.shape[:2], self.config.num_heads, self.config.head_width).transpose(1, 2)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        config, scale = self.config, self.weights[f"{name}/scale"]
        if config.norm == "layer":
            bias = self.weights[f"{name}/bias"] if config.use_bias else None
            return functional.layer_norm(x, scale.shape, scale, bias, config.norm_epsilon)
        return functional.rms_norm(x, scale.shape, scale, config.norm_epsilon)

    def _rope(self, x: Tensor, positions: Tensor) -> Tensor:
        half = self.config.head_width // 2
        steps = torch.arange(half, device=self.device, dtype=torch.float32)
        frequencies = self.config.rope_theta ** (-steps / half)
        angles = positions.float()[:, None] * frequencies
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


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


def check(work: Workload, cases: Sequence[Case]) -> None:
    """Raises InputError for models and cases that PyTorch is not compared on."""
    config, flags = work.config, work.flags
    is_ours = type(config) is TransformerConfig
    if not is_ours or config.causal or config.pad_id is not None or config.kv_heads != config.num_heads:
        raise InputError("--compare torch takes bidirectional Transformers without padding, groups or fewer key heads")
    if flags.keep is not None and config.shift_logits:
        raise InputError("--compare torch keeps nothing for models that shift their logits: leave --keep out")
    if ":" in flags.prompt:
        raise InputError("--compare torch takes sequences of one kind: give one number with --prompt")
    for case in cases:
        if case.oracle_name not in ORACLES:
            raise InputError(f"--compare torch knows the oracles of mdm_jax alone: leave {shown(case.oracle_name)} out")
        counts(1, case.selector)


def is_slow_in_bfloat16() -> bool:
    """Whether this is a CPU on which PyTorch compiles bfloat16 for minutes."""
    return not torch.cuda.is_available() and resolve_dtype("auto") == "float32"


def way_of(work: Workload, case: Case, temperature: float) -> Way:
    """How a case fills in the sequences of a workload."""
    flags = work.flags
    return Way(work.mask_id, case.oracle_name, case.selector, temperature, flags.block_length, flags.keep is not None)


class Peers:
    """The two loops and the network, ready to be timed."""

    def __init__(self, work: Workload, seed: int) -> None:
        """Copies the weights and compiles. `check` must have passed."""
        torch.manual_seed(seed)
        torch._dynamo.config.recompile_limit = 64  # of `tokens_and_scores`, for every oracle at every temperature
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # instead of going on uncompiled
        self._work = work
        self._network = Network(work.config, work.params, getattr(torch, work.config.dtype))
        self._compiled = self._network.compiled()
        self._x = torch.tensor(np.asarray(work.x_init), dtype=torch.int64, device=self._network.device)
        self._checked = Checked(work)

    def works(self, case: Case, nfe: int) -> Mapping[str, Work]:
        """What to time, by name: both loops, and `nfe` calls of the network. Each returns when its work is done."""
        loops = {
            "torch eager, float64": (as_users_run_it, self._network),
            "torch compiled, float32": (at_its_best, self._compiled),
        }
        works: dict[str, Work] = {
            name: functools.partial(self._run, loop, network, case) for name, (loop, network) in loops.items()
        }
        return works | {"torch network": functools.partial(self.network, nfe)}

    def network(self, calls: int) -> None:
        """Calls the bare network `calls` times."""
        network_alone(self._compiled, self._x, calls).item()  # waits for the device

    def _run(self, loop: Callable[..., Tensor], network: Network, case: Case) -> np.ndarray:
        return loop(network, self._x, way_of(self._work, case, case.temperature)).cpu().numpy()

    def checks(self, case: Case) -> Row:
        """Versions, and `same_tokens`, the share of tokens at temperature 0 that all agree on.

        Raises:
          RunError: the share is not 1.
        """
        row: Row = {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}
        if case.oracle_name != "random":  # its draws differ
            row["same_tokens"] = self._checked.same_tokens(case)
        return row


class Checked:
    """Compares our sampler with both loops: float32, at most four layers, two rows with every second token masked.

    The weights are larger than initial ones. With those, scores are so close that rounding would decide the order.
    """

    def __init__(self, work: Workload) -> None:
        """Makes the weights and compiles."""
        layers = min(work.config.num_layers, 4)
        self._config = dataclasses.replace(
            work.config, num_layers=layers, init_std=0.1, dtype="float32", param_dtype="float32"
        )
        self._params = jax.jit(functools.partial(init_params, self._config))(jax.random.key(0))
        self._work = work
        shape = (2, work.x_init.shape[1])
        self._x_init = np.random.default_rng(0).integers(0, work.config.vocab_size - 1, shape)
        self._x_init[:, ::2] = work.mask_id
        eager = Network(self._config, self._params, torch.float32)
        self._networks = {as_users_run_it: eager, at_its_best: eager.compiled()}

    def same_tokens(self, case: Case) -> float:
        """The share of tokens that all three agree on, at temperature 0.

        Raises:
          RunError: the share is not 1.
        """
        options: dict[str, Any] = {"mask_id": self._work.mask_id, "selector": case.selector, "temperature": 0.0}
        options |= {"oracle": case.oracle, "block_length": self._work.flags.block_length}
        given, way = (self._params, jax.random.key(0), self._x_init), way_of(self._work, case, 0.0)
        if way.keeps:
            found = mdm_jax.cached_sample(make_decoder(self._config), *given, **options)
        else:
            found = mdm_jax.sample(make_denoiser(self._config), *given, **options)
        ours, shares = np.asarray(found.tokens), []
        for loop, network in self._networks.items():
            x = torch.tensor(self._x_init, dtype=torch.int64, device=network.device)
            theirs = loop(network, x, way).cpu().numpy()
            shares.append(float((theirs == ours).mean()))
        if min(shares) < 1:
            name = case.oracle_name
            raise RunError(f"PyTorch and mdm_jax disagree on the tokens of {name}: {min(shares):.1%} are equal")
        return min(shares)
