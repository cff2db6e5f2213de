"""Without a label: a teacher's flow on raw sweeps makes a student that sees motion on drives it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroflow_core.distillation.labelling.label import LabelSettings, label
from zeroflow_core.distillation.training import train as training
from zeroflow_core.distillation.training.label_sources import source_of
from zeroflow_core.distillation.training.recipes import recipe
from zeroflow_core.distillation.training.train import TrainSettings, train
from zeroflow_core.evaluation.methods import Settings
from zeroflow_core.evaluation.run import evaluate
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.simulation.logs import simulate_logs

COARSE = FastFlow3DConfig((-38.4, -38.4, -3.0), (38.4, 38.4, 3.0), pillar_size=0.8, channels=16, blocks=(1, 1, 1))
QUICK_TEACHER = TeacherConfig("nsfp", "fast", iterations=120, samples=1024, precision="fp32")
SHORT = {  # all drive along one road, so that little turning will do
    "batch": 4, "visits": 8, "epochs": 6, "learning_rate": 2e-3, "around_motion": 0.9, "patience": None,
    "augmentation": {"turn": 5.0, "drop_beams": 0.0},
}


@pytest.mark.timeout(900)
def test_labels_of_the_teacher_make_a_student_that_sees_motion(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(training.SIZES, "coarse", COARSE)
    drives = {"scanner": "small", "scene": "highway", "density": 1.5, "seed": 3}
    logs = simulate_logs(tmp_path / "sim", "train", 8, 3, **drives).logs
    unknown = simulate_logs(tmp_path / "sim", "val", 4, 2, **drives).logs
    zero = evaluate(Settings(tmp_path / "sim", method="zero"), tmp_path / "zero", pictures=0).metrics["av2-2023"]["fd"]

    labelled = label(LabelSettings(tuple(logs), "train", tmp_path / "labels", teacher_config=QUICK_TEACHER))
    assert not labelled.failed
    for direction in ("forward", "reverse"):
        assert labelled.manifest["errors"][direction]["fd"] < 0.4 * zero

    trained = train(
        TrainSettings(
            (source_of(tmp_path / "labels", ground="patchwork"),),
            tmp_path / "out",
            "coarse",
            recipe("fast", **SHORT),
            device="cpu",
            workers=1,
            validation=tuple(unknown),
        )
    )
    moving = [float(line.split(",")[7]) for line in (tmp_path / "out" / "validation.csv").read_text().splitlines()[1:]]
    assert len(moving) == 6 and zero > 1.5
    assert min(moving[-2:]) < 0.65 * zero, f"moving points of unknown drives by epoch: {moving}, zero flow {zero:.2f}"
    assert trained.student.is_file()
