"""The HTML file: what it says, that nothing in it is taken for markup, and how it looks in a browser."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from optparity.report import Entry, page, pictures, write
from optparity.report.pictures import LEVELS
from optparity.versus.course import Course, Distance, Place
from optparity.versus.modes import Mode
from optparity.versus.rounding import Verdict

from . import browser
from .courses import HOSTILE, LONG, entries, growing, of_hashes, of_values

INLINE = {"code", "strong", "span"}
VOID = {"meta", "rect", "line", "polyline"}
MACHINES = {"This machine": [("jax", "0.10.2"), (HOSTILE, HOSTILE)]}


class Page(HTMLParser):
    """The tags of a page, and its text. Every tag that opens must close."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text, self._open = set(), "", []
        self.addresses = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self._open.pop() == tag
        self.text += "" if tag in INLINE else "\n"

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.text += data


def shown(*given: Entry) -> str:
    """The text of a page, spaces apart."""
    return " ".join(Page(page.page("a title", given, {})).text.split())


def test_the_file_needs_nothing_else(tmp_path):
    write(tmp_path / "report.html", HOSTILE, entries(), MACHINES)
    html = (tmp_path / "report.html").read_text()
    read = Page(html)
    assert "script" not in read.tags
    assert read.addresses == []
    assert not re.search(r"url\(|@import|https?:", html)
    assert read.text.count(HOSTILE) == 7  # title and heading, explanation, leaf, note, and a line of the machine
    assert len(html) < 100_000


def test_a_report_needs_a_comparison(tmp_path):
    with pytest.raises(ValueError, match="report: no comparison was given; at least one is needed"):
        write(tmp_path / "report.html", "a title", [])
    assert list(tmp_path.iterdir()) == []


def test_by_default_the_machine_is_this_one(tmp_path):
    write(str(tmp_path / "report.html"), "a title", [Entry(growing(1))])
    text = Page((tmp_path / "report.html").read_text()).text
    assert "This machine" in text
    assert f"numpy\n{np.__version__}\n" in text


def test_the_verdict_is_first():
    assert shown(Entry(growing(1))).startswith("Same: a title a title ✓ They are the same optax.adam")
    assert shown(Entry(growing(30))).startswith("Different: a title a title ✗ They differ optax.adam")
    assert "✓ All 2 pairs are the same" in shown(Entry(growing(1)), Entry(growing(1)))
    assert "✗ 1 of 2 pairs differ" in shown(Entry(growing(1)), Entry(growing(30)))


def test_the_mode_is_named():
    assert "judged by bits." in shown(Entry(growing(1)))
    assert "judged by ulp=3." in shown(Entry(growing(1, mode=Mode(ulp=3))))
    assert "judged by rtol=0.001, atol=0." in shown(Entry(growing(1, mode=Mode(rtol=1e-3))))


def test_the_first_difference_is_shown_in_hex():
    text = shown(Entry(of_values([0.1, 1], [0.1, np.nextafter(np.float32(1), 2)])))
    assert "They part at step 1, in params['w']" in text
    assert "where step 1, params, params['w'][1] first 0x3f800000 = 1 second 0x3f800001 = 1.00000012 distance 1 ulp" in text
    course = Course("first", "second")
    course.note(7, Place("params"), np.array(0.1), np.array(0.2))
    assert "first 0x3fb999999999999a = 0.10000000000000001 second" in shown(Entry(course))
    assert "distance only hashes are known" in shown(Entry(of_hashes()))


def test_what_is_known_is_shown_and_what_is_not_is_said():
    w, b = Place("params", "['w']"), Place("params", "['b']")
    verdicts = {w: Verdict("rounding", 3, 29.5), b: Verdict("same")}
    text = shown(Entry(growing(30), "epsilon is inside the root", verdicts, "optparity check --ulp 4", ["compared: params"]))
    assert "Why epsilon is inside the root The first" in text
    assert f"another formula? params['w'] {verdicts[w]} 1 are the same, in float64 too. What was compared compared: params Do it" in text
    assert "Do it again optparity check --ulp 4" in text
    bare = shown(Entry(growing(30)))
    assert "No known convention explains the difference." in bare
    assert "another formula?" not in bare
    assert "Do it again" not in bare
    assert "No known convention" not in shown(Entry(growing(1)))


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (Distance(True, 9, 0, 0, 0.0, 0.0), "same bits"),
        (Distance(True, 9, 0, 3, 1e-9, 1e-9), "accepted"),
        (Distance(False, 9, 1, 1, 0.0, 0.0), "below 1e-6"),  # zeros of both signs
        (Distance(False, 9, 1, 3, 1e-6, 1e-6), "1e-6 to 1e-4"),
        (Distance(False, 9, 1, 3, 5e-3, 5e-3), "1e-4 to 1e-2"),
        (Distance(False, 9, 1, 3, 1.0, 1.0), "1e-2 or more"),
        (Distance(False, 9, 1, 2**32 - 1, np.inf, np.inf), "1e-2 or more"),  # NaN on one side
        (Distance(False, 9, 1, 2**32 - 1, np.inf, np.nan), "1e-2 or more"),
        (Distance(True, 9, None, None, 1e-9, 1e-9), "accepted"),  # as norms tell
        (Distance(False, 9, None, None, 1e-3, 1e-3), "1e-4 to 1e-2"),
        (Distance(True, 9, None, None, None, None), "same bits"),
        (Distance(False, 9, None, None, None, None), "hashes differ"),
    ],
)
def test_each_distance_has_its_colour(distance, expected):
    assert LEVELS[pictures.level(distance)] == expected


