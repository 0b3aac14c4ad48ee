"""Our transformer in PyTorch, for comparison, with kept keys and values."""

import copy
from typing import Any, TypeAlias

import jax
import numpy as np

from mdm_jax.errors import InputError
from mdm_jax.models.config import TransformerConfig

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
