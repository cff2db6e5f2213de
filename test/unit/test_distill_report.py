"""The page of a distillation: with labelled logs and without, with failures, and of a student that learned nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zeroflow_core.datasets.av2_writer import new_log
from zeroflow_core.datasets.recording import Recording
from zeroflow_core.distillation.report import Facts, write_report
from zeroflow_core.distillation.sources import LogSource
from zeroflow_core.distillation.training.recipes import recipe
from zeroflow_core.distillation.training.train import Trained
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

RECORDING = Recording(
    bag="drive", topic="/points", frame_id="os", vehicle_frame="os", world_frame="", ego_motion="kiss_icp",
    odometry=None, deskewed=True, height=None, ground_z=-1.8, z_offset=1.47, bag_start_ns=0, bag_clouds=22,
)  # fmt: skip
FIGURES = {
    "heldback/moving_epe": 0.2,
    "heldback/still_epe": 0.02,
    "heldback/zero_moving_epe": 0.8,
    "heldback/zero_still_epe": 0.01,
}
MANIFEST = {
    "teacher": "NSFP, fast engine (bf16, cpu)",
    "configuration": {"device": "cpu"},
    "counts": {"pairs": 1500, "labelled": 1491, "without_estimate": 2, "failed": 7},
    "device_hours": 3.25,
    "seconds_per_pair": 7.8,
    "mean": {"loss": 0.0712},
    "errors": {},
}


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    with new_log(tmp_path / "log") as log:
        for k in range(4):
            log.add_sweep(Sweep(np.ones((3, 3), np.float32), k * 40_000_000_000, SE3.identity()))
    return Facts(
        name="mine",
        source=LogSource(bag=Path("drive.mcap")),
        logs=[tmp_path / "log"],
        recording=RECORDING,
        manifest=MANIFEST,
        failed=[{"log": "drive_1", "index": k, "error": "the optimisation diverged"} for k in range(7)],
        student="small",
        recipe=recipe("fast"),
        trained=Trained(tmp_path / "student", {"ground": "patchwork"}, [], FIGURES, 1200, 754.0, 0.031),
        held_back={},
        metrics={},
        launch="ros2 launch it",
        pictures=("curves.png",),
    )


def _page(facts: Facts, folder: Path) -> str:
    return write_report(facts, folder).read_text()


def test_the_page_of_a_bag(facts: Facts, tmp_path: Path):
    page = _page(facts, tmp_path)
    for sentence in (
        "A FastFlow3D (*small*) that learned scene flow from the bag drive.mcap, without a human label.",
        "- the bag drive.mcap: 1 log, 4 sweeps, 2 min 0 s",
        "- clouds of /points in frame os; ego motion: estimated with KISS-ICP",
        "- ground at z = -1.80 m (estimated), so z_offset = 1.47 m; deskewed here",
        "- 1,491 of 1,500 pairs labelled in 3.25 CPU-core-hours, 7.80 s each; mean loss 0.0712",
        "- 2 pairs gave it nothing to go by",
        "1,200 steps of 8 samples in 12 min 34 s, 3.1% of it waiting for data",
        "| zero flow | 0.8000 | 0.0100 |",
        "| student | 0.2000 | 0.0200 |",
        "The student finds 75.0% of the motion that its teacher sees in these pairs.",
        "No log has labels of its own",
        "ros2 launch it",
    ):
        assert sentence in page, sentence
    assert "before_after.png" not in page  # there is none


def test_failed_pairs_are_listed_but_not_all_of_many(facts: Facts, tmp_path: Path):
    page = _page(facts, tmp_path)
    assert "- 7 pairs failed, and were not learned from:" in page
    assert "drive_1, pair 4: the optimisation diverged" in page and "pair 5" not in page and "… and 2 more" in page
    assert "failed" not in _page(replace(facts, failed=[]), tmp_path)


def test_a_student_that_learned_nothing_is_not_praised(facts: Facts, tmp_path: Path):
    figures = {**FIGURES, "heldback/moving_epe": 0.9}
    page = _page(replace(facts, trained=replace(facts.trained, figures=figures)), tmp_path)
    assert "**The student does no better than saying that nothing moves.**" in page and "finds" not in page


def test_errors_by_the_logs_own_labels(facts: Facts, tmp_path: Path):
    row = {"three_way_epe": 0.1, "fd": 0.25, "fs": 0.03, "bs": None, "mean_dynamic": 0.4}
    errors = {"forward": {"three_way_epe": 0.11, "fd": 0.2}, "reverse": {"three_way_epe": 0.12, "fd": 0.21}}
    held_back = dict.fromkeys(("student", "teacher", "zero"), row)
    page = _page(replace(facts, held_back=held_back, manifest=MANIFEST | {"errors": errors}), tmp_path)
    rows = [line for line in page.splitlines() if line.endswith("| 0.1000 | 0.2500 | 0.0300 | – | 0.400 |")]
    assert [line.split(" | ")[0] for line in rows] == ["| zero flow", "| student", "| teacher"]
    assert "forward: three-way 0.1100 m" in page and "reverse: three-way 0.1200 m" in page
    assert "No log has labels" not in page


def test_bags_that_are_not_alike_are_told(facts: Facts, tmp_path: Path):
    sentence = "the bag b.mcap is not like drive: its topic is /b, not /points"
    page = _page(replace(facts, unlike=[sentence]), tmp_path)
    assert f"- **{sentence}**" in page and "See it live, where it is set up as in drive:" in page
    assert "not like" not in _page(facts, tmp_path)