def test_the_map_shows_when_each_leaf_parts():
    drawn = pictures.leaves_by_steps(growing(steps=100, leaves=2, from_step=30))
    assert [str(strip.place) for strip in drawn.strips] == [
        f"{name}['{leaf}']{LONG}" for name in ("gradients", "exp_avg", "params") for leaf in (0, 1)
    ]
    assert (drawn.columns, drawn.steps_each, drawn.left_out) == (100, 1, 0)
    assert [run.start for run in drawn.strips[4].runs][:2] == [0, 30]
    assert [run.start for run in drawn.strips[5].runs][:2] == [0, 60]
    assert all(sum(run.width for run in strip.runs) == 100 for strip in drawn.strips)


def test_a_long_map_is_thinned_and_no_difference_is_lost():
    course = Course("first", "second")
    for step in range(1, 1001):
        for leaf in range(100):
            differs = (leaf == 99 and step == 777) or (leaf == 98 and step > 900)
            course.note_hashes(step, Place("params", f"['{leaf}']"), 1, "a", "b" if differs else "a")
    drawn = pictures.leaves_by_steps(course)
    assert drawn.columns <= pictures.CELLS
    assert (drawn.steps_each, len(drawn.strips), drawn.left_out, drawn.left_out_differ) == (9, pictures.ROWS, 60, 0)
    (strip,) = (strip for strip in drawn.strips if strip.place.leaf == "['99']")
    assert [(run.start, run.width, LEVELS[run.level]) for run in strip.runs if run.level] == [(776 // 9, 1, "hashes differ")]
    assert "60 more leaves are not drawn; none of them differ." in shown(Entry(course))
    assert "80 more leaves are not drawn; 20 of them differ." in shown(Entry(of_hashes(steps=200, leaves=120)))


def test_lines_are_thinned_and_keep_the_farthest():
    course = growing(steps=1000, leaves=1, from_step=998)
    chart = pictures.distance_over_steps(course)
    (line,) = (line for line in chart.lines if line.stage == "params")
    heights = [float(point.split(",")[1]) for point in line.points.split()]
    assert len(heights) <= pictures.POINTS
    assert min(heights) < 100  # the higher, the farther
    assert line.last == max(course.distances[Place("params", f"['0']{LONG}")].values(), key=lambda d: d.relative or 0.0).relative


def test_lines_stay_in_their_box():
    for course in (entry.course for entry in entries()):
        if chart := pictures.distance_over_steps(course):
            numbers = [float(x) for line in chart.lines for point in line.points.split() for x in point.split(",")]
            assert len(numbers) >= 4
            assert all(0 <= x <= 100 for x in [*numbers, *(y for y, _ in chart.ticks)])


def test_of_what_is_the_same_there_is_no_line():
    assert pictures.distance_over_steps(growing(1)) is None
    assert pictures.distance_over_steps(Course("nothing", "compared")) is None
    assert pictures.distance_over_steps(of_hashes()).what == "share of leaves that differ"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", browser.SCHEMES)
@pytest.mark.parametrize("width", browser.WIDTHS)
def test_in_a_browser_nothing_is_too_wide(tmp_path, width, scheme):
    """Nor is a column too narrow to be read."""
    write(tmp_path / "report.html", HOSTILE, entries(), MACHINES)
    measured = browser.measure(tmp_path / "report.html", tmp_path, scheme, width)
    assert measured["width"] == measured["scrolled"] == width
    assert (measured["wide"], measured["narrow"]) == ([], [])
    assert measured["colour"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert measured["height"] > 2000


@pytest.mark.browser
def test_the_browser_sees_what_is_too_wide_or_too_narrow(tmp_path):
    (tmp_path / "wide.html").write_text(
        "<!DOCTYPE html><body><div style='width: 400px'>wide</div><dl><dd style='width: 20px'>narrow</dd></dl>"
    )
    measured = browser.measure(tmp_path / "wide.html", tmp_path, "light", 360)
    assert measured["scrolled"] > 360
    assert [element[:4] for element in measured["wide"]] == ["<div", "<dd "]
    assert [element[:4] for element in measured["narrow"]] == ["<dd "]


@pytest.mark.browser
def test_a_picture_is_taken(tmp_path):
    write(tmp_path / "report.html", "a title", entries(), MACHINES)
    picture = browser.picture(tmp_path / "report.html", tmp_path, "dark", 360)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
