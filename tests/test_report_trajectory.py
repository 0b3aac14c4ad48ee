"""The viewer's page: what it holds, that nothing escapes from it, and that it plays, in node and in a browser."""

import functools
import html
import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.evaluation.replay import AtReveal, Trace
from mdm_jax.report.board import Board
from mdm_jax.report.events import page_data
from mdm_jax.report.film import Film
from mdm_jax.report.trajectory import to_html, write_html
from mdm_jax.sampling import SampleResult

HERE = pathlib.Path(__file__).parent
EVIL = ["", "</script><script>alert(1)</script>", "<b>&amp;", "\u2028\n\ud800 end"]
CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)


def result(tokens, steps):
    return SampleResult(jnp.asarray([tokens]), jnp.asarray([steps]), jnp.zeros(1), jnp.int32(max(steps) + 1))


ONE = result([1, 2, 3, 1], [-1, 0, 1, 2])
TWO = result([1, 3, 3, 2], [-1, 4, 1, 0])
SOLUTION = [1, 2, 3, 1]
MASK = 9
CORRECTED = Trace(np.array([[[1, 9, 9, 9]], [[1, 2, 9, 2]], [[1, 9, 3, 2]], [[1, 2, 3, 1]]], np.int32), MASK)
SAID = {"one": AtReveal(np.array([[np.nan, 0.5, 0.25, 1.0]]), np.array([[np.nan, 0.5, 0.7, 0.0]]))}
DIGITS = ["", "1", "2", "3"]


def page(results=None, **options):
    options = {"pieces": DIGITS, "board": Board.grid(2, 2, box=(1, 2)), "solution": SOLUTION} | options
    return to_html(results or {"one": ONE, "two": TWO}, **options)


class Tree(html.parser.HTMLParser):
    """A page as nested [tag, attributes, children], as a browser reads it where every element is closed."""

    VOID = ("meta", "input")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open = [["document", {}, []]]
        self.feed(text)
        self.close()
        assert len(self.open) == 1, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        node = [tag, dict(attrs), []]
        self.open[-1][2].append(node)
        if tag not in self.VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.open[-1][2].append(data)

    def walk(self, node=None):
        node = node or self.open[0]
        yield node
        for child in node[2]:
            if not isinstance(child, str):
                yield from self.walk(child)


def embedded(text):
    (data,) = [node for node in Tree(text).walk() if node[1].get("id") == "data"]
    return json.loads("".join(data[2]))


def test_page_holds_what_was_written_at_which_call_and_what_is_wrong():
    found = page_data({"one": ONE, "two": TWO}, pieces=DIGITS, solution=SOLUTION, at_reveal=SAID)
    one, two = found["panels"]
    assert one["given"] == two["given"] == [[0, "1"]]
    assert one["events"] == [[0, 1, "2", 0, 0.5, 0.5], [1, 2, "3", 0, 0.25, 0.7], [2, 3, "1", 0, 1.0, 0.0]]
    assert two["events"] == [[0, 3, "2", 1, None, None], [1, 2, "3", 0, None, None], [4, 1, "3", 1, None, None]]
    assert found["calls"] == [0, 1, 2, 4]
    assert (one["wrong"], two["wrong"], found["parting"]) == (0, 2, 0)
    assert found["differs"] == {"position": 1, "call": 0, "said": [["2", 0], ["3", 4]]}
    rows = {line[0]: dict(zip(found["statistics"]["heads"], line, strict=True)) for line in found["statistics"]["rows"]}
    assert rows["one"] == {
        "order": "one",
        "wrong": "0",
        "left-to-rightness": "1.00",
        "τ, reading order": "1.00",
        "relative jump": "0.75",
        "τ, one": "1.00",
        "entropy at reveal": "0.400",
    }
    assert (rows["two"]["τ, reading order"], rows["two"]["τ, one"]) == ("-1.00", "-1.00")


def test_same_decodings_neither_part_nor_disagree():
    found = page_data({"one": ONE, "again": ONE}, pieces=DIGITS)
    assert found["parting"] is None
    assert found["differs"] is None


