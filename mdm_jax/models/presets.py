"""Named configurations, each with its exact number of parameters.

Compute and parameter dtypes are float32 except for the two published models of 7 and 8 billion parameters;
`dataclasses.replace(config, dtype="bfloat16")` multiplies in bfloat16 and keeps float32 parameters.
"""

from mdm_jax.errors import InputError, shown
from mdm_jax.models.config import ModelConfig, TransformerConfig

sudoku_6m = TransformerConfig(
    vocab_size=31,
    max_length=512,
    num_layers=3,
    num_heads=12,
    width=384,
    mlp_width=1536,
    norm="layer",
    positions="learned",
    mlp="gelu",
    use_bias=True,
    tie_head=True,
    dropout=0.1,
)
"""5,532,672 parameters. The MDM of the paper's Tables 2 and 5: Ye et al.'s tiny GPT-2 without the causal mask. V counts
its tokenizer's mask token."""

sudoku_6m_deep = TransformerConfig(
    vocab_size=10, max_length=81, num_layers=7, num_heads=8, width=256, mlp_width=1024, positions="learned", mlp="gelu"
)
"""5,534,720 parameters. As many as the paper's in more than twice as many layers: what the shipped weights are."""

sudoku_8x256 = TransformerConfig(
    vocab_size=11, max_length=162, num_layers=8, num_heads=8, width=256, mlp_width=768, norm_epsilon=1e-6
)
"""6,825,728 parameters. The network of PUMA (arXiv:2602.10314), by the paper's first author, for the same puzzles."""

sudoku_800k = TransformerConfig(
    vocab_size=10, max_length=81, num_layers=4, num_heads=4, width=128, mlp_width=512, positions="learned", mlp="gelu"
)
"""800,512 parameters. Small enough for the demo to train in minutes on two CPU cores."""

SMDM: dict[str, tuple[int, int, int]] = {
    "6m": (6, 4, 256),
    "19m": (8, 6, 384),
    "34m": (8, 8, 512),
    "48m": (9, 9, 576),
    "66m": (10, 10, 640),
    "85m": (13, 10, 640),
    "113m": (12, 12, 768),
    "142m": (15, 12, 768),
    "170m": (18, 12, 768),
    "206m": (16, 14, 896),
    "231m": (18, 14, 896),
    "268m": (16, 16, 1024),
    "302m": (18, 16, 1024),
    "336m": (20, 16, 1024),
    "472m": (18, 10, 1280),
    "1028m": (20, 14, 1792),
}
"""Layers, heads and width of SMDM's models, by their number of parameters without embedding and head."""


def smdm(size: str) -> TransformerConfig:
    """A model of SMDM's text study, such as "170m"; row 32,000 is the mask token.

    Raises:
      InputError: there is none of that size.
    """
    if size not in SMDM:
        raise InputError(f"SMDM has no model of size {shown(size)}; choose one of {', '.join(SMDM)}")
    num_layers, num_heads, width = SMDM[size]
    return TransformerConfig(
        vocab_size=32_000,
        num_extra_tokens=1,
        max_length=2048,
        num_layers=num_layers,
        num_heads=num_heads,
        width=width,
        mlp_width=4 * width,
    )


smdm_19m = smdm("19m")
"""18,880,896 parameters without embedding and head (43,457,280 with). SMDM's 19M, used for L&O-NAE-SAT."""

smdm_170m = smdm("170m")
"""169,897,728 parameters without embedding and head (219,050,496 with). SMDM's 170M, used for text."""

arm_42m = TransformerConfig(
    vocab_size=11,
    max_length=243,
    num_layers=8,
    num_heads=8,
    width=576,
    mlp_width=3456,
    causal=True,
    norm="layer",
    positions="learned",
    mlp="gelu",
    dropout=0.2,
)
"""42,629,760 parameters. The size of Shah et al.'s puzzle ARM (42,654,528), as a pre-norm block without biases; theirs
has no norm before a sub-layer, normalises queries and keys, and has biases in the MLP."""

llada_8b = TransformerConfig(
    vocab_size=126_464,
    max_length=4096,
    num_layers=32,
    num_heads=32,
    width=4096,
    mlp_width=12_288,
    rope_theta=500_000.0,
    dtype="bfloat16",
    param_dtype="bfloat16",
)
"""8,015,581,184 parameters. LLaDA-8B; the mask token is 126,336, below V."""

llama2_7b = TransformerConfig(
    vocab_size=32_000,
    max_length=4096,
    num_layers=32,
    num_heads=32,
    width=4096,
    mlp_width=11_008,
    causal=True,
    dtype="bfloat16",
    param_dtype="bfloat16",
)
"""6,738,415,616 parameters. Llama-2-7B, the judge of generative perplexity."""

gpt2 = TransformerConfig(
    vocab_size=50_257,
    max_length=1024,
    num_layers=12,
    num_heads=12,
    width=768,
    mlp_width=3072,
    causal=True,
    norm="layer",
    positions="learned",
    mlp="gelu",
    use_bias=True,
    tie_head=True,
    dropout=0.1,
)
"""124,439,808 parameters. GPT-2 (small)."""

PRESETS: dict[str, ModelConfig] = {
    "sudoku_6m": sudoku_6m,
    "sudoku_6m_deep": sudoku_6m_deep,
    "sudoku_8x256": sudoku_8x256,
    "sudoku_800k": sudoku_800k,
    **{f"smdm_{size}": smdm(size) for size in SMDM},
    "smdm_19m": smdm_19m,
    "smdm_170m": smdm_170m,
    "arm_42m": arm_42m,
    "llada_8b": llada_8b,
    "llama2_7b": llama2_7b,
    "gpt2": gpt2,
}


def get(name: str) -> ModelConfig:
    """The configuration called `name`.

    Raises:
      InputError: there is none of that name.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
