"""The student that comes along: small, loaded by default, and better than nothing where it claims to be."""

import numpy as np
import pytest

from zeroflow_core import load_student
from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.distillation.interim import evaluate
from zeroflow_core.evaluation.errors import FlowErrors
from zeroflow_core.fastflow3d.checkpoint import DEFAULT_CHECKPOINT
from zeroflow_core.ground import Patchwork, mark_ground
from zeroflow_core.pairs import estimate_flow, make_pair, remove_ego_motion


@pytest.fixture(scope="module")
def student():
    return load_student("default", device="cpu")


def test_it_is_small_and_says_what_it_is(student):
    assert DEFAULT_CHECKPOINT.stat().st_size <= 5_000_000
    assert (DEFAULT_CHECKPOINT.parent / "README.md").is_file()
    assert student.metadata["name"] == "interim" and student.metadata["ground"] == "patchwork"
    assert student.metadata["interval_s"] == 0.1 and student.metadata["recipe"]["seed"] == 1


def test_held_out_streets(student):
    errors = evaluate(student, scenes=8)
    assert errors.dynamic_points > 20_000 and errors.static_points > 200_000
    assert errors.dynamic_epe <= 0.5 * errors.dynamic_epe_of_zero
    assert errors.static_too_fast <= 0.02


def test_real_sweeps_it_has_never_seen(student, test_data):
    """On the labelled Argoverse 2 pair, both ways through time: closer to the truth than zero flow."""
    (log,) = (Log(path) for path in find_logs(test_data / "av2"))
    first, second = (mark_ground(log.sweep(i), Patchwork()) for i in (0, 1))
    pair, labels = make_pair(first, second), log.flow_labels(0)
    truth = remove_ego_motion(pair.pc0, labels.total_flow, pair.ego0_SE3_ego1)
    scored = ~labels.is_ground0 & ~first.is_ground
    errors = FlowErrors()
    errors.add(estimate_flow(student, pair).vectors[scored], truth[scored], pair.dt)
    assert errors.dynamic_epe < errors.dynamic_epe_of_zero

    backward = estimate_flow(student, make_pair(second, first))
    fast = np.linalg.norm(backward.velocity, axis=1) > 3.0
    assert fast.sum() > 300, "what drives by is seen from the newest cloud too"