def test_trace_of_a_corrector_shows_what_was_taken_back_and_written_anew():
    (panel,) = page_data({"remask": CORRECTED}, pieces=DIGITS, solution=SOLUTION, at_reveal={"remask": SAID["one"]})[
        "panels"
    ]
    assert panel["events"] == [
        [0, 1, "2", 0, None, None],
        [0, 3, "2", 1, 1.0, 0.0],
        [1, 2, "3", 0, 0.25, 0.7],
        [1, 1, None, 0, None, None],
        [2, 1, "2", 0, 0.5, 0.5],
        [2, 3, "1", 0, None, None],
    ]
    assert panel["corrects"]


def test_position_that_is_never_filled_in_is_missing_and_wrong():
    (panel,) = page_data({"arm": Trace(np.array([[[9, 9]], [[1, 9]]]), MASK)}, pieces=DIGITS, solution=[1, 2])["panels"]
    assert (panel["missing"], panel["wrong"]) == ([1], 1)


def test_text_of_any_kind_comes_back_as_it_was_and_ends_no_element():
    text = page({"<i>one</i>": ONE}, pieces=EVIL, title="</title><script>x</script> & \n more", solution=None)
    nodes = list(Tree(text).walk())
    assert [node[0] for node in nodes].count("script") == 2
    (title,) = [node for node in nodes if node[0] == "title"]
    assert "".join(title[2]) == "</title><script>x</script> & more"
    (panel,) = embedded(text)["panels"]
    assert (panel["name"], panel["given"][0][1]) == ("<i>one</i>", EVIL[1])
    assert [event[2] for event in panel["events"]] == [EVIL[2], EVIL[3], EVIL[1]]


