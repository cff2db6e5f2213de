"""How right pseudo-labels are: by labels whose faults are known."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from zeroflow_core.bench.__main__ import app
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.stored_flow import write_stored_flow
from zeroflow_core.distillation.making.truth import write_truth
from zeroflow_core.simulation.logs import simulate_logs


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    root = tmp_path_factory.mktemp("logs")
    return simulate_logs(root, "train", 1, 2, seed=3, scanner="small", scene="junction", jobs=1).logs


def figures_of(folder, root, tmp_path):
    """What the bench says of labels, whose logs it cannot know without a manifest."""
    logs = {log.name: {"path": str(log)} for log in root}
    manifest = {"configuration": {"ground": "map"}, "teacher": "", "logs": logs}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "labels.json"
    result = CliRunner().invoke(app, ["labels", str(folder), "--ground", "none", "--json", str(out)])
    assert result.exit_code == 0, result.output
    (kinds,) = json.loads(out.read_text())["folders"].values()
    assert "standing points, labelled as moving" in result.output
    return kinds


def test_truth_has_no_fault(simulated, tmp_path):
    write_truth(simulated, "train", tmp_path / "labels")
    raw = figures_of(tmp_path / "labels", simulated, tmp_path)["raw"]
    assert raw["false_motion"] < 0.005 and raw["missed_motion"] < 0.1 and raw["moving_unknown"] == 0
    # backward in time the cuboids tell, which limbs and the moment of each beam make a little different
    assert raw["moving_epe"] < 0.03 and raw["moving_epe_of_zero"] > 0.05


def test_motion_given_to_every_tenth_point_is_found_and_refined_away(simulated, tmp_path):
    labels = write_truth(simulated, "train", tmp_path / "labels")
    log = Log(simulated[0])
    for file, flow in zip(labels.files(log, 0), labels.read(log, 0), strict=True):
        still = np.flatnonzero(np.linalg.norm(flow, axis=1) < 0.01)[::10]
        flow[still] += [0.2, 0, 0]
        write_stored_flow(file, np.nan_to_num(flow), np.isfinite(flow).all(axis=1))
    kinds = figures_of(tmp_path / "labels", simulated, tmp_path)
    assert kinds["raw"]["false_motion"] == pytest.approx(0.1, abs=0.01)
    assert kinds["refined"]["false_motion"] < 0.2 * kinds["raw"]["false_motion"]
