"""What a program needs that samples, or trains with its own data: the package without its extras."""

import os
import subprocess
import sys
import tomllib

import pytest
from commands import ENV, ROOT
from languages import write_tokenizer

import experiments

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WITHOUT = f"import sys\nsys.modules.update(dict.fromkeys({experiments.EXTRA}))\n"
"""Makes as if the packages of the extra were not installed."""

OWN_PROGRAM = """
import jax
import jax.numpy as jnp
import numpy as np

import mdm_jax
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import make_mesh
from mdm_jax.training.loop import LoopConfig, fit
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import OptimizerConfig


class OwnBatches:
    position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        digits = np.random.default_rng(self.position).integers(1, 8, (8, 1))
        return {"tokens": np.repeat(digits, 6, axis=1).astype(np.int32), "is_prompt": np.zeros((8, 6), bool)}

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


config = TransformerConfig(vocab_size=8, max_length=6, num_layers=1, num_heads=2, width=16, mlp_width=32)
fit(
    sys.argv[1],
    apply=make_denoiser(config),
    init_params=lambda key: init_params(config, key),
    loss=masked_loss(0),
    batches=OwnBatches(),
    to_batch=dict,
    optimizer=OptimizerConfig(num_steps=3, warmup_steps=1),
    loop=LoopConfig(batch_size=8, log_every=1),
    mesh=make_mesh(),
)
model = mdm_jax.load(sys.argv[1])
x_init = jnp.zeros((1, 6), int)
found = mdm_jax.sample(model.denoiser, model.params, jax.random.key(1), x_init, mask_id=0, selector=mdm_jax.TopK(2))
assert (found.tokens != 0).all()
assert mdm_jax.load("sudoku-6m").config.max_length == 81
"""


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_own_program_trains_samples_and_loads_shipped_weights_without_the_extra(tmp_path):
    done = run(WITHOUT + OWN_PROGRAM, tmp_path / "run")
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "TensorBoard" in line]
    assert said == [
        "no TensorBoard events are written, only metrics.jsonl: this needs the package tensorboardX, which is not "
        "installed: pip install 'mdm_jax[experiments]'"
    ]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert not os.path.exists(tmp_path / "run" / "tensorboard")


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        ("import numpy; from mdm_jax.data.pipeline import Batches\n", "grain"),
        ("import mdm_jax.tasks.sudoku.kernels", "numba"),
        ("import mdm_jax.report.plots", "matplotlib"),
    ],
    ids=["grain", "numba", "matplotlib"],
)
def test_what_needs_the_extra_says_in_one_line_how_to_install_it(program, missing):
    use = "" if missing != "grain" else "Batches({'x': numpy.zeros((2, 1))}, batch_size=1, seed=0)"
    done = run(WITHOUT + program + use)
    line = done.stderr.splitlines()[-1]
    assert line == (
        f"mdm_jax.errors.MissingExtraError: this needs the package {missing}, which is not installed: "
        "pip install 'mdm_jax[experiments]'"
    )


@pytest.mark.parametrize("missing", ["tokenizers", "jinja2"])
def test_text_without_its_extra_says_in_one_line_how_to_install_it(tmp_path, missing):
    write_tokenizer(tmp_path)
    program = f"""
import sys
sys.modules["{missing}"] = None
from mdm_jax.text.tokenizer import read_tokenizer
read_tokenizer(sys.argv[1]).chat([{{"role": "user", "content": "x"}}])
"""
    assert run(program, tmp_path).stderr.splitlines()[-1] == (
        f"mdm_jax.errors.MissingExtraError: this needs the package {missing}, which is not installed: "
        "pip install 'mdm_jax[text]'"
    )


def test_command_without_the_extra_is_refused_in_one_line():
    done = run(WITHOUT + "import runpy\nrunpy.run_module('experiments.sudoku', run_name='__main__')")
    assert done.returncode == 2
    missing = ", ".join(experiments.EXTRA)
    assert done.stderr == f"error: {missing} missing: pip install -e '.[experiments]', in mdm_jax's folder\n"


def test_extra_is_what_the_commands_look_for():
    named = {requirement.partition(">")[0] for requirement in PROJECT["optional-dependencies"]["experiments"]}
    assert named == set(experiments.EXTRA)