def test_page_asks_for_nothing_from_anywhere_and_sets_no_text_as_html():
    text = page()
    for _, attributes, _ in Tree(text).walk():
        assert not {"src", "href", "srcset", "action", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert "default-src 'none'" in text
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?:|url\(|@import|fetch\(", text
    )


def test_every_control_has_a_name_and_the_said_is_a_live_region():
    nodes = {node[1]["id"]: node for node in Tree(page()).walk() if "id" in node[1]}
    for node in Tree(page()).walk():
        if node[0] in ("button", "input"):
            assert node[1].get("aria-label") or any(isinstance(child, str) and child.strip() for child in node[2])
    assert nodes["said"][1]["aria-live"] == "polite"
    assert nodes["said"][1]["role"] == "status"


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_text_and_mark_has_the_contrast_that_reading_takes_in_light_and_dark():
    style = (HERE.parent / "mdm_jax/report/viewer/style.css").read_text()
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in re.findall(r":root \{(.*?)\}", style, re.S))
    assert set(light) == set(dark)
    for colors in (light, dark):
        for ground in ("page", "given", "early", "late", "control"):
            assert contrast(colors["ink"], colors[ground]) >= 4.5, ground
        for text in ("soft", "back"):
            assert contrast(colors[text], colors["page"]) >= 4.5, text
        assert contrast(colors["wrong"], colors["page"]) >= 4.5  # the cross on its disc
        for mark in ("wrong", "differs", "line"):
            assert contrast(colors[mark], colors["page"]) >= 3, mark
        for mark in ("wrong", "ink"):
            assert min(contrast(colors[mark], colors[ground]) for ground in ("early", "late")) >= 2.5, mark
        assert contrast(colors["early"], colors["late"]) >= 1.2  # early and late differ without hue too


PRELUDE = """
globalThis.setInterval = (call) => { globalThis.tick = call; return 1; };
globalThis.clearInterval = () => { globalThis.tick = null; };
"""


def in_node(text):
    tree = Tree(text)
    scripts = ["".join(node[2]) for node in tree.walk() if node[0] == "script" and "type" not in node[1]]
    parts = [(HERE / "viewer_dom.js").read_text(), PRELUDE, *scripts, (HERE / "viewer_drive.js").read_text()]
    program = "\n".join(
        f"{{{part}\nif (typeof drive !== 'undefined') console.log(JSON.stringify(drive()));}}" for part in parts[:-1]
    )
    program = "\n".join([*parts, "console.log(JSON.stringify(drive()));"]).replace('"use strict";', "")
    done = subprocess.run(
        ["node", "-e", program], input=json.dumps(tree.open[0]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def in_chromium(text, folder):
    drive = (HERE / "viewer_drive.js").read_text()
    # Chromium dumps no page that holds half a surrogate pair, which EVIL does.
    report = "document.body.setAttribute('data-seen', JSON.stringify(drive())); document.body.replaceChildren()"
    watch = "globalThis.onerror = (error) => { document.body.setAttribute('data-error', error); };"
    text = text.replace("</head>", f"<script>{PRELUDE}{watch}</script></head>")
    text = text.replace("</body>", f"<script>{drive}\n{report}</script></body>")
    (folder / "page.html").write_text(text, "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *options, (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    found = {name: html.unescape(value) for name, value in re.findall(r' data-(seen|error)="([^"]*)"', done.stdout)}
    assert "error" not in found, found["error"]
    return json.loads(found["seen"])


@pytest.fixture(params=["node", "chromium"])
def played(request, tmp_path):
    if request.param == "node":
        if shutil.which("node") is None:
            pytest.skip("without node")
        return in_node
    if CHROMIUM is None:
        pytest.skip("without Chromium")
    return functools.partial(in_chromium, folder=tmp_path)


def test_page_plays_steps_scrubs_and_says_what_it_shows(played):
    seen = played(page(at_reveal=SAID, title="Two orders"))
    assert seen["differ"] == (
        "The orders part at call 1. The first position on which they disagree is row 1, column 2: one has 2 since call "
        "1; two has 3 since call 5."
    )
    assert seen["first"]["at"] == seen["home"]["at"] == 0
    assert [cell[:1] + cell[2:] for cell in seen["first"]["cells"][0]] == [["1", "given"], *[["", "masked"]] * 3]
    assert seen["first"]["value"] == "before the first call"
    assert seen["next"]["said"] == "Call 1 of 5. one: row 1, column 2 is 2. two: row 2, column 2 is 2 (wrong)."
    assert seen["next"]["tally"] == ["1 of 3 revealed, 0 wrong", "1 of 3 revealed, 1 wrong"]
    assert seen["next"]["cells"][0][1][1] == "differs now right shown top"
    assert seen["next"]["cells"][0][1][2] == "call 1, probability 50%, entropy 0.50 nats"
    assert {"now", "wrong"} <= set(seen["next"]["cells"][1][3][1].split())
    assert seen["next"]["cells"][1][3][2] == "call 1, wrong, should be 1"
    assert seen["right"]["at"] == 2
    assert seen["back"] == seen["next"] | {"said": seen["back"]["said"]}
    assert seen["end"]["at"] == 4
    assert seen["end"]["value"] == "call 5 of 5"
    assert seen["scrubbed"]["cells"] == seen["next"]["cells"]
    assert seen["wrong"]["at"] == 4  # the next wrong position after call 1
    assert seen["differs"]["at"] == seen["onSlider"] == 1
    assert all("differs" in panel[1][1].split() for panel in seen["start"]["cells"])
    assert (seen["playing"]["play"], seen["playing"]["live"]) == ("Pause", "off")
    assert (seen["ticked"]["at"], seen["paused"]["play"], seen["paused"]["live"]) == (1, "Play", "polite")
    assert (seen["played"]["at"], seen["played"]["play"]) == (4, "Play")
    assert seen["strength"] == ["0", "0.5", "0.25", "1", "0", "0", "0", "0"]
    assert seen["colour"] == "none"
    assert seen["clicked"]["at"] == 1
    assert seen["clicked"]["said"].startswith("one, row 1, column 2: 2, call 1")
    assert "left-to-rightness" in seen["statistics"]


def test_page_of_text_in_a_line_shows_what_was_taken_back_and_keeps_evil_text_as_text(played):
    board = Board(sections=(("prompt", 0), ("answer", 1)))
    seen = played(page({"remask": CORRECTED}, pieces=EVIL, board=board, solution=None))
    assert seen["hidden"] == {"differ": True, "wrong": True}
    assert seen["differ"] == ""
    (cells,) = seen["right"]["cells"]
    assert [cell[0] for cell in cells[:2]] == [EVIL[1], ""]
    assert (cells[2][0][:2], cells[2][0][-4:], cells[3][0]) == ("\u2028\u21b5", " end", EVIL[2])  # the newline is seen
    assert cells[1][1:] == ["back now", "taken back at call 2"]
    assert seen["right"]["tally"] == ["2 of 3 revealed, 1 taken back so far"]
    assert seen["right"]["said"] == f"Call 2 of 3. remask: answer 2 is {cells[2][0]}; 1 taken back."
    assert seen["end"]["cells"][0][1][2] == "call 3, taken back once before"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"results": {}}, "at least one result"),
        ({"results": {"a": ONE, "b": result([2, 2, 3, 1], [-1, 0, 1, 2])}}, "not of one input"),
        ({"results": {"a": ONE, "b": result([1, 2], [0, 1])}}, "not of one input"),
        ({"results": {"a": None}}, "must be a SampleResult"),
        ({"row": 1}, "has 1 rows"),
        ({"pieces": ["", "1"]}, "token 2 has no text"),
        ({"pieces": lambda tokens: ["x"]}, "1 texts for 4 tokens"),
        ({"solution": [1, 2]}, "must be of shape (4,)"),
        ({"board": Board.grid(3, 3)}, "each of the 4 positions"),
        ({"board": Board(sections=(("answer", 2),))}, "must begin at 0"),
    ],
)
def test_what_is_no_decoding_of_one_input_is_refused_in_one_line(change, words, tmp_path):
    options = {"results": {"one": ONE}, "pieces": DIGITS} | change
    with pytest.raises(InputError, match=re.escape(words)):
        write_html(tmp_path / "page.html", options.pop("results"), **options)


def test_position_that_the_board_leaves_out_is_neither_shown_nor_counted():
    one, two = result([1, 2, 3, 1], [-1, 0, 1, 2]), result([1, 2, 3, 2], [-1, 0, 1, 9])
    found = page_data({"one": one, "two": two}, pieces=DIGITS, board=Board(np.array([[0, 1], [2, -1]])))
    assert (found["parting"], found["differs"]) == (None, None)
    assert found["statistics"]["rows"][0][1:] == found["statistics"]["rows"][1][1:]


def test_board_takes_the_names_of_its_rows_and_a_table_of_integers_alone():
    assert Board.grid(1, 4, rows=["r"], columns=list("abcd")).columns == ["a", "b", "c", "d"]
    assert page_data({"one": ONE}, pieces=DIGITS, board=Board([[0, 1], [2, 3]]))["length"] == 4
    for cells in ([0, 1], [[0.5, 1.0]], [["a"]]):
        with pytest.raises(InputError, match=r"cells must be integers \[rows, columns\]"):
            page_data({"one": ONE}, pieces=DIGITS, board=Board(cells))


def test_text_behind_an_end_was_not_given():
    film = Film()
    for tokens, steps in (([5, -1, 7, -1], [-1, -1, 0, -1]), ([5, 6, 7, 0], [-1, 1, 0, -1])):
        film(np.array(tokens), np.array(steps))
    trace = film.trace()
    assert trace.is_masked[0, 0].tolist() == [False, True, True, True]


def test_file_is_written_into_a_new_folder_and_replaced(tmp_path):
    path = tmp_path / "new" / "page.html"
    for title in ("first", "second"):
        write_html(str(path), {"one": ONE}, pieces=DIGITS, title=title)
    assert "<title>second</title>" in path.read_text("utf-8")
    with pytest.raises(InputError):
        write_html("gs://bucket/page.html", {"one": ONE}, pieces=DIGITS)
