"""Models of random parameters in folders, as `export` writes them."""

import jax

from mdm_jax.models import kinds
from mdm_jax.models.weights import save_weights
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.training.config import write_config

SMALL = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 32, "positions": "learned"}
COMMON = {"num_train": 100, "num_test": 8, "seed": 0, "init_from": None}
SUDOKU = {"name": "sudoku", "clues": None, "difficulty": None, "source": None, **COMMON}


def write(folder, task, scale=1.0, **fields):
    """A network that fits a task, all of its parameters multiplied by `scale`."""
    config = kinds.from_json({"kind": "transformer", **SMALL, **fields})
    write_config(folder, {"model": kinds.to_json(config), "task": task})
    params = jax.tree.map(lambda leaf: leaf * scale, kinds.init_params(config, jax.random.key(0)))
    save_weights(folder, params, dtype="float32")
    return folder


def write_sudoku(folder, layout="in-place", size=4, **options):
    network = sudoku_layouts.get(layout, size).network
    return write(folder, SUDOKU | {"size": size, "layout": layout}, **network, **options)
