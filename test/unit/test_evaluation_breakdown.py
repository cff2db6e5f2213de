"""Errors by speed, range and class: by hand, and as parts of the whole that av2-2023 scores."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from evaluation_cases import (
    AV2_LOG,
    Point,
    av2_truth,
    estimate_of,
    figures_of,
    just_above,
    just_below,
    noisy,
    of_length,
    pooled_figures,
    with_errors,
)

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.evaluation import av2_2023, breakdown
from zeroflow_core.evaluation.truth import read_truth
from zeroflow_core.geometry import SE3

NOTHING = {"num_points": 0, "epe": None, "epe_zero": None, "coverage": None}


def entry_of(points: list[Point]) -> dict:
    """What the points' entry is to hold."""
    if not points:
        return NOTHING
    return {
        "num_points": len(points),
        "epe": pytest.approx(np.mean([point.error for point in points]), abs=1e-7),
        "epe_zero": pytest.approx(np.mean([point.motion for point in points]), abs=1e-7),
        "coverage": pytest.approx(np.mean([point.estimate is not None for point in points])),
    }


def test_by_speed():
    rows = {  # lower edge in m/s: motions in metres per pair of 0.1 s
        0.0: [(0, 0, 0), (just_below(0.05), 0, 0)],
        0.5: [of_length(0.05), (0, 0.19, 0)],
        2.0: [of_length(0.2), (0, 0, 0.49)],
        5.0: [(0.5, 0, 0), (0, just_below(1.0), 0)],
        10.0: [(0, 1.0, 0), (just_below(2.0), 0, 0)],
        20.0: [(0, 0, 2.0), (7, 0, 0)],
    }
    points = [Point((1.0, k, 0.0), str(low), "BUS", m) for low, motions in rows.items() for k, m in enumerate(motions)]
    points += [Point((2.0, k, 0.0), "10.0", "NONE", (0, 1.5, 0), None) for k in range(2)]
    points += [Point((60.0, 0.0, 0.0)), Point((1.0, 0.0, 0.0), ground=True), Point((1.0, 0.0, 0.0), valid=False)]
    points = with_errors(points)
    speeds = figures_of(breakdown, av2_truth(points), points)["speed"]
    assert [row["from_mps"] for row in speeds] == list(rows)
    assert [row["to_mps"] for row in speeds] == [0.5, 2.0, 5.0, 10.0, 20.0, None]
    for row in speeds:
        own = entry_of([point for point in points if point.part == str(row["from_mps"])])
        assert {name: row[name] for name in own} == own


def test_speeds_are_per_second_of_the_pair():
    points = [Point((1.0, 0.0, 0.0), "", "BUS", (0.3, 0.0, 0.0))]
    truth = replace(av2_truth(points), dt=0.2)
    numbers = [row["num_points"] for row in figures_of(breakdown, truth, points)["speed"]]
    assert numbers == [1 if k == 0 else 0 for k in (1, 0, 2, 3, 4, 5)]


def test_by_range_and_by_class():
    standing, moving = (0.0, 0.0, 0.01), (0.0, 0.0, 0.4)
    rows = {  # lower edge in m: places
        0.0: [(0, 0, 5), (just_below(10), 0, 0)],
        10.0: [(10, 0, 0), (-6, 8, 3), (0, just_below(-20), 0)],
        20.0: [(12, -16, 0), (0, just_below(30), 0)],
        30.0: [(18, 24, 0), (-30, 0, -8)],
        40.0: [(0, 40, 0), (just_below(50), 0, 0)],
        50.0: [(30, 40, 0), (50, 50, 0), (50, 0, 20)],
    }
    points = [
        Point(at, f"{low} {motion}", category, residual, dynamic=motion == "moving")
        for low, places in rows.items()
        for at in places
        for category, motion, residual in (
            ("NONE", "standing", standing),
            ("BUS", "moving", moving),
            ("BUS", "standing", moving),  # the label says so
        )
    ]
    points += [Point((5, 1, 0), "0.0 moving", "DOG", moving, None), Point((5, 2, 0), "0.0 moving", "NONE", moving)]
    points += [Point((just_above(50), 0, 0)), Point((1, 0, 0), category="SIGN", ground=True)]
    points = with_errors(points)
    figures = figures_of(breakdown, av2_truth(points), points)
    assert [row["from_m"] for row in figures["range"]] == list(rows)
    assert [row["to_m"] for row in figures["range"]] == [10, 20, 30, 40, 50, None]
    for row in figures["range"]:
        for motion in ("moving", "standing"):
            assert row[motion] == entry_of([p for p in points if p.part == f"{row['from_m']} {motion}"])

    assert [row["name"] for row in figures["class"]] == ["NONE", "BUS", "DOG"]  # as AV2 counts them
    for row in figures["class"]:
        for motion in ("moving", "standing"):
            own = [p for p in points if p.part.endswith(f" {motion}") and p.category == row["name"]]
            assert row[motion] == entry_of(own)


