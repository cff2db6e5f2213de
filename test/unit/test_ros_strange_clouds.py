"""Clouds whose numbers make no sense, on the whole road from the message to the flow and back."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("kiss_icp", reason="kiss-icp is not installed")
pytest.importorskip("pypatchworkpp", reason="pypatchworkpp is not installed")
pytest.importorskip("torch", reason="torch is not installed")

import torch
from ros_messages import SECOND, Log, cloud

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import Student
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import Patchwork
from zeroflow_core.pairs import Status
from zeroflow_ros.live.ego_motion import Place
from zeroflow_ros.live.health import Health, Problem
from zeroflow_ros.live.pipeline import Dropped, Pipeline
from zeroflow_ros.messages.clouds import flow_message
from zeroflow_ros.messages.fallback import plain_read_points
from zeroflow_ros.parameters.settings import OUTPUT_FIELDS, Settings

STEP = SECOND // 10
ODD = np.float32([0.0, -0.0, np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-45, 1e-38, 1e19, 2**31, -(2**31), 51.2, 1e6])
# What a cloud without sense may be left without; anything else would be a fault of ours.
ALLOWED = {Problem.NO_EGO_MOTION, Problem.EGO_MOTION_JUMP}


class Somewhere:
    """Ego motion from nowhere but the clouds, or along a straight road."""

    def __init__(self, source: str) -> None:
        self._source = source

    def locate(self, stamp_ns: int, cloud_frame: str) -> Place:
        pose = SE3.from_yaw(0.0, np.array([stamp_ns * 1e-8, 0.0, 0.0]))
        mount = SE3.from_yaw(0.1, np.array([1.0, 0.0, 1.5]))
        return Place(None if self._source == "kiss_icp" else pose, mount, self._source)


def _street(rng: np.random.Generator, shift: float) -> np.ndarray:
    points = rng.uniform([-30, -30, -2], [30, 30, -1.9], (1000, 3))
    points[:300, 2] += rng.uniform(0, 3, 300)
    return (points + [shift, 0, 0]).astype(np.float32)


def _some_odd(points, rng):
    odd = rng.random(points.shape) < 0.2
    points[odd] = rng.choice(ODD, odd.sum())
    return points


def _random_bits(points, rng):
    bits = rng.integers(0, 2**32, points.shape, dtype=np.uint32).view(np.float32)
    return np.clip(bits, np.float32(-1e30), np.float32(1e30))


KINDS = {
    "a street": lambda points, rng: points,
    "odd values": _some_odd,
    "nothing but one odd point": lambda points, rng: np.tile(rng.choice(ODD, 3), (len(points), 1)),
    "all points equal": lambda points, rng: np.tile(points[:1], (len(points), 1)),
    "few points": lambda points, rng: points[: rng.choice([0, 1, 2, 3, 19, 20, 49, 50, 51])],
    "random bits": _random_bits,
    "another unit": lambda points, rng: points * np.float32(10.0 ** rng.integers(-40, 28)),
    "one odd coordinate": lambda points, rng: np.where([True, True, False], points, rng.choice(ODD)),
    "a plane through the sensor": lambda points, rng: points * rng.permutation(np.float32([1, 1, 0])),
    "a line": lambda points, rng: np.outer(np.linspace(0, 50, len(points)), rng.normal(size=3)).astype(np.float32),
    "almost one point": lambda points, rng: points[:1] + rng.normal(0, 1e-6, points.shape).astype(np.float32),
}


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    model = FastFlow3D(FastFlow3DConfig(pillar_size=0.8, channels=8, blocks=(1, 1, 1)))
    return Student(model, {"ground": "patchwork"}, "cpu")


@pytest.mark.parametrize("source", ["odom", "kiss_icp"])
@pytest.mark.parametrize("kind", KINDS)
def test_clouds_without_sense_do_no_harm(student, kind: str, source: str):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        target = ("current", "previous")[seed % 2]
        settings = Settings(deskew="always", flow_target=target, pair_interval=0.1)
        pipeline = Pipeline(student, Patchwork(), lambda settings=settings: settings, Somewhere(source), Health(Log()))
        # Before it, after it, and between two of its kind.
        for k, name in enumerate(("a street", kind, "a street", kind, kind, str(rng.choice(list(KINDS))))):
            points = KINDS[name](_street(rng, 0.1 * k), rng)
            times = rng.integers(0, STEP, len(points)) if seed else None
            message = cloud(points, SECOND + k * STEP, intensity=rng.choice(ODD, len(points)), times=times)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    result = pipeline.feed(message)
                except Dropped as why:
                    assert why.problem in ALLOWED
                    continue
                if result is not None:
                    _check(result)


def _check(result) -> None:
    """Each point has a velocity that is finite, or a status that says why it has none."""
    answer = flow_message(result.message, result.cloud, result.velocity, result.status, OUTPUT_FIELDS)
    rows = plain_read_points(answer)
    assert len(rows) == result.message.width
    for axis, name in enumerate(("vx", "vy", "vz")):
        assert np.isfinite(rows[name][rows["status"] == Status.OK]).all()
        assert (rows[name][rows["status"] == Status.GROUND] == 0).all()
        np.testing.assert_array_equal(rows["xyz"[axis]], result.cloud.points[:, axis])
    seen = np.isfinite(result.cloud.points).all(axis=1) & (result.cloud.points != 0).any(axis=1)
    np.testing.assert_array_equal(rows["status"] == Status.NOT_FINITE, ~seen)
