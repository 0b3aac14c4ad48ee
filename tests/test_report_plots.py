"""Figures say what they are to say: what coincides is named once, ticks are what was measured, all in PNG and SVG."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from mdm_jax.report import bars, plots
from mdm_jax.report.heat import Cell, heat_map
from mdm_jax.report.labels import coinciding, spread
from mdm_jax.report.plots import Curve
from mdm_jax.report.puzzle_pictures import Board, animation, reveal_order

SVG = "{http://www.w3.org/2000/svg}"
SOLUTION = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])
STEPS = np.array([-1, 0, 1, 2, 3, -1, 4, -1, -1, 5, -1, 6, 7, -1, 8, -1])


@pytest.fixture
def texts_of():
    """The texts of a figure, as its SVG file has them."""

    def read(path):
        tree = ElementTree.parse(path.with_suffix(".svg"))
        return [" ".join(node.itertext()).strip() for node in tree.iter(f"{SVG}text")]

    with mpl.rc_context({"svg.fonttype": "none"}):
        yield read


def orders(*, apart):
    ticks = [1, 2, 3, 4, 6, 8, 12, 81]
    high = [0.97, 0.98, 0.97, 0.96, 0.93, 0.88, 0.8, 0.0]
    return {
        "random": Curve(ticks, [0.3, 0.25, 0.24, 0.2, 0.15, 0.1, 0.05, 0.0], [0.2] * 8, [0.4] * 8),
        "top_prob": Curve(ticks, high),
        "margin": Curve(ticks, [share + apart for share in high]),
    }


def test_ticks_are_the_values_measured_and_the_paper_is_drawn_in(tmp_path, texts_of):
    path = tmp_path / "curves.png"
    labels = {"x_label": "cells per step", "y_label": "solved (%)", "title": "Orders"}
    paper = {"margin": (0.8949, 0.8949)}
    plots.curves(path, orders(apart=0), log_x=True, paper=paper, paper_x=1, **labels)
    assert path.read_bytes().startswith(b"\x89PNG")
    texts = texts_of(path)
    assert [text for text in texts if text.isdigit()][:8] == ["1", "2", "3", "4", "6", "8", "12", "81"]
    assert {"cells per step", "solved (%)", "Orders", "paper, margin: 89.49%"} <= set(texts)


@pytest.mark.parametrize(("apart", "name"), [(0, "= margin"), (0.1, "margin")])
def test_curves_that_coincide_are_named_together_and_others_alone(tmp_path, texts_of, apart, name):
    path = tmp_path / "curves.png"
    plots.curves(path, orders(apart=apart), x_label="x", y_label="y", title="t")
    assert {"random", "top probability", name} <= set(texts_of(path))


def test_same_figure_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        bars.bars(tmp_path / f"{name}.png", orders(apart=0), x_label="x", y_label="y", title="t")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_coinciding_compares_curves_over_the_x_that_both_reach():
    x = np.arange(4.0)
    drawn = {"a": (x, x), "b": (x[:2], x[:2] + 0.01), "c": (x[2:], x[2:] + 1), "d": (x + 10, x)}
    assert coinciding(drawn, 1.0) == [["a", "b"], ["c"], ["d"]]
    flat = (x[[0, 3]], np.zeros(2))  # begins where the others do, and shares no other point with them
    assert coinciding({"flat": flat, "rising": (np.array([0.0, 1, 2]), np.array([0.0, 1, 2]))}, 1.0) == [
        ["flat"],
        ["rising"],
    ]
    assert coinciding({"left": (x, x), "right": (x + 3, x + 3)}, 1.0) == [["left"], ["right"]]
    assert coinciding({"line": (x, x), "point": (x[:1], x[:1])}, 1.0) == [["line", "point"]]


def test_spread_keeps_the_order_and_leaves_room():
    places = spread([1.0, 1.1, 1.2, 9.0], [1.0, 1.0, 2.0, 1.0], -10.0, 10.0)
    gaps = np.diff(places)
    assert (gaps >= np.array([1.0, 1.5, 1.5]) - 1e-6).all()
    assert places[-1] == 9.0


def test_spread_stays_between_its_ends_where_all_fit():
    places = spread([8.0, 9.5, 9.9], [1.0, 1.0, 2.0], 0.0, 10.0)
    assert places[-1] <= 9.0 + 1e-6
    assert (np.diff(places) >= np.array([1.0, 1.5]) - 1e-6).all()
    assert np.diff(spread([8.0, 9.5, 9.9], [4.0, 4.0, 4.0], 0.0, 10.0)) == pytest.approx(4.0)  # they do not fit


def test_many_curves_of_a_figure_have_styles_of_their_own():
    styles = plots.styles_of({f"way {i}": None for i in range(10)})
    assert len({color for color, _ in styles.values()}) == 10


def test_labels_of_ticks_do_not_lie_on_each_other(tmp_path, texts_of):
    x = [3, 6, 7.125, 8.875, 12, 13.0625, 94.12, 999.7, 1234]
    curve = {"random": Curve(x, [0.5] * len(x))}
    plots.curves(tmp_path / "curves.png", curve, log_x=True, x_label="x", y_label="y", title="t")
    texts = texts_of(tmp_path / "curves.png")
    assert {"3", "7.12", "13.1", "94.1", "1,234"} <= set(texts)
    assert not {"6", "8.88", "12", "1e+03", "1,000"} & set(texts)


def test_dots_show_the_paper_and_ours_with_their_values(tmp_path, texts_of):
    path = tmp_path / "dots.png"
    ours = Curve(["random", "margin"], [0.303, 0.972], [0.28, 0.96], [0.33, 0.98])
    bars.dots(path, {"paper": Curve(["margin"], [0.8949]), "ours": ours}, x_label="solved (%)", title="t")
    assert {"30.3%", "97.2%", "89.49%", "paper", "ours", "random", "margin"} <= set(texts_of(path))


def test_heat_map_has_each_share_with_its_note_and_leaves_out_what_was_not_measured(tmp_path, texts_of):
    above = {"2 loops": {"1": Cell(0.972, "24 passes"), "8": Cell(0.006, is_framed=True)}}
    for name in ("a", "b"):
        heat_map(tmp_path / f"{name}.png", [above, {"margin": {"8": Cell(1.0)}}], x_label="cells a step", title="t")
    texts = texts_of(tmp_path / "a.png")
    assert {"97.2%", "24 passes", "0.6%", "100.0%", "2 loops", "margin", "cells a step", "t"} <= set(texts)
    assert [text for text in texts if text.isdigit()] == ["1", "8"]
    assert len([text for text in texts if text.endswith("%")]) == 3
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_heat_map_frames_the_cells_that_are_marked(tmp_path):
    for is_framed in (False, True):
        cells = {"1": Cell(0.5, is_framed=is_framed), "2": Cell(0.9)}
        heat_map(tmp_path / f"{is_framed}.png", [{"a": cells}], x_label="x", title="t")
        assert (tmp_path / f"{is_framed}.svg").read_text().count(f"stroke: {plots.RED.lower()}") == is_framed


def test_order_picture_counts_wrong_cells(tmp_path, texts_of):
    wrong = np.where(STEPS == 8, 1, SOLUTION)
    boards = {"random": Board(wrong, STEPS), "margin": Board(SOLUTION, STEPS)}
    reveal_order(tmp_path / "order.png", boards, SOLUTION, box=(2, 2), title="4x4")
    texts = texts_of(tmp_path / "order.png")
    assert {"random: 1 wrong", "margin: solved"} <= set(texts)
    assert len([text for text in texts if re.fullmatch("[1-4]", text)]) >= 32


def test_animation_has_a_frame_for_the_givens_and_one_for_each_step(tmp_path):
    animation(tmp_path / "order.gif", {"margin": Board(SOLUTION, STEPS)}, SOLUTION, box=(2, 2), title="4x4")
    with Image.open(tmp_path / "order.gif") as image:
        assert image.n_frames == 1 + 9
        shown = []
        for frame in range(image.n_frames):
            image.seek(frame)
            shown.append(np.asarray(image.convert("L")))
            assert image.info["duration"] >= 180
    assert all((before != after).any() for before, after in itertools.pairwise(shown))