def test_errors_are_of_total_flow_on_a_turn():
    turn = SE3.from_yaw(np.pi / 2, np.array([5.0, 2.0, 0.0]))
    points = with_errors([Point((10.0, -4.0, 1.0), "", "BUS", (1.0, 0.5, 0.25)), Point((3.0, 8.0, 1.0))])
    figures = figures_of(breakdown, av2_truth(points, turn), points)
    assert figures["range"][1]["moving"] == entry_of(points[:1])
    assert figures["class"][0]["standing"] == entry_of(points[1:])


def test_pairs_are_pooled_by_their_points():
    first = [Point((1.0, k, 0.0), "", "BUS", (0.1, 0.0, 0.0), (0.1, 0.0, 0.02)) for k in range(3)]
    second = [Point((1.0, 0.0, 0.0), "", "BUS", (0.15, 0.0, 0.0), None)]
    figures = pooled_figures(breakdown, [(av2_truth(points), estimate_of(points)) for points in (first, second)])
    row = entry_of(first + second)
    assert figures["class"] == [{"name": "BUS", "moving": row, "standing": NOTHING}]
    assert figures["range"][0] == {"from_m": 0.0, "to_m": 10.0, "moving": row, "standing": NOTHING}
    assert figures["speed"][1] == {"from_mps": 0.5, "to_mps": 2.0, **row}


def test_no_points_at_all():
    figures = figures_of(breakdown, av2_truth([]), [])
    assert figures["class"] == [] and len(figures["speed"]) == len(figures["range"]) == 6
    assert all(row["num_points"] == 0 and row["epe"] is None for row in figures["speed"])


def test_the_parts_of_the_real_pair_make_the_whole(test_data):
    truth = read_truth(Log(test_data / AV2_LOG), 0)
    pair = [(truth, noisy(truth))]
    whole, figures = pooled_figures(av2_2023, pair), pooled_figures(breakdown, pair)
    by_range = Counter()
    for kind in ("range", "class"):
        for motion in ("moving", "standing"):
            rows = [row[motion] for row in figures[kind] if row[motion]["num_points"]]
            by_range[kind] += sum(row["num_points"] for row in rows)
    assert set(by_range.values()) == {whole["num_points"]} == {sum(row["num_points"] for row in figures["speed"])}

    foreground = [row["moving"] for row in figures["class"] if row["name"] != "NONE" and row["moving"]["num_points"]]
    numbers = [row["num_points"] for row in foreground]
    assert sum(numbers) == whole["num_fd"] == 1_819
    assert np.average([row["epe"] for row in foreground], weights=numbers) == pytest.approx(whole["fd"], abs=1e-9)
    assert np.average([row["epe_zero"] for row in foreground], weights=numbers) == pytest.approx(0.6737, abs=5e-5)
    (background,) = (row["standing"] for row in figures["class"] if row["name"] == "NONE")
    assert background["epe"] == pytest.approx(whole["bs"], abs=1e-9)
    assert background["coverage"] == pytest.approx(whole["coverage_bs"])
