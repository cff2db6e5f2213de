"""The HTML report: every figure is in it, nothing else is needed to read it, and no name can break it."""

import base64
import copy
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation import av2_2024, worst, zeroflow_paper
from zeroflow_core.evaluation.report import WorstPair, write_comparison, write_report
from zeroflow_core.evaluation.report.page import _STYLE, MARKS
from zeroflow_core.evaluation.report.worst_pairs import where_the_error_is

HOSTILE = "</td><script>alert(\"1\")</script>'&amp; <b"
PARTS = ("fd", "fs", "bs")
FIGURES = ("three_way_epe", *PARTS)


def made_up(logs=3, pairs=4, seed=0, failed=()):
    """Metrics as a run writes them, with figures that no two of which are alike."""
    rng = np.random.default_rng(seed)

    def epe(high=2.0):
        return float(rng.uniform(0.01, high))

    def number():
        return int(rng.integers(1000, 10_000_000))

    def definition():
        figures = {name: epe() for name in FIGURES} | {"num_points": number(), "coverage": epe(1.0)}
        return figures | {f"num_{p}": number() for p in PARTS} | {f"coverage_{p}": epe(1.0) for p in PARTS}

    def group():
        return {"num_points": number(), "epe": epe(), "epe_zero": epe(), "coverage": epe(1.0)}

    def between(edges, unit):
        upper = [*edges[1:], None]
        return [{f"from_{unit}": low, f"to_{unit}": high} for low, high in zip(edges, upper, strict=True)]

    def kind(name):
        background = name == "BACKGROUND"
        buckets = [
            {"from_mps": low, "to_mps": high, "num_points": number(), "epe": epe(), "speed": epe(), "normalised": epe()}
            for low, high in ((0.0, 0.4), (0.4, 0.8), (0.8, 1.2), (7.2, 7.6), (20.0, None))
        ]
        buckets[0]["normalised"] = None
        return {
            "static": epe(),
            "dynamic": None if background else epe(),
            "num_points": number(),
            "buckets": buckets[:1] if background else buckets,
        }

    def of_2024():
        return definition() | {
            "mean_dynamic": epe(),
            "mean_static": epe(),
            "classes": {name: kind(name) for name in av2_2024.CLASSES},
        }

    def of_log():
        short = of_2024()
        for found in short["classes"].values():
            del found["buckets"]
        return {"av2-2023": definition(), "av2-2024": short, "zeroflow": definition(), "num_pairs": pairs}

    accuracies = ("acc_strict", "acc_relax", "angle_error", "epe_close", "epe_far")
    speeds = between([0.0, 0.5, 2.0, 5.0, 10.0, 20.0], "mps")
    ranges = between([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], "m")
    return {
        "av2-2023": definition()
        | {f"{name}_{part}": epe(1.0) for name in accuracies for part in PARTS}
        | {"dynamic_iou": epe(1.0)},
        "av2-2024": of_2024(),
        "zeroflow": definition()
        | {"acc_strict": epe(1.0), "acc_relax": epe(1.0)}
        | {
            "classes": {
                name: {
                    "num_points": number(),
                    "epe": epe(),
                    "by_speed": [b | {"num_points": number(), "epe": epe()} for b in between([0.0, 0.5, 2.0], "mps")],
                }
                for name in zeroflow_paper.CLASSES
            }
        },
        "breakdown": {
            "speed": [one | group() for one in speeds],
            "range": [one | {"moving": group(), "standing": group()} for one in ranges],
            "class": [
                {"name": name, "moving": group(), "standing": group()}
                for name in ("NONE", "REGULAR_VEHICLE", "MOBILE_PEDESTRIAN_CROSSING_SIGN", "PEDESTRIAN")
            ],
        },
        "per_log": {f"{k:08x}-0000-5ff3-891a-138ac31a2ceb": of_log() for k in range(logs)},
        "run": {
            "method": "student",
            "name": "student default (fp32, cpu)",
            "checkpoint": "default",
            "data": "/data/av2",
            "split": "val",
            "num_logs": logs,
            "num_pairs": logs * pairs,
            "seconds": {"median": 0.0293, "p90": 0.0357, "mean": 0.0311},
            "jobs": 1,
            "notes": [],
            "version": "0.1.0",
        },
        "failed": list(failed),
    }


