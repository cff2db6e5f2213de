"""The fast engine on clouds as they come: against the published network's outputs, and on real pairs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from evaluation_cases import AV2_LOG, TRI_LOGS

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.evaluation.figures import figures_of
from zeroflow_core.evaluation.truth import as_estimate, read_truth
from zeroflow_core.fastflow3d.student import load_student
from zeroflow_core.ground import ground_rule, mark_ground
from zeroflow_core.pairs import FramePair, estimate_flow, make_pair

REAL = ["av2 without ground", "av2 with ground", *(f"tri{k}" for k in range(4))]


@pytest.fixture(scope="module")
def parity(test_data) -> Path:
    return test_data.parent / "parity"


@pytest.fixture(scope="module")
def checkpoints(parity, tmp_path_factory) -> dict[str, Path]:
    """The seeded weights of both sizes."""
    make_checkpoint = _module(parity / "make_checkpoint.py")
    folder, paths = tmp_path_factory.mktemp("checkpoints"), {}
    for size, seed in (("1x", 11), ("xl", 12)):
        paths[size] = folder / f"{size}.ckpt"
        torch.save({"state_dict": make_checkpoint.make_state_dict(size, seed)}, paths[size])
    return paths


@pytest.fixture(scope="module")
def real(test_data) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Clouds of pairs without ego motion; ground by the map."""
    av2 = _pair(Log(test_data / AV2_LOG))
    tri = [_pair(Log(test_data / log), i) for log in TRI_LOGS for i in (0, 1)]
    return {
        "av2 without ground": (av2.pc0[~av2.is_ground0], av2.pc1[~av2.is_ground1]),
        "av2 with ground": (av2.pc0, av2.pc1),
        **{f"tri{k}": (pair.pc0[~pair.is_ground0], pair.pc1[~pair.is_ground1]) for k, pair in enumerate(tri)},
    }


@pytest.fixture(scope="module")
def reference(checkpoints, real) -> dict[str, np.ndarray]:
    """What the plain network says to the real pairs, with the seeded weights of 1x."""
    student = load_student(checkpoints["1x"], device="cpu", engine="reference")
    assert student.precision == "fp32"
    return {name: student.flow(*clouds) for name, clouds in real.items()}


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def fast(request, checkpoints):
    return load_student(checkpoints["1x"], device="cpu", engine="fast", precision=request.param)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pair(log: Log, i: int = 0) -> FramePair:
    raster = log.map_ground()
    return make_pair(*(mark_ground(log.sweep(k), raster) for k in (i, i + 1)))


def assert_near(flow: np.ndarray, expected: np.ndarray, precision: str) -> None:
    """fp32: every point within 0.1 mm; bf16: 5 mm on average and 2 cm for all but a thousandth."""
    np.testing.assert_array_equal(np.isnan(flow), np.isnan(expected))
    assert np.nanmax(np.abs(expected)) > 0.1
    if precision == "fp32":
        np.testing.assert_allclose(flow, expected, atol=1e-4, rtol=0)
    else:
        error = np.linalg.norm(flow - expected, axis=1)
        assert 0 < np.nanmean(error) < 0.005
        assert np.nanquantile(error, 0.999) < 0.02


@pytest.mark.parametrize("size, seed, precision", [("1x", 11, "fp32"), ("1x", 11, "bf16"), ("xl", 12, "fp32")])
def test_what_the_published_network_says(checkpoints, parity, size, seed, precision):
    student = load_student(checkpoints[size], device="cpu", engine="fast", precision=precision)
    flow = student.flow(np.load(parity / "pc0.npy"), np.load(parity / "pc1.npy"))
    stored = np.load(parity / f"expected_{size}_seed{seed}.npz")
    expected = np.full(flow.shape, np.nan, dtype=np.float32)
    expected[stored["valid_idx"]] = stored["flow"]
    assert_near(flow, expected, precision)


@pytest.mark.parametrize("name", REAL)
def test_real_pairs(fast, real, reference, name):
    assert_near(fast.flow(*real[name]), reference[name], fast.precision)


def test_a_real_pair_after_others_and_turned_round(fast, real, reference):
    """As a log is read: each cloud twice, once as pc1 and once as pc0."""
    first, second = real["av2 without ground"]
    fast.flow(*real["tri2"])
    fast.flow(second, first)
    assert_near(fast.flow(first, second), reference["av2 without ground"], fast.precision)


@pytest.mark.parametrize(
    "log, i",
    [(AV2_LOG, 0), *((log, i) for log in TRI_LOGS for i in (0, 1))],
    ids=["av2", *(f"tri{k}" for k in range(4))],
)
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_trained_weights_score_as_before(test_data, log, i, precision):
    """By every definition of the three-way error, within half a millimetre."""
    log = Log(test_data / log)
    truth = read_truth(log, i)
    students = (
        load_student("default", device="cpu", engine="reference"),
        load_student("default", device="cpu", engine="fast", precision=precision),
    )
    rule = ground_rule(students[0].metadata["ground"])
    pair = make_pair(*(mark_ground(log.sweep(k), rule) for k in (i, i + 1)))
    before, after = (figures_of(truth, as_estimate(estimate_flow(student, pair))) for student in students)
    for definition in before:
        assert after[definition]["three_way_epe"] == pytest.approx(before[definition]["three_way_epe"], abs=5e-4)
