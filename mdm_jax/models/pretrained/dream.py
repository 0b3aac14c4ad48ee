"""Dream 7B: Qwen2.5's network without the causal mask, each output predicting the token after it, as before."""

from mdm_jax.models.pretrained import llama, qwen2
from mdm_jax.models.pretrained.family import Family

DREAM = Family(
    name="Dream",
    architecture="DreamModel",
    settings=llama.SETTINGS,
    fixed=qwen2.FIXED,
    ours=llama.OURS | {"shift_logits": True, "qkv_bias": True},
    read=qwen2.read,
    write=llama.write,
    passed_over=qwen2.PASSED_OVER,
    layer="model.layers.{i}.",
    tensors=llama.TENSORS,
)