def pairs_of(metrics, seed=1):
    """Rows as csv.DictReader reads them from pairs.csv."""
    rng = np.random.default_rng(seed)
    return [
        {"log": log, "index": str(i), "seconds": str(rng.normal(0.03, 0.002)), "av2-2023/fd": str(rng.gamma(2.0, 0.1))}
        for log, found in metrics["per_log"].items()
        for i in range(found["num_pairs"])
    ]


def nothing_scored(value):
    """The same metrics as a run without a single point would write them."""
    if isinstance(value, dict):
        kept = {"version", "num_logs", "num_pairs", "from_mps", "to_mps", "from_m", "to_m"}
        return {
            key: found if key in kept else [] if key in ("buckets", "failed") else nothing_scored(found)
            for key, found in value.items()
        }
    if isinstance(value, list):
        return [nothing_scored(one) for one in value]
    return 0 if isinstance(value, int) else None if isinstance(value, float) else value


def worst_pair(log_id="7fab2350", at=(20.0, 5.0), seed=0):
    """A sweep of scattered points, one cluster of which moves and is estimated to stand still."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-50, -50, 0], [50, 50, 3], (3000, 3)).astype(np.float32)
    points[:200, :2] = np.asarray(at) + rng.uniform(-2, 2, (200, 2))
    truth = np.zeros_like(points)
    truth[:200, 0] = 1.5
    known = np.ones(len(points), dtype=bool)
    return WorstPair(log_id, 7, 315966265259836000, 0.1, 1.5, 200, points, truth, np.zeros_like(truth), known, known)


class Page(HTMLParser):
    """A page as a reader gets it; that it is well-formed is checked on the way.

    rows: cells of every row, the first one being its name; text: all of it without style
    """

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.tags, self.rows, self.words, self.references = [], [], [], [], []
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())
        self.cells = {cell for row in self.rows for cell in row}

    def handle_starttag(self, name, attributes):
        attributes = dict(attributes)
        self.tags.append((name, attributes))
        self.references += [attributes[key] for key in ("src", "href", "srcset", "xlink:href") if key in attributes]
        if name not in ("meta", "img", "br"):
            self.open.append(name)
        if name == "tr":
            self.rows.append([])
        if name in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, name):
        assert self.open and self.open.pop() == name, f"</{name}> closes nothing at {self.getpos()}"

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
            if "td" in self.open or "th" in self.open:
                self.rows[-1][-1] += data

    def row(self, name, skip=0):
        """Cells of the row of that name, the `skip`-th after the first one."""
        return [row[1:] for row in self.rows if row and row[0] == name][skip]

    def attributes(self, name):
        return [attributes for tag_name, attributes in self.tags if tag_name == name]


def report_of(path, metrics, pairs=(), worst=()):
    write_report(path, metrics, list(pairs), list(worst))
    return Page(path)


def comparison_of(path, runs):
    write_comparison(path, runs)
    return Page(path)


def as_written(key, value):
    """The text a figure of this name must have."""
    if value is None:
        return "–"
    if key.startswith(("num_",)):
        return f"{value:,}"
    if key.startswith(("coverage", "acc_")):
        return f"{100 * value:.1f}%"
    if key in ("dynamic", "mean_dynamic", "normalised", "speed", "dynamic_iou") or key.startswith("angle"):
        return f"{value:.3f}"
    return f"{value:.4f}"


def figures_in(value, key=""):
    """(name, value) of every figure at and below `value`."""
    if isinstance(value, dict):
        for name, found in value.items():
            if not name.startswith(("from_", "to_")):
                yield from figures_in(found, name)
    elif isinstance(value, list):
        for found in value:
            yield from figures_in(found, key)
    elif not isinstance(value, str):
        yield key, value


def test_every_figure_of_a_run_is_in_its_report(tmp_path):
    metrics = made_up()
    page = report_of(tmp_path / "report.html", metrics, pairs_of(metrics))
    shown = page.cells | set(re.findall(r"[\d.,]+%?", page.text))
    for name in ("av2-2023", "av2-2024", "zeroflow", "breakdown"):
        figures = list(figures_in(metrics[name]))
        assert len(figures) > 20
        missing = [(key, value) for key, value in figures if as_written(key, value) not in shown]
        assert missing == [], name
    for log, found in metrics["per_log"].items():
        expected = [f"{found[d][part]:.4f}" for d in ("av2-2023", "av2-2024", "zeroflow") for part in FIGURES]
        assert page.row(log) == [str(found["num_pairs"]), *expected]
    about = ("student default (fp32, cpu)", "/data/av2", "val", "12 pairs of 3 logs", "29.3 ms", "31.1 ms", "0.1.0")
    for text in about:
        assert text in page.text


def test_figures_stand_in_the_row_of_their_name(tmp_path):
    metrics = made_up()
    page = report_of(tmp_path / "report.html", metrics)
    for k, name in enumerate(("av2-2023", "av2-2024", "zeroflow")):
        for part, title in (("fd", "Foreground, dynamic"), ("fs", "Foreground, static"), ("bs", "Background, static")):
            of = metrics[name]
            expected = [f"{of[part]:.4f}", f"{of[f'num_{part}']:,}", f"{100 * of[f'coverage_{part}']:.1f}%"]
            assert page.row(title, k) == expected
    speed = metrics["breakdown"]["speed"][3]
    expected = [f"{speed['num_points']:,}", f"{speed['epe_zero']:.4f}", f"{speed['epe']:.4f}"]
    assert page.row("5–10 m/s")[:3] == expected
    for k, motion in enumerate(("moving", "standing")):
        found = metrics["breakdown"]["range"][1][motion]
        assert page.row("10–20 m", k)[:3] == [as_written(key, found[key]) for key in ("num_points", "epe_zero", "epe")]
    heading = next(k for k, row in enumerate(page.rows) if row[:3] == ["Class", "Points", "No motion, m"])
    errors = [row[3] for row in page.rows[heading + 1:heading + 5]]
    moving = sorted((one["moving"]["epe"] for one in metrics["breakdown"]["class"]), reverse=True)
    assert errors == [f"{epe:.4f}" for epe in moving], "the largest error first"


def test_each_definition_says_what_it_counts(tmp_path):
    page = report_of(tmp_path / "report.html", made_up())
    said = {name: unescape(words) for name, words in re.findall(
        r'<h3>([^<]+)</h3>.*?<p class="counts">(.*?)</p>', re.sub(r"</?span[^>]*>", "", page.source), re.DOTALL
    )}
    assert set(said) == {"AV2 2023 challenge", "AV2 2024 challenge", "ZeroFlow paper"}
    for text in said.values():
        assert text.count(". ") == 0 and text.endswith("."), "one sentence"
        assert all(word in text for word in ("Counts every point", "foreground is", "dynamic is", "the map’s ground"))
    for name, thresholds in (
        ("AV2 2023 challenge", ("≤ 50 m", "at most 0.3 m above", "labels don’t mark", "0.05 m per pair")),
        ("AV2 2024 challenge", ("< 35 m", "< 2.5 m", "0.4 m", "0.05 m per pair or more, 0.5 m/s at 10 Hz")),
        ("ZeroFlow paper", ("≤ 35 m", "< 3 m", "0.4 m", "0.05 m per pair or more, 0.5 m/s at 10 Hz")),
    ):
        assert all(threshold in said[name] for threshold in thresholds)
    assert "over the points of all pairs and logs together" in page.text
    assert "0.4 m/s at 10 Hz" in page.text and "counts each class alike" in page.text


def test_the_header_holds_the_notes_and_how_many_processes_there_were(tmp_path):
    metrics = made_up()
    assert "29.3 ms Version" in report_of(tmp_path / "report.html", metrics).text
    metrics["run"] |= {"jobs": 3, "notes": ["1 of 3 logs has no map", "Another <note>."]}
    page = report_of(tmp_path / "report.html", metrics)
    assert "29.3 ms, with 3 processes at once Version" in page.text
    assert re.findall(r'note">([^<]*)</p>', page.source) == ["1 of 3 logs has no map.", "Another &lt;note&gt;."]


@pytest.mark.parametrize("logs", [1, 2, 24, 25, 150])
def test_a_report_reads_well_with_any_number_of_logs(tmp_path, logs):
    metrics = made_up(logs)
    page = report_of(tmp_path / "report.html", metrics, pairs_of(metrics))
    check_pictures(page)
    by_log = page.source[page.source.index('id="logs"'):page.source.index("Figures of every log")]
    assert len(re.findall("<(circle)", by_log)) == logs
    assert ("00000000…" in page.text) if logs <= 24 else ("<title>00000000…: " in page.source)
    assert all(log in page.cells for log in metrics["per_log"])


def check_pictures(page):
    """Every SVG is well-formed and draws inside its viewBox."""
    drawn = re.findall(r"<svg.*?</svg>", page.source, re.DOTALL)
    assert drawn
    for text in drawn:
        assert not re.search(r"\b(nan|inf|None)\b", text), text[:400]
        picture = ElementTree.fromstring(text)
        _, _, width, height = map(float, picture.get("viewBox").split())
        for mark in picture.iter():
            for key, limit in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("y1", height),
                               ("y2", height), ("cy", height)):
                assert mark.get(key) is None or 0 <= float(mark.get(key)) <= limit, ElementTree.tostring(mark)
            for corner in (mark.get("points") or "").split():
                x, y = map(float, corner.split(","))
                assert -1 <= x <= width + 1 and -1 <= y <= height + 1
            if mark.tag == "rect":
                assert 0 <= float(mark.get("x")) + float(mark.get("width")) <= width + 0.01
                assert float(mark.get("width")) > 0 and float(mark.get("height")) > 0


def test_nothing_scored_is_dashes_and_words(tmp_path):
    metrics = nothing_scored(made_up())
    page = report_of(tmp_path / "report.html", metrics)
    check_pictures(page)
    assert page.row("Foreground, dynamic") == ["–", "0", "–"]
    assert page.text.count("No such points.") >= 6
    assert "None" not in page.text and "nan" not in page.text
    check_pictures(comparison_of(tmp_path / "comparison.html", [("one", metrics), ("two", metrics)]))


def test_the_page_needs_nothing_else_and_tells_what_it_is(tmp_path):
    metrics = made_up()
    page = report_of(tmp_path / "report.html", metrics, pairs_of(metrics), [worst_pair()])
    assert page.references
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for reference in page.references:
        assert reference.startswith("data:image/") or reference[0] == "#" and reference[1:] in names
    assert not re.search(r"https?:|//cdn|@import|url\(", page.source)
    assert not any(name in ("script", "link", "iframe", "object") for name, _ in page.tags)
    assert page.attributes("html") == [{"lang": "en-GB"}] and page.attributes("title")
    assert page.source.startswith("<!DOCTYPE html>") and "prefers-color-scheme: dark" in page.source
    assert all(attributes.get("alt") for attributes in page.attributes("img"))
    assert all(one.get("aria-label") or one.get("aria-hidden") for one in page.attributes("svg"))
    assert all(attributes.get("scope") for attributes in page.attributes("th"))


def test_colours_of_words_and_marks_stand_out_on_paper():
    def luminance(colour):
        encoded = np.array([int(colour[k:k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    schemes = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in _STYLE.split("@media (prefers")[:2]]
    assert len(schemes) == 2
    for colours in schemes:
        for words in ("ink", "faint", *(f"run{k}" for k in range(MARKS))):
            assert contrast(colours[words], colours["paper"]) > 4.5, words
        assert contrast(colours["warn"], colours["warn-paper"]) > 4.5
        assert contrast(colours["ink"], colours["best"]) > 4.5


def test_failed_pairs_are_told(tmp_path):
    failed = [{"log": f"log-{k}", "index": k, "stamp_ns": 10**15 + k, "error": f"{k} is damaged"} for k in range(13)]
    page = report_of(tmp_path / "report.html", made_up(failed=failed))
    assert "13 pairs failed" in page.text
    for one in failed:
        assert page.row(one["log"]) == [str(one["index"]), str(one["stamp_ns"]), one["error"]]
    assert "failed" not in report_of(tmp_path / "report.html", made_up()).text


def test_no_name_can_break_out_of_its_place(tmp_path):
    failed = [{"log": HOSTILE, "index": 0, "stamp_ns": 1, "error": HOSTILE}]
    metrics = made_up(2, failed=failed)
    metrics["per_log"] = {HOSTILE + str(k): found for k, found in enumerate(metrics["per_log"].values())}
    metrics["run"] |= {key: HOSTILE for key in ("name", "data", "split", "checkpoint", "version", "method")}
    metrics["breakdown"]["class"][0]["name"] = HOSTILE
    usual = report_of(tmp_path / "usual.html", made_up(2, failed=failed[:1]), worst=[worst_pair()])
    page = report_of(tmp_path / "report.html", metrics, worst=[worst_pair(HOSTILE)])
    assert [name for name, _ in page.tags] == [name for name, _ in usual.tags]
    assert page.row(HOSTILE) == ["0", "1", HOSTILE]
    assert HOSTILE in page.attributes("img")[1]["alt"]
    check_pictures(page)
    names = (HOSTILE, HOSTILE + "2")
    page = comparison_of(tmp_path / "comparison.html", [(name, metrics) for name in names])
    assert not page.attributes("script") and all(name in page.cells for name in names)
    check_pictures(page)


def pictures_in(page):
    return [
        Image.open(BytesIO(base64.b64decode(one["src"].partition("base64,")[2]))).convert("RGB")
        for one in page.attributes("img")
    ]


def test_worst_pairs_show_estimate_truth_and_error(tmp_path):
    pairs = [worst_pair(f"log-{k}", seed=k) for k in range(2)]
    page = report_of(tmp_path / "report.html", made_up(), worst=pairs)
    _, *pictures = pictures_in(page)
    assert len(pictures) == 8 and len({picture.size for picture in pictures[:3]}) == 1
    assert pictures[3].width < pictures[2].width / 2, "the whole sweep is a small one"
    assert page.text.count("1.5000 m over 200 points") == 2
    assert "Log log-1, pair 7, stamp 315966265259836000 ns" in page.text
    assert "40 m across, around 20 m ahead and 5 m to the left" in page.text

    def colourful(picture):
        middle = np.asarray(picture).astype(int)[250:310, 250:310]
        return middle[np.ptp(middle, axis=2) > 90]

    estimate, truth, error = map(colourful, pictures[:3])
    assert len(estimate) == 0, "the estimate stands still"
    assert len(truth) > 50 and (truth[:, 0] > truth[:, 2] + 60).all(), "amber: ahead"
    assert len(error) > 50
    frame = (np.asarray(pictures[3]).min(axis=2) > 180).nonzero()
    assert np.ptp(frame[1]) == pytest.approx(40 / 104 * pictures[3].width, abs=4), "with what the others show"
    bar = page.source[page.source.index("Colours of the error"):]
    assert bar.index(">0.05<") < bar.index(">0.5<") < bar.index(">2 m<")
    assert len((tmp_path / "report.html").read_bytes()) < 2_000_000
    assert "Worst pairs" not in report_of(tmp_path / "report.html", made_up()).text
    assert "The worst pair of each of the worst logs" in page.text
    assert f"pairs with fewer than {worst._MIN_POINTS} such points left out" in page.text


@pytest.mark.filterwarnings("error")
def test_a_flow_beyond_all_measure_is_in_the_picture(tmp_path):
    pair = worst_pair()
    pair.estimate[:200] = np.finfo(np.float32).max
    assert (pair.error[:200] > 1e38).all()
    page = report_of(tmp_path / "report.html", made_up(), worst=[pair])
    assert "40 m across, around 20 m ahead and 5 m to the left" in page.text


def test_pictures_show_the_place_of_most_of_the_error():
    pair = worst_pair(at=(-30.0, 12.0))
    (x, y), across = where_the_error_is(pair.points, pair.error)
    assert (x, y) == pytest.approx((-30.0, 12.0), abs=0.5) and across == 40.0
    spread = np.full(len(pair.points), 0.3, dtype=np.float32)
    assert where_the_error_is(pair.points, spread) == ((0.0, 0.0), 104.0), "everywhere"
    assert where_the_error_is(pair.points, spread * 0) == ((0.0, 0.0), 104.0), "nowhere"
    far, big = pair.points.copy(), pair.error * 0
    far[-1], big[-1] = [400.0, 0.0, 0.0], 1000.0
    assert where_the_error_is(far, big) == ((0.0, 0.0), 104.0), "out of sight"
    two = np.concatenate([pair.points, pair.points + np.float32([22.0, -14.0, 0.0])])
    (x, y), across = where_the_error_is(two, np.concatenate([pair.error, pair.error]))
    assert (x, y) == pytest.approx((-19.0, 5.0), abs=0.5) and across == 40.0, "both"


def test_a_comparison_marks_the_best_of_each_row(tmp_path):
    first, second = made_up(seed=0), made_up(seed=0)
    second["av2-2023"] |= {"three_way_epe": first["av2-2023"]["three_way_epe"] / 2, "dynamic_iou": 0.0}
    first["zeroflow"]["acc_strict"], second["zeroflow"]["acc_strict"] = 0.4, 0.5
    first["zeroflow"]["acc_relax"], second["zeroflow"]["acc_relax"] = 0.80001, 0.80002
    second["av2-2024"]["mean_dynamic"] = None
    page = comparison_of(tmp_path / "comparison.html", [("one", first), ("two", second)])
    best = set(re.findall(r'<strong class="best">([^<]*)</strong>', page.source))
    iou, three_way = (first["av2-2023"][key] for key in ("dynamic_iou", "three_way_epe"))
    assert best == {f"{three_way / 2:.4f}", f"{iou:.3f}", "50.0%"}, "not where only one is known or both look the same"
    assert page.row("Three-way EPE, m") == [f"{three_way:.4f}", f"{three_way / 2:.4f}"]
    assert page.row("Dynamic IoU") == [f"{iou:.3f}", "0.000"]
    assert page.row("Mean dynamic, normalised")[1] == "–"
    check_pictures(page)
    for row in page.rows:
        assert len(row) > 0
    assert "not comparable" not in page.text


def test_a_comparison_warns_of_different_points(tmp_path):
    first, second = made_up(), made_up()
    second["zeroflow"]["num_points"] += 1
    page = comparison_of(tmp_path / "comparison.html", [("one", first), ("two", second)])
    assert "These runs are not comparable" in page.text
    assert page.row("two") == [f"{second['zeroflow']['num_points']:,} by zeroflow"]
    page = comparison_of(tmp_path / "comparison.html", [("one", first), ("two", made_up(logs=1))])
    assert page.row("one") == ["3 logs, 12 pairs"] and page.row("two") == ["1 log, 4 pairs"]
    assert 'class="best"' not in page.source and "best of each row" not in page.text


def test_a_log_without_a_three_way_error_is_not_passed_off_as_the_best(tmp_path):
    metrics = made_up(4)
    first, second, third, fourth = (found["av2-2023"] for found in metrics["per_log"].values())
    first["three_way_epe"], first["fd"] = None, None
    second["three_way_epe"], second["fd"] = None, 3.0
    third["three_way_epe"], fourth["three_way_epe"] = 0.1, 0.2
    page = report_of(tmp_path / "report.html", metrics)
    logs = [row[0][:8] for row in page.rows if row and row[0] in metrics["per_log"]]
    assert logs == ["00000003", "00000002", "00000001", "00000000"]
    assert "Last, by the error of moving foreground: 2 logs without points in one of the three parts" in page.text
    assert "Last, by" not in report_of(tmp_path / "report.html", made_up()).text


def test_the_columns_of_many_runs_are_in_sight(tmp_path):
    def by_speed(number):
        runs = [(f"run {k}", made_up(seed=k)) for k in range(number)]
        page = comparison_of(tmp_path / "comparison.html", runs)
        check_pictures(page)
        return page.source.partition('id="speed"')[2].partition("</section>")[0]

    assert 'class="columns"' in by_speed(3)
    assert 'class="columns"' not in by_speed(4), "the table has the whole width"


def test_a_comparison_holds_logs_and_classes_that_only_one_run_has(tmp_path):
    first, second = made_up(2), copy.deepcopy(made_up(30))
    second["breakdown"]["class"].append({**second["breakdown"]["class"][0], "name": "BUS"})
    runs = [("one", first), ("two", second), *((f"run {k}", first) for k in range(8))]
    page = comparison_of(tmp_path / "comparison.html", runs)
    check_pictures(page)
    assert page.row("Bus")[2:4] == ["–", f"{second['breakdown']['class'][0]['moving']['epe']:.4f}"]
    lonely = page.row("00000005-0000-5ff3-891a-138ac31a2ceb")
    assert lonely[:4] == ["0–4", "–", "–", "–"] and lonely[4] != "–"


class Broken(dict):
    """Breaks while the page is made."""


def test_a_report_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("an earlier one")
    with pytest.raises(KeyError):
        write_report(path, Broken(), [], [])
    assert path.read_text() == "an earlier one"
    write_report(path, made_up(), [], [])
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(ZeroFlowError, match="cannot write .*report.html/report.html"):
        write_report(path / "report.html", made_up(), [], [])
