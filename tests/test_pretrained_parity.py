"""Networks of other programs compute here what they compute there: logits and every gradient, from one file."""

import jax
import numpy as np
import pytest
from hub import FAMILIES, TOKENS, random_tensors, write
from safetensors.numpy import load_file

from mdm_jax.models.kinds import make_denoiser
from mdm_jax.models.pretrained.folder import read_folder, write_folder


def weighed(logits):
    """A number that depends on every logit in its own way."""
    return (logits * jax.random.normal(jax.random.key(2), logits.shape)).sum() / 20


def both(network, params):
    """Logits, and the gradient of `weighed` by the parameters."""

    @jax.jit
    def compute(params):
        logits, pull = jax.vjp(lambda params: network(params, TOKENS), params)
        return logits, pull(jax.grad(weighed)(logits))[0]

    return compute(params)


def assert_ours_agree(folder, fields, logits, gradients):
    """Ours, of the folder's files, to 1e-4; the gradients are theirs by name."""
    config, params = read_folder(folder, fields)
    denoiser = make_denoiser(config)
    ours, gradient = both(denoiser, params)
    np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-4)
    write_folder(folder / "gradients", config, gradient)
    found = load_file(folder / "gradients" / "model.safetensors")
    assert set(found) == set(gradients)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-4, err_msg=name)
        # A key's bias that RoPE does not turn adds the same to all scores of a query.
        assert np.abs(gradient).max() > 0.02 or name.endswith("self.key.bias"), f"{name} has a gradient to compare"


# The others are variants of these.
FIRST = ("gpt2", "llama", "llada", "dream")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FIRST)) for name in FAMILIES]
)
def test_family_agrees_with_its_network_in_plain_jax(name, tmp_path):
    fields, shapes, network = FAMILIES[name]
    tensors = random_tensors(shapes)
    write(tmp_path, fields, tensors)
    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"):
        logits, gradients = both(network, tensors)
    assert_ours_agree(tmp_path, fields, logits, gradients)
