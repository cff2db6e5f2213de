"""The student that comes along: small, loaded by default, and better than nothing where it claims to be."""

import pytest

from zeroflow_core import load_student
from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.distillation.interim import evaluate
from zeroflow_core.evaluation.cuboid_labels import flow_of_cuboids
from zeroflow_core.evaluation.errors import FlowErrors
from zeroflow_core.fastflow3d.checkpoint import DEFAULT_CHECKPOINT
from zeroflow_core.ground import Patchwork, mark_ground
from zeroflow_core.pairs import estimate_flow, make_pair


@pytest.fixture(scope="module")
def student():
    return load_student("default", device="cpu")


def test_it_is_small_and_says_what_it_is(student):
    assert DEFAULT_CHECKPOINT.stat().st_size <= 5_000_000
    assert (DEFAULT_CHECKPOINT.parent / "README.md").is_file()
    assert student.metadata["name"] == "interim" and student.metadata["ground"] == "patchwork"
    assert student.metadata["interval_s"] == 0.1 and student.metadata["recipe"]["seed"] == 1


def test_worlds_it_was_not_trained_on(student):
    errors = evaluate(student, seeds=5)
    assert errors.dynamic_points > 100_000 and errors.static_points > 1_000_000
    assert errors.dynamic_epe <= 0.7 * errors.dynamic_epe_of_zero
    assert errors.static_too_fast <= 0.03


def test_real_sweeps_of_a_scanner_it_has_never_seen(student, test_data):
    """On annotated logs of a vehicle in traffic, against the cuboids' motion: closer to the truth than zero flow."""
    errors = FlowErrors()
    for path in find_logs(test_data / "tri"):
        log = Log(path)
        for i in range(len(log) - 1):
            sweep0, sweep1 = (mark_ground(log.sweep(k), Patchwork()) for k in (i, i + 1))
            pair = make_pair(sweep0, sweep1)
            cuboids = (log.annotations(sweep.stamp_ns) for sweep in (sweep0, sweep1))
            truth, _, is_valid = flow_of_cuboids(pair.pc0, *cuboids, pair.ego0_SE3_ego1)
            scored = is_valid & ~pair.is_ground0
            errors.add(estimate_flow(student, pair).vectors[scored], truth[scored], pair.dt)
    assert errors.dynamic_points > 3000
    assert errors.dynamic_epe < 0.8 * errors.dynamic_epe_of_zero
    assert errors.static_too_fast < 0.08
