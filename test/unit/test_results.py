"""What a run leaves in its folder, and how it is shown: pooling, strict JSON, CSV, tables, damaged files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_cases import Point, av2_truth, estimate_of, scene_flow_truth
from rich.console import Console

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation import breakdown
from zeroflow_core.evaluation.results import DEFINITIONS, read_metrics, write_results
from zeroflow_core.evaluation.tables import print_comparison, print_run
from zeroflow_core.evaluation.wording import fitted

NAMES = ["av2-2023", "av2-2024", "zeroflow"]
RUN = {"method": "zero", "name": "zero flow", "checkpoint": None, "data": "logs", "split": "val", "version": "0"}
RUN |= {"jobs": 1, "notes": []}
CAR = "REGULAR_VEHICLE"


def _car(error: float, speed: float = 0.5) -> Point:
    """A point of a car with so long an error; the car goes `speed` metres per pair."""
    return Point((10, 0, 0), category=CAR, residual=(speed, 0, 0), estimate=(speed, error, 0))


def _wall(error: float = 0.0) -> Point:
    return Point((5, 5, 0), estimate=(0, error, 0))


def _record(log: str, index: int, points: Sequence[Point], seconds: float = 0.1) -> dict:
    """A line of a journal, as it is read back."""
    truth = replace(av2_truth(points), scene_flow=scene_flow_truth(points).scene_flow)
    estimate = estimate_of(points)
    tallies = {module.NAME: module.tally(truth, estimate) for module in (*DEFINITIONS, breakdown)}
    stamp = 1_000_000_000_000_000_000 + index
    record = {"log": log, "index": index, "stamp_ns": stamp, "dt": 0.1, "seconds": seconds, "tallies": tallies}
    return json.loads(json.dumps(record))


FEW = [_car(0.4), _wall(0.02)]
MANY = [_car(0.1)] * 3 + [_wall()] * 7
PARKED = [_car(0.03, speed=0.0)] * 4 + [_car(0.2)] * 2
THREE = [("a", 0, FEW), ("a", 1, MANY), ("b", 0, PARKED)]


def _written(folder: Path, pairs: Sequence[tuple[str, int, Sequence[Point]]], **run: object) -> dict:
    folder.mkdir(exist_ok=True)
    return write_results(folder, RUN | run, (_record(*pair) for pair in pairs), [])


def _rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "pairs.csv", newline="") as file:
        return list(csv.DictReader(file))


# --- figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("definition", NAMES)
def test_every_point_counts_as_much_as_another(tmp_path, definition):
    metrics = _written(tmp_path, THREE)
    figures = metrics[definition]
    assert figures["fd"] == pytest.approx((0.4 + 3 * 0.1 + 2 * 0.2) / 6)  # over pairs it would be 0.2333
    assert figures["fs"] == pytest.approx(0.03)
    assert figures["bs"] == pytest.approx(0.02 / 8)
    assert figures["three_way_epe"] == pytest.approx((figures["fd"] + figures["fs"] + figures["bs"]) / 3)
    assert [figures[key] for key in ("num_fd", "num_fs", "num_bs", "num_points")] == [6, 4, 8, 18]
    of_a, of_b = (metrics["per_log"][log][definition] for log in "ab")
    assert of_a["fd"] == pytest.approx((0.4 + 3 * 0.1) / 4) and of_a["bs"] == figures["bs"]
    assert of_b["fd"] == pytest.approx(0.2)


def test_parts_without_points_are_none(tmp_path):
    per_log = _written(tmp_path, THREE)["per_log"]
    for definition in NAMES:
        assert per_log["a"][definition]["fs"] is None and per_log["a"][definition]["three_way_epe"] is None
        assert per_log["b"][definition]["bs"] is None
        assert [row[f"{definition}/bs"] == "" for row in _rows(tmp_path)] == [False, False, True]
        assert [row[f"{definition}/three_way_epe"] for row in _rows(tmp_path)] == ["", "", ""]


def test_classes_and_breakdown_are_pooled_too(tmp_path):
    metrics = _written(tmp_path, THREE)
    car = metrics["av2-2024"]["classes"]["CAR"]
    assert car["num_points"] == 10 and car["static"] == pytest.approx(0.03)
    assert [bucket["num_points"] for bucket in car["buckets"]] == [4, 6]
    assert metrics["breakdown"]["class"][1]["name"] == CAR
    assert metrics["breakdown"]["class"][1]["moving"]["num_points"] == 6
    of_log = metrics["per_log"]["a"]["av2-2024"]["classes"]["CAR"]
    assert of_log == {"static": None, "dynamic": pytest.approx(0.35), "num_points": 4}


def test_the_run_says_how_much_it_was_and_how_long_a_pair_took(tmp_path):
    records = [_record("a", k, FEW, seconds) for k, seconds in enumerate((0.1, 0.2, 0.6))] + [_record("b", 0, FEW, 0.3)]
    failed = [{"log": "b", "index": 1, "stamp_ns": 2, "error": "no"}]
    metrics = write_results(tmp_path, RUN, records, failed)
    assert metrics["run"].items() >= (RUN | {"num_logs": 2, "num_pairs": 4}).items()
    assert metrics["run"]["seconds"] == pytest.approx({"median": 0.25, "p90": 0.51, "mean": 0.3})
    assert {log: of_log["num_pairs"] for log, of_log in metrics["per_log"].items()} == {"a": 3, "b": 1}
    assert metrics["failed"] == failed


@pytest.mark.parametrize("intervals, noted", [((0.2,), "0.20"), ((0.1, 0.2, 0.21), "0.20"), ((0.088,), "0.09"),
                                              ((0.1, 0.1, 0.5), None), ((0.109, 0.091), None), ((), None)])
def test_sweeps_that_are_not_a_tenth_of_a_second_apart_are_noted(tmp_path, intervals, noted):
    records = [{**_record("a", k, FEW), "dt": dt} for k, dt in enumerate(intervals)]
    metrics = write_results(tmp_path, RUN | {"notes": ["there is no map"]}, records, [])
    first, *others = metrics["run"]["notes"]
    told = "the sweeps are {} s apart: speeds of av2-2024 and zeroflow count metres per pair as if at 10 Hz"
    assert first == "there is no map" and others == ([told.format(noted)] if noted else [])
    assert read_metrics(tmp_path) == metrics


def test_a_run_without_any_pair_has_no_figures_but_a_file(tmp_path):
    metrics = _written(tmp_path, [])
    assert read_metrics(tmp_path) == metrics and metrics["per_log"] == {}
    assert all(metrics[name]["fd"] is None and metrics[name]["num_points"] == 0 for name in NAMES)
    assert metrics["run"]["seconds"] == {"median": None, "p90": None, "mean": None}
    assert _rows(tmp_path) == []
    assert "–" in _run_text(metrics)


# --- files -------------------------------------------------------------------------------------------------


def test_metrics_are_strict_json_in_a_stable_order(tmp_path):
    metrics = _written(tmp_path, [THREE[2], THREE[0], THREE[1]])
    text = (tmp_path / "metrics.json").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(text, parse_constant=refuse)
    assert content == metrics == read_metrics(tmp_path)  # floats, too, to the last bit
    assert list(content) == [*NAMES, "breakdown", "per_log", "run", "failed"]
    assert list(content["per_log"]) == ["a", "b"]
    assert text.startswith('{\n  "av2-2023": {\n    "three_way_epe": ') and text.endswith("}\n")


def test_a_figure_that_is_no_number_is_a_bug_and_replaces_nothing(tmp_path):
    _written(tmp_path, THREE)
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(tmp_path, RUN | {"lost": float("nan")}, [_record(*THREE[0])], [])
    assert (tmp_path / "metrics.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "pairs.csv"]


def test_pairs_have_a_row_each_in_their_order(tmp_path):
    _written(tmp_path, THREE)
    rows = _rows(tmp_path)
    figures = ("three_way_epe", "fd", "fs", "bs", "num_fd", "num_points", "coverage")
    expected = ["log", "index", "stamp_ns", "dt_s", "seconds"]
    assert list(rows[0]) == expected + [f"{name}/{figure}" for name in NAMES for figure in figures]
    assert [(row["log"], row["index"]) for row in rows] == [("a", "0"), ("a", "1"), ("b", "0")]
    assert rows[1]["stamp_ns"] == "1000000000000000001" and rows[1]["dt_s"] == "0.1"
    assert float(rows[1]["av2-2023/fd"]) == pytest.approx(0.1) and rows[1]["zeroflow/num_points"] == "10"
    assert b"\r" not in (tmp_path / "pairs.csv").read_bytes()


def test_what_stops_halfway_leaves_the_old_files_alone(tmp_path):
    _written(tmp_path, THREE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def records():
        yield _record(*THREE[0])
        raise ZeroFlowError("the journal is damaged")

    with pytest.raises(ZeroFlowError, match="the journal is damaged"):
        write_results(tmp_path, RUN, records(), [])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ZeroFlowError, match=f"cannot write {tmp_path}/file/pairs.csv: "):
        write_results(tmp_path / "file", RUN, [], [])


def test_folders_without_a_run_are_told(tmp_path):
    with pytest.raises(ZeroFlowError, match=r"gone does not exist; give the folder that zeroflow evaluate wrote"):
        read_metrics(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(ZeroFlowError, match="file is a file; give the folder"):
        read_metrics(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZeroFlowError, match=r"empty has no metrics.json; run zeroflow evaluate --out .*empty first"):
        read_metrics(tmp_path / "empty")
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(ZeroFlowError, match=r"cannot read .*metrics.json: Is a directory"):
        read_metrics(tmp_path)


def _without(*keys: str | int):
    def change(metrics: dict) -> dict:
        inner = metrics
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return metrics

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda metrics: [metrics],
        _without("av2-2024"),
        _without("zeroflow", "bs"),
        _without("av2-2023", "num_points"),
        _without("breakdown"),
        _without("breakdown", "class", 0, "moving", "coverage"),
        _without("breakdown", "speed", 3),
        _without("av2-2023", "angle_error_fs"),
        _without("av2-2024", "classes", "CAR"),
        _without("av2-2024", "classes", "CAR", "buckets", 0, "speed"),
        _without("zeroflow", "classes", "PEDESTRIAN", "by_speed"),
        _without("run"),
        _without("run", "seconds", "median"),
        _without("run", "jobs"),
        _without("run", "notes"),
        lambda metrics: metrics | {"run": {**metrics["run"], "notes": "none"}},
        lambda metrics: metrics | {"run": {**metrics["run"], "notes": [1]}},
        _without("failed"),
        _without("per_log"),
        _without("per_log", "a", "num_pairs"),
        _without("per_log", "b", "zeroflow", "fd"),
        lambda metrics: metrics | {"per_log": [metrics["per_log"]]},
        lambda metrics: metrics | {"failed": [{"log": "a"}]},
        lambda metrics: metrics | {"run": {**metrics["run"], "data": None}},
        lambda metrics: metrics | {"zeroflow": {**metrics["zeroflow"], "fd": "0.1"}},
        lambda metrics: metrics | {"zeroflow": {**metrics["zeroflow"], "fd": float("nan")}},
    ],
)
def test_a_file_that_no_run_has_written_is_refused(tmp_path, change):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(change(_written(tmp_path, THREE))))
    with pytest.raises(ZeroFlowError, match=f"{path} is damaged or not of zeroflow evaluate"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, keep):
    _written(tmp_path, THREE)
    path = tmp_path / "metrics.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))] if isinstance(keep, float) else b"\xff" * keep)
    with pytest.raises(ZeroFlowError, match="is damaged or not of zeroflow evaluate"):
        read_metrics(tmp_path)


# --- tables ------------------------------------------------------------------------------------------------


def _console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False)


def _run_text(metrics: dict) -> str:
    console = _console()
    print_run(metrics, console)
    return console.file.getvalue()


def _comparison(runs: Sequence[dict], names: Sequence[str], width: int = 80) -> str:
    console = _console(width)
    print_comparison(runs, names, console)
    return console.file.getvalue()


def _line(text: str, *words: str) -> list[str]:
    """The words of the first line that begins so."""
    return next(line.split() for line in text.splitlines() if line.split()[: len(words)] == list(words))


def test_the_table_of_a_run_shows_the_parts(tmp_path):
    text = _run_text(_written(tmp_path, [*THREE, ("c", 0, [Point((1, 1, 0), estimate=None)] * 2)]))
    assert "\x1b" not in text and all(len(line) <= 80 for line in text.splitlines())
    assert text.startswith("zero flow on val of logs, 3 logs, 4 pairs\n")
    for definition in NAMES:
        assert _line(text, definition) == [definition, "0.0718", "0.1833", "0.0300", "0.0020", "20", "90.0"]
    assert _line(text, "av2-2023", "FS")[2:4] == ["100.0", "100.0"]
    assert _line(text, "mean")[1:3] == ["0.3667", "0.0160"]
    assert _line(text, "CAR")[1:] == ["0.3667", "0.0300", "10"]
    assert _line(text, "PEDESTRIAN")[1:] == ["–", "–", "0"]
    assert "dynamic IoU" in text and "median pair 100.0 ms, p90 100.0 ms\n" in text


def test_the_table_of_a_run_is_followed_by_its_notes(tmp_path):
    text = _run_text(_written(tmp_path, THREE, jobs=2, notes=["1 of 2 logs has no map", "another"]))
    assert "p90 100.0 ms, with 2 processes at once\n Note: 1 of 2 logs has no map\n Note: another\n" in text
    assert "Note" not in _run_text(_written(tmp_path, THREE))


def test_a_comparison_marks_the_best_and_tells_the_difference(tmp_path):
    zero = _written(tmp_path / "zero", [("a", 0, [_car(0.5), _car(0.02, 0.0), _wall()])])
    good = _written(tmp_path / "good", [("a", 0, [_car(0.04), _car(0.02, 0.0), _wall(0.001)])], name="a student")
    text = _comparison([zero, good], ["zero", "good"])
    assert "good: a student on val of logs, 1 log, 1 pair" in text and "Not comparable" not in text
    assert _line(text, "FD") == ["FD", "0.5000", "-0.4600", "0.0400*"]
    assert _line(text, "FS") == ["FS", "0.0200", "=", "0.0200"]  # no best among equals
    assert _line(text, "BS") == ["BS", "0.0000*", "+0.0010", "0.0010"]
    assert _line(text, "AccS", "FD,")[-3:] == ["0.0", "+100.0", "100.0*"]  # here more is better
    assert _line(text, "PEDESTRIAN")[1:] == ["–", "–", "–"]
    assert _line(text, "points")[1:] == ["3", "=", "3"]
    assert "\x1b" not in text and all(len(line) <= 80 for line in text.splitlines())
    assert "BACKGROUND" not in text  # nothing of it moves


def test_many_runs_with_long_names_keep_their_numbers_whole(tmp_path):
    runs = [_written(tmp_path / str(k), [("a", 0, [_car(0.1 * k), *PARKED])]) for k in range(1, 8)]
    names = [f"experiments/{k}/of_a_student_with_a_long_name" for k in range(1, 8)]
    text = _comparison(runs, names)
    assert [line.split()[1:] for line in text.splitlines() if line.split()[:1] == ["FD"]][::3] == [
        ["0.1667*", "+0.0333", "0.2000", "+0.0667", "0.2333"],
        ["0.1667*", "+0.1000", "0.2667", "+0.1333", "0.3000"],  # those that don't fit, beside the first again
        ["0.1667*", "+0.1667", "0.3333", "+0.2000", "0.3667"],
    ]
    assert all(len(line) <= 80 for line in text.splitlines() if "zero flow" not in line)
    headings = [line.split() for line in text.splitlines() if "Δ" in line]
    shown = [headings[0][0], *(name for words in headings[:-1] for name in words[2::2])]
    assert len(set(shown)) == 7 and all("…" in name and f"/{k}" in name for k, name in enumerate(shown, 1))
    wide = _comparison(runs, names, width=200)
    assert _line(wide, "FD")[-1] == "0.3667" and wide.count("three-way") == 3
    narrow = _comparison(runs, names, width=20)
    assert [line.split()[-1] for line in narrow.splitlines() if line.split()[:1] == ["FD"]][::3][-1] == "0.3667"


def test_runs_over_other_points_are_not_comparable(tmp_path):
    one = _written(tmp_path / "one", THREE)
    fewer = _written(tmp_path / "fewer", THREE[1:])
    other = _written(tmp_path / "other", THREE[:2])
    more_points = _written(tmp_path / "more", [*THREE[:2], ("b", 0, [*PARKED, _wall()])])
    assert "scored other pairs of the same logs (one: 2 logs, 3 pairs; fewer: 2 logs, 2 pairs)" in _comparison(
        [one, fewer], ["one", "fewer"]
    )
    assert "scored other logs (one: 2 logs, 3 pairs; other: 1 log, 2 pairs)" in _comparison(
        [one, other], ["one", "other"]
    )
    assert "scored other points of the same pairs (one: 18 by av2-2023; more: 19 by av2-2023)" in _comparison(
        [one, more_points], ["one", "more"]
    )


def test_where_nothing_can_be_compared_nothing_is_best_and_nothing_differs(tmp_path):
    one, other = _written(tmp_path / "one", THREE), _written(tmp_path / "other", THREE[:2])
    text = _comparison([one, other], ["one", "other"])
    assert "*" not in text and "Δ" not in text and "Not comparable" in text
    assert _line(text, "FD") == ["FD", "0.1833", "0.1750"]
    alike = _comparison([one, one], ["one", "same"])
    assert "Δ" in alike and "* is the best" in alike


def test_long_names_are_cut_around_what_tells_them_apart():
    assert fitted(["zero", "student"], 7) == ["zero", "student"]
    assert fitted(["zero", "student_xl"], 8) == ["zero", "student…"]
    assert fitted(["runs/of/1/student", "runs/of/2/student"], 8) == ["…s/of/1…", "…s/of/2…"]
    assert fitted(["student_xl_3", "student_xl_4"], 8) == ["…nt_xl_3", "…nt_xl_4"]
    assert fitted([], 8) == [] and fitted(["ab", "cd"], 1) == ["…", "…"]


def test_runs_over_other_data_are_not_comparable_unless_it_is_the_same_elsewhere(tmp_path):
    one = _written(tmp_path / "one", THREE)
    moved = _written(tmp_path / "moved", THREE, data="a/copy")
    other = _written(tmp_path / "other", [("c", *pair[1:]) for pair in THREE[:2]], split="test")
    told = "other data (one: 2 logs, 3 pairs of val of logs; other: 1 log, 2 pairs of test of logs)"
    assert told in _comparison([one, other], ["one", "other"])
    assert "Not comparable" not in _comparison([one, moved], ["one", "moved"])


def test_failed_pairs_are_mentioned(tmp_path):
    failed = [{"log": "a", "index": 2, "stamp_ns": 3, "error": "the sweep is damaged"}]
    metrics = write_results(tmp_path, RUN, [_record(*THREE[0])], failed)
    assert "1 log, 1 pair, 1 failed" in _run_text(metrics)
