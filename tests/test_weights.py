"""The weights that come with the package: they load by name, and they solve puzzles that they never saw."""

import functools
import pathlib

import numpy as np
import pytest

import mdm_jax
from mdm_jax.evaluation.puzzles import fill_in
from mdm_jax.loading import SHIPPED
from mdm_jax.models.kinds import num_params
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.sets import generate_rated


@pytest.fixture(scope="module")
def model():
    return mdm_jax.load("sudoku-6m")


@pytest.mark.parametrize("name", ["sudoku-6m", "sudoku-6m-long", "sudoku-6m-looped", "sudoku-6m-hard"])
def test_weights_have_six_million_parameters_in_a_small_file_with_a_card(name):
    model = mdm_jax.load(name)
    assert 5e6 < num_params(model.params) < 7e6
    files = {path.name: path for path in (SHIPPED / name).iterdir()}
    assert set(files) == {"model.safetensors", "config.json", "README.md"}
    assert files["model.safetensors"].stat().st_size <= 14 * 2**20
    assert f"{num_params(model.params):,} parameters" in files["README.md"].read_text()


@pytest.mark.slow
def test_sudoku_6m_solves_held_out_puzzles_by_margin_and_far_fewer_in_random_order(model):
    assert solved(model, "normal", "margin") >= 7 / 8  # 97% are expected
    assert solved(model, "normal", "random") <= 4 / 8  # 30% are expected


@pytest.mark.slow
def test_sudoku_6m_hard_solves_held_out_puzzles():
    model = mdm_jax.load("sudoku-6m-hard")
    assert solved(model, "normal", "margin") >= 7 / 8  # 99% are expected
    assert solved(model, "hard", "margin", num=12) >= 0.4  # 74% are expected


@pytest.mark.slow
def test_sudoku_6m_long_solves_held_out_puzzles():
    model = mdm_jax.load("sudoku-6m-long")
    assert solved(model, "normal", "margin") >= 7 / 8
    assert solved(model, "hard", "margin", num=12) >= 0.4


@pytest.mark.slow
def test_sudoku_6m_looped_solves_hard_puzzles_in_any_order():
    model = mdm_jax.load("sudoku-6m-looped")
    assert solved(model, "hard", "margin", num=12) >= 0.7
    assert solved(model, "normal", "random") >= 5 / 8  # 94% of 128 are known


@pytest.mark.slow
def test_sudoku_6m_solves_hard_puzzles_by_margin(model):
    assert solved(model, "hard", "margin", num=12) >= 0.4  # 5 of 12, of which 72% are expected


def solved(model, difficulty, oracle, num=8):
    """The share of held-out puzzles that it solves, other ones than those that its card is about."""
    parts = [part["puzzle"] for part in generate_rated(num, difficulty=difficulty, split="test", seed=1)]
    puzzles = np.concatenate(parts)
    decode = functools.partial(
        mdm_jax.sample,
        model.denoiser,
        model.params,
        mask_id=0,
        oracle=getattr(mdm_jax.oracles, oracle),
        temperature=0.0,
    )
    filled = fill_in(decode, puzzles.astype(np.int32), padding=np.ones(81, np.int32))
    return sudoku.is_solved(filled.tokens, puzzles).mean()


def test_shipped_name_gives_way_to_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("sudoku-6m").mkdir()
    with pytest.raises(mdm_jax.InputError, match=r"config\.json"):
        mdm_jax.load("sudoku-6m")
