"""Oracles as the command line names them: ours, and the user's own."""

import sys

import pytest

import mdm_jax
from experiments.flags import DecodeFlags
from experiments.oracles import oracle_named
from mdm_jax import InputError, oracles


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder on the path, with a package of the user's own; their names are forgotten afterwards."""
    files = {
        "__init__": "",
        "scores": "def peaked(key, confidence):\n    return confidence.top_prob**2 - confidence.entropy\nnumber = 3\n",
        "broken": "def peaked(key:\n",
        "leaves": "raise SystemExit('usage: ...')\n",
    }
    (tmp_path / "my_orders").mkdir()
    for name, text in files.items():
        (tmp_path / "my_orders" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my_orders"]:
        del sys.modules[name]


OTHERS = ("Static", "as_tree", "WithNoise", "with_noise", "WithLast", "with_last", "score_rows")
"""What is no oracle in the module of oracles."""


def test_every_oracle_of_the_library_has_its_name_in_the_table():
    public = {name for name, value in vars(oracles).items() if getattr(value, "__module__", "") == oracles.__name__}
    public = {
        name
        for name in public
        if name[0] != "_"
        and name not in OTHERS
        and name not in ("Static", "as_tree", "WithNoise", "with_noise", "WithLast", "with_last", "score_rows")
    }
    assert set(mdm_jax.oracles.ORACLES) == public
    assert all(oracle_named(name) is getattr(oracles, name) for name in public)


def test_own_oracle_is_imported_by_package_module_and_function(own):
    chosen = DecodeFlags(oracle="margin,my_orders.scores:peaked").oracles()
    assert list(chosen) == ["margin", "my_orders.scores:peaked"]
    assert chosen["my_orders.scores:peaked"] is sys.modules["my_orders.scores"].peaked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best", r"unknown oracle 'best'; choose from random, .*log_margin, or give package.module:function"),
        ("", "unknown oracle ''"),
        (":margin", "unknown oracle ':margin'"),
        ("my_orders.scores", "unknown oracle 'my_orders.scores'"),
        ("my_orders.scores:", "unknown oracle 'my_orders.scores:'"),
        ("x" * 5000, "unknown oracle 'xxx"),
        ("my_orders.none:f", "cannot import the oracle 'my_orders.none:f': ModuleNotFoundError: No module named"),
        ("my_orders.broken:f", "cannot import the oracle 'my_orders.broken:f': SyntaxError"),
        ("my_orders.leaves:f", "cannot import the oracle 'my_orders.leaves:f': SystemExit: usage"),
        (".scores:f", "cannot import the oracle '.scores:f': TypeError"),
        ("my_orders.scores:flat", "cannot use the oracle 'my_orders.scores:flat': its module holds no 'flat'"),
        ("my_orders.scores:number", "cannot use the oracle 'my_orders.scores:number': it is no function"),
    ],
)
def test_oracle_that_cannot_be_used_is_one_line(own, name, message):
    with pytest.raises(InputError, match=message) as refused:
        oracle_named(name)
    assert len(str(refused.value)) <= 1000
    assert "\n" not in str(refused.value)
