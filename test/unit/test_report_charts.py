"""The charts of a report, and how it writes numbers and names: in their place, whole, and telling what they should."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from zeroflow_core.evaluation.report.charts import Axis, Point, Row, curves, histogram, ranked, rows_of_dots, shares
from zeroflow_core.evaluation.report.charts import key as key_of
from zeroflow_core.evaluation.report.markup import join, tag
from zeroflow_core.evaluation.report.page import MARKS
from zeroflow_core.evaluation.wording import duration, short_names


def positions(chart, name, key):
    return [float(mark.get(key)) for mark in ElementTree.fromstring(chart).iter(name) if mark.get(key)]


def test_eight_runs_have_eight_marks_and_five_of_them_different_shapes():
    def shape(run):
        mark = ElementTree.fromstring(key_of(run))[0]
        corners = [tuple(map(float, corner.split(","))) for corner in mark.get("points", "").split()]
        return mark.tag, tuple(sorted(corners))

    assert len({shape(run) for run in range(5)}) == 5
    assert len({(shape(run), run % MARKS) for run in range(40)}) == 40


_DEJAVU_PX = {"…": 12.0, "m": 11.69, "W": 11.87, "M": 10.36, "Q": 9.45, "g": 7.62, "d": 7.62, "9": 7.63, "-": 4.33,
              "i": 3.33, "f": 4.22, "r": 4.93, "t": 4.71, " ": 3.81}  # widths at 12 px of a wide font that is common


@pytest.mark.parametrize(
    "label", ["9d9d9gd9…", "mmmm WWWW", "Qigg-MMMM", "Q" * 15, "d" * 60, "W" * 60, "fifit rift-frit"]
)
def test_names_stay_inside_the_picture(label):
    picture = ElementTree.fromstring(rows_of_dots([Row(label, [0.1], 0.2, "9,999,999")], "", notes="points", write=str))
    name = next(mark for mark in picture.iter("text") if mark.text and mark.text[:2] == label[:2])
    assert float(name.get("x")) - sum(_DEJAVU_PX[letter] for letter in name.text) >= 0
    across = [float(mark.get("x1")) for mark in picture.iter("line") if mark.get("class") == "grid"]
    assert max(across) - min(across) > 100, "there is room for the chart"


def test_numbers_of_an_axis_do_not_touch():
    for label in ("a", "a rather long name of a class"):
        for low, high in ((0.0004, 0.09), (0.0004, 0.009), (0.02, 2.0), (0.0, 0.0)):
            rows = [Row(label, [low], high, "5,646,676"), Row("b", [high], None)]
            picture = ElementTree.fromstring(rows_of_dots(rows, "", write=str))
            numbers = [mark for mark in picture.iter("text") if mark.get("text-anchor") == "middle"]
            spans = []
            for mark in numbers:
                half = sum(12.0 if letter in "≤m" else 7.63 for letter in mark.text if letter not in " .") / 2
                half += 3.81 * sum(letter in " ." for letter in mark.text) / 2
                spans.append((float(mark.get("x")) - half, float(mark.get("x")) + half))
            assert spans[0][0] >= 0 and all(one[1] < other[0] for one, other in zip(spans, spans[1:], strict=False))
            assert numbers[-1].text.endswith(" m") and numbers[0].text.startswith("≤") == (low < 0.001)


def test_what_goes_into_a_tag_is_escaped():
    assert tag("p", "a < b & c", class_="x", title='"q"') == '<p class="x" title="&quot;q&quot;">a &lt; b &amp; c</p>'
    assert tag("p", tag("b", "<"), None, ["x", ["&"]], id=None) == "<p><b>&lt;</b>x&amp;</p>"
    assert join("<", tag("br")) == "&lt;<br>"
    assert tag("line", x1=1.23456, stroke_width=2) == '<line x1="1.23" stroke-width="2"></line>'


def test_rows_of_dots_put_larger_errors_further_right():
    rows = [Row("a", [0.01], 1.0), Row("b", [0.1], 1.0), Row("c", [1.0], 1.0), Row("d", [None], None)]
    x = positions(rows_of_dots(rows, "", write=None), "circle", "cx")
    assert len(x) == 3 and x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.02), "a decade is a decade"
    rows = [Row("zero", [0.0], 0.0), Row("tiny", [1e-9], 0.02)]
    chart = rows_of_dots(rows, "", write=None)
    assert chart.count("<polygon") == 2 and "≤ 0.001" in chart, "what lies before the axis points there"
    assert "No such points" in rows_of_dots([], "", write=None)


def test_curves_join_neighbours_only():
    series = [[Point(0.6, 0.5, 10), Point(1.0, 0.4, 1000), Point(5.0, 3.0, 10)], []]
    chart = curves("Car", series, "", top=2.0, gap=0.6)
    assert len(re.findall('class="curve', chart)) == 1
    radii = positions(chart, "circle", "r")
    assert len(radii) == 2 and radii[1] > radii[0] and chart.count("<polygon") == 1
    assert "no moving points" in curves("Car", [[]], "", top=1.25, gap=0.6)


@pytest.mark.parametrize("values", [
    [0.5], [0.0], [0.0, 0.0, 0.0], [0.0] * 60 + [5.0], [1.0, 1.0001], [3.0] * 99 + [4000.0], list(np.linspace(0, 9, 99))
])
def test_histograms_count_every_value(values):
    chart = histogram(values, "", unit="ms", scale=1000.0, lines=[("median", float(np.median(values)))])
    assert not re.search("nan|inf", chart) and "median" in chart
    heights = np.array(positions(chart, "rect", "height"))
    ticks = [(float(text.replace(",", "")), float(y)) for y, text in re.findall(
        r'y="([\d.]+)" text-anchor="end" class="faint">([\d,]+)<', chart
    )]
    (low, low_y), (high, high_y) = ticks[0], ticks[-1]
    counts = heights * (high - low) / (low_y - high_y)
    np.testing.assert_allclose(counts, np.round(counts), atol=0.02)
    assert round(counts.sum()) == len(values)
    assert "No such points" in histogram([], "", unit="m")
    assert "e+" not in chart


def test_histograms_gather_what_lies_far_out_in_the_last_bar():
    chart = histogram([*np.linspace(1.0, 2.0, 99), 4000.0], "", unit="m")
    x = positions(chart, "rect", "x")
    assert len(x) > 5, "the others are not squeezed into one bar"
    assert max(x) > 490


def test_shares_add_up_to_the_whole():
    widths = positions(shares([("a", 0.2), ("b", None), ("c", 0.1)], 0.3, ""), "rect", "width")
    assert sum(widths) == pytest.approx(300, abs=3) and widths[0] == pytest.approx(2 * widths[1], abs=2)
    assert "rect" not in shares([("a", 0.0), ("b", None)], 0.0, "")


def test_ranked_shows_one_log_and_many():
    for number in (1, 150):
        chart = ranked([f"log {k}" for k in range(number)], [[0.1, None]] * number, "")
        assert chart.count("<circle") == number


def test_ticks_are_round_and_few():
    assert Axis(0.0, 1.25, 0, 100).ticks == pytest.approx([0, 0.5, 1.0])
    assert Axis(0.01, 1.0, 0, 100, logarithmic=True).ticks == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    assert Axis(0.001, 10.0, 0, 100, logarithmic=True).ticks == pytest.approx([0.001, 0.01, 0.1, 1.0, 10.0])
    assert Axis(1.0, 100.0, 0, 100, logarithmic=True).at(10.0) == pytest.approx(50.0)


def test_names_are_cut_where_they_still_differ():
    assert short_names(["b0157d97-2972", "9d33fbf2-c910"]) == ["b0157d97…", "9d33fbf2…"]
    assert short_names(["street-3", "street-4"]) == ["street-3", "street-4"]
    assert short_names(["0000000000001-x-and-more", "0000000000002-x-and-more"]) == ["0000000000001…", "0000000000002…"]
    assert short_names(["7fab2350-7eaf-3b7e"]) == ["7fab2350…"] and short_names([]) == []


def test_durations_have_the_unit_of_their_size():
    assert [duration(s) for s in (None, 0.00268, 0.0293, 0.5, 26.285, 1234.0)] == [
        "–", "2.68 ms", "29.3 ms", "500 ms", "26.29 s", "1,234 s"
    ]
