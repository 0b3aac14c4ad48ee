"""The configuration of a network, and that of a Transformer: plain data, without Flax."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from mdm_jax.errors import InputError, shown
from mdm_jax.ranges import INT32, Range, check_ranges

DType = Literal["float32", "bfloat16", "float16"]

_CHOICES = {
    "norm": ("rms", "layer"),
    "positions": ("rope", "learned"),
    "mlp": ("swiglu", "gelu", "gelu_exact"),
}
_FLAGS = ("causal", "use_bias", "qkv_bias", "qk_norm", "tie_head", "shift_logits", "remat")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The fields that every kind of network has: plain data, hashable, and JSON by `to_json`.

    A kind of network derives a frozen dataclass with fields of its own and registers it with `kinds.register`.

    Attributes:
      vocab_size: V, the number of logits.
      num_extra_tokens: rows of the embedding beyond V, such as one for the mask token. They are never predicted.
      max_length: the longest sequence.
      dtype: what matrix products multiply in.
      param_dtype: what the parameters are stored in.
    """

    vocab_size: Annotated[int, Range(1, INT32)]
    num_extra_tokens: Annotated[int, Range(0, INT32)] = 0
    max_length: Annotated[int, Range(1, 1 << 24)]
    dtype: DType = "float32"
    param_dtype: DType = "float32"

    def __post_init__(self) -> None:
        check_ranges(self, name_of=lambda path: f"{type(self).__name__}.{path}")
        for name in ("dtype", "param_dtype"):
            self._check_choice(name, get_args(DType))
        most = INT32 - self.vocab_size
        self._check("num_extra_tokens", self.num_extra_tokens <= most, f"at most {most}: token ids are int32")

    def _check(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise InputError(f"{type(self).__name__}.{name} must be {wanted}; got {shown(getattr(self, name))}")

    def _check_choice(self, name: str, choices: Sequence[str]) -> None:
        self._check(name, getattr(self, name) in choices, "one of " + ", ".join(choices))

    @property
    def num_tokens(self) -> int:
        """Rows of the embedding: the ids that the model may be given are those below."""
        return self.vocab_size + self.num_extra_tokens

    def forward_flops(self, length: int, num_logits: int | float) -> float | None:
        """Floating-point operations of the matrix products of one forward pass over one sequence; None if unknown.

        Two for each multiplication and addition. A backward pass takes twice as many, so that training takes three
        times as many in all, recomputation left out.

        Args:
          length: L.
          num_logits: positions whose logits are made.
        """
        del length, num_logits
        return None

    def to_json(self) -> dict[str, Any]:
        """Every field, as values that `json` writes as they are."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Fields that have a default may be left out.

        Args:
          fields: name -> value.

        Raises:
          InputError: a key is no field, a field without a default is missing, or a value does not fit.
        """
        if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
            raise InputError(f"a {cls.__name__} wants fields by name; got {shown(fields)}")
        known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise InputError(f"unknown keys in a {cls.__name__}: {', '.join(unknown)}; known are {', '.join(known)}")
        missing = [name for name, is_required in known.items() if is_required and name not in fields]
        if missing:
            raise InputError(f"missing keys in a {cls.__name__}: {', '.join(missing)}; add them")
        return cls(**fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Longer wavelengths for RoPE, for sequences longer than those that a model first learned from (Llama 3.1).

    With w = length / wavelength, a frequency f becomes f (s + (1 - s) / factor), where s rises linearly from 0 at
    w = low to 1 at w = high, and is constant beyond. With length 0 all are divided by the factor.

    Attributes:
      factor: what the lowest frequencies are divided by.
      low: as above.
      high: as above.
      length: of the sequences that the model first learned from.
    """

    factor: Annotated[float, Range(1, 1e6)]
    low: Annotated[float, Range(0, 1e6)] = 1.0
    high: Annotated[float, Range(0, 1e6)] = 4.0
    length: Annotated[int, Range(0, 1 << 24)] = 0

    def __post_init__(self) -> None:
        check_ranges(self, name_of=lambda path: f"RopeScaling.{path}")
        if self.low >= self.high:
            raise InputError(f"RopeScaling.low must be below high = {shown(self.high)}; got {shown(self.low)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(ModelConfig):
    """Everything that fixes a Transformer's parameters and its function.

    Attributes:
      vocab_size: V, the number of logits.
      num_extra_tokens: rows of the embedding beyond V, such as one for the mask token. They are never predicted.
      max_length: the longest sequence, and the rows of learned positions.
      num_layers: the number of blocks.
      num_heads: query heads.
      width: D, of the residual stream.
      mlp_width: of the MLP's hidden layer.
      num_kv_heads: heads of keys and values; None for as many as query heads.
      head_dim: width of one head; None for width / num_heads.
      causal: whether a position sees only itself and those before it.
      norm: "rms" (root mean square, a scale) or "layer" (mean and variance; with use_bias also a bias).
      norm_epsilon: added to the mean square.
      positions: "rope" (rotates queries and keys) or "learned" (an embedding added to the tokens').
      rope_theta: the base of RoPE's wavelengths.
      rope_scaling: makes them longer; None for not.
      mlp: "swiglu" (down(silu(gate) · up)), "gelu" (down(gelu(up)), tanh approximation) or "gelu_exact".
      use_bias: a bias in every linear layer but the head, and in "layer" norms.
      qkv_bias: a bias in those of queries, keys and values, whatever the others have.
      qk_norm: normalise each head's queries and keys, as `norm` says, before RoPE.
      tie_head: the head is the transposed token embedding.
      shift_logits: whether what is computed at position i - 1 predicts token i (and at 0, tokens 0 and 1), as in
        networks that were causal once, and in Ye et al. 2024.
      dropout: rate after the embedding and after each sub-layer, as in GPT-2. Attention probabilities are not dropped,
        unlike GPT-2's: fused attention kernels never form them.
      pad_id: a token that attention hides; positions then count from the first token that is another. None for none.
      dtype: what matrix products multiply in; sums, norms, softmax and the residual stream are float32.
      param_dtype: what the parameters are stored in.
      remat: recompute each block in the backward pass instead of storing its activations.
      init_std: of the normal initialisation; outputs into the residual stream get init_std / √(2 · num_layers).
    """

    num_layers: Annotated[int, Range(1, 1_000)]
    num_heads: Annotated[int, Range(1, INT32)]
    width: Annotated[int, Range(1, INT32)]
    mlp_width: Annotated[int, Range(1, INT32)]
    num_kv_heads: Annotated[int, Range(1, INT32)] | None = None
    head_dim: Annotated[int, Range(1, INT32)] | None = None
    causal: bool = False
    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: Annotated[float, Range(above=0, most=1)] = 1e-5
    positions: Literal["rope", "learned"] = "rope"
    rope_theta: Annotated[float, Range(above=0, most=1e30)] = 10_000.0
    rope_scaling: RopeScaling | None = None
    mlp: Literal["swiglu", "gelu", "gelu_exact"] = "swiglu"
    use_bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    tie_head: bool = False
    shift_logits: bool = False
    dropout: Annotated[float, Range(0, below=1)] = 0.0
    pad_id: Annotated[int, Range(0, INT32)] | None = None
    remat: bool = False
    init_std: Annotated[float, Range(above=0, most=1e3)] = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        is_row = self.pad_id is None or self.pad_id < self.num_tokens
        self._check("pad_id", is_row, f"None or an embedding row, 0 to {self.num_tokens - 1}")
        for name in _FLAGS:
            self._check(name, isinstance(getattr(self, name), bool), "True or False")
        for name, choices in _CHOICES.items():
            self._check_choice(name, choices)
        is_free = self.head_dim is not None
        fits = is_free or self.width % self.num_heads == 0
        self._check("num_heads", fits, f"a divisor of width = {self.width}")
        self._check("num_kv_heads", self.num_heads % self.kv_heads == 0, f"a divisor of num_heads = {self.num_heads}")
        self._check("shift_logits", not (self.shift_logits and self.causal), "False where causal, which shifts already")
        is_scaled = isinstance(self.rope_scaling, RopeScaling) and self.positions == "rope"
        wanted = 'None, or a RopeScaling where positions is "rope"'
        self._check("rope_scaling", self.rope_scaling is None or is_scaled, wanted)
        is_even = self.positions != "rope" or self.head_width % 2 == 0
        name, even = "num_heads", f"such that width / num_heads = {self.head_width} is even"
        name, even = ("head_dim", "even") if is_free else (name, even)
        self._check(name, is_even, f"{even}: RoPE turns pairs")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; see ModelConfig."""
        scaling = fields.get("rope_scaling") if isinstance(fields, Mapping) else None
        if isinstance(scaling, Mapping):
            known = {field.name for field in dataclasses.fields(RopeScaling)}
            if not {"factor"} <= set(scaling) <= known:
                raise InputError(f"a rope_scaling has {', '.join(sorted(known))}; got {shown(scaling)}")
            fields = {**fields, "rope_scaling": RopeScaling(**scaling)}
        return super().from_json(fields)

    @property
    def num_positions(self) -> int:
        """Rows of learned positions."""
        return self.max_length

    def num_vectors(self, length: int) -> int:
        """How many vectors the layers compute of a sequence of this length."""
        return length

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def mlp_products(self) -> int:
        """Multiplications of the MLP of one layer at one position."""
        return (3 if self.mlp == "swiglu" else 2) * self.width * self.mlp_width

    def forward_flops(self, length: int, num_logits: int | float) -> float:
        """Floating-point operations of one forward pass over one sequence; see ModelConfig."""
        length = self.num_vectors(length)
        projections = self.width * self.head_width * (2 * self.num_heads + 2 * self.kv_heads)
        attention = 2 * length * self.num_heads * self.head_width / (2 if self.causal else 1)
        per_position = self.num_layers * (projections + self.mlp_products + attention)
        return 2 * (length * per_position + num_logits * self.width * self.vocab_size)
