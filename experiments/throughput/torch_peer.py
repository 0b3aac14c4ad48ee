"""The same network and the same decoding in PyTorch, for comparison.

Two loops follow LLaDA (Nie et al. 2025, arXiv:2502.09992), in our own code. "eager, float64" is what its users run:
scores and Gumbel noise in float64 over the whole vocabulary at every position, and a Python loop over the rows.
"compiled, float32" is the best that we can do: torch.compile for the network and for everything that is computed from
the logits, in float32, at masked positions only, for all rows at once. On a CPU its weights are frozen, which lets the
compiler choose their layout. "network" is the compiled network alone.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import mdm_jax
from experiments.common import Row
from experiments.flags import resolve_dtype
from experiments.throughput.torch_loops import Way, as_users_run_it, at_its_best, counts, network_alone
from experiments.throughput.torch_network import Network, Tensor, torch
from experiments.throughput.workload import Workload
from mdm_jax.errors import InputError, RunError, shown
from mdm_jax.evaluation.benchmark import Case, Work
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.decoder import make_decoder
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.oracles import ORACLES


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
