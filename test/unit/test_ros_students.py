"""A GPU that fails: the node's student goes on on the CPU where it may, says so, and no error gets out as another."""

from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from ros_messages import Log

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.checkpoint import save_model
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_ros.live.health import Health
from zeroflow_ros.live.students import NodeStudent, StudentFailed
from zeroflow_ros.parameters.settings import Settings

POINTS = np.random.default_rng(0).uniform([-20, -20, -1], [20, 20, 1], (500, 3)).astype(np.float32)
OUT_OF_MEMORY = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 8 GiB")
LOST = RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported elsewhere")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = FastFlow3D(FastFlow3DConfig(pillar_size=0.8, channels=8, blocks=(1, 1, 1)))
    save_model(path, model, {"name": "tiny", "ground": "patchwork", "interval_s": 0.1})
    return path


class Gpu:
    """In place of the student's network: a GPU that fails as told, and then works."""

    def __init__(self, real, *failures: Exception) -> None:
        self._real, self._failures = real, list(failures)
        self.model, self.metadata, self.network = real.model, real.metadata, real.network
        self.device, self.engine, self.precision = "cuda:0", "fast", "fp32"

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        if self._failures:
            raise self._failures.pop(0)
        return self._real.flow(pc0, pc1)


def _student(checkpoint, *failures: Exception, **settings) -> tuple[NodeStudent, Health]:
    chosen = replace(Settings(), checkpoint=str(checkpoint), device="cpu", precision="fp32", **settings)
    health = Health(Log())
    student = NodeStudent(lambda: chosen, health)
    student._student = Gpu(student._student, *failures)
    return student, health


def test_memory_that_comes_back_is_enough(checkpoint):
    student, health = _student(checkpoint, OUT_OF_MEMORY)
    expected = student._student._real.flow(POINTS, POINTS)
    np.testing.assert_array_equal(student.flow(POINTS, POINTS), expected)
    assert (student.device, health.counts()["device_fallback"]) == ("cuda:0", 0)


@pytest.mark.parametrize("failures", [(OUT_OF_MEMORY, OUT_OF_MEMORY), (LOST,), (OUT_OF_MEMORY, LOST)])
def test_a_gpu_that_fails_is_left_for_the_cpu_with_the_same_weights(checkpoint, failures):
    student, health = _student(checkpoint, *failures)
    expected = student._student._real.flow(POINTS, POINTS)
    checkpoint_is_gone = checkpoint.rename(checkpoint.with_suffix(".away"))
    try:
        np.testing.assert_array_equal(student.flow(POINTS, POINTS), expected)
    finally:
        checkpoint_is_gone.rename(checkpoint)
    assert (student.device, health.facts["device"], health.counts()["device_fallback"]) == ("cpu", "cpu", 1)
    (line,) = health._logger.lines
    assert "going on on the CPU" in line and "CUDA" in line and "\n" not in line
    np.testing.assert_array_equal(student.flow(POINTS, POINTS), expected)
    assert health.counts()["device_fallback"] == 1


def test_where_the_cpu_is_not_allowed_the_cloud_fails_and_the_next_one_is_tried_again(checkpoint):
    student, health = _student(checkpoint, LOST, cpu_fallback=False)
    with pytest.raises(StudentFailed, match="cpu_fallback is off: RuntimeError: CUDA error"):
        student.flow(POINTS, POINTS)
    assert student.flow(POINTS, POINTS).shape == POINTS.shape
    assert (student.device, health.counts()["device_fallback"]) == ("cuda:0", 0)


@pytest.mark.parametrize("failure", [MemoryError("no more"), RuntimeError("mat1 and mat2 shapes"), ValueError("?")])
def test_what_is_not_the_devices_fault_stays_where_it_is(checkpoint, failure):
    student, health = _student(checkpoint, failure)
    with pytest.raises(StudentFailed, match=type(failure).__name__):
        student.flow(POINTS, POINTS)
    assert student.flow(POINTS, POINTS).shape == POINTS.shape
    assert (student.device, health.counts()["device_fallback"]) == ("cuda:0", 0)


def test_the_tensors_of_a_failure_are_let_go_of_before_the_next_attempt(checkpoint):
    class Tensor:
        pass

    kept, alive = [], []

    def flow(pc0, pc1):
        alive.append([tensor() is not None for tensor in kept])
        big = Tensor()
        kept.append(weakref.ref(big))
        raise RuntimeError("CUDA out of memory")

    student, _ = _student(checkpoint)
    student._student.flow = flow
    student._copy_on_cpu = lambda: SimpleNamespace(flow=lambda pc0, pc1: alive.append([t() is not None for t in kept]))
    student.flow(POINTS, POINTS)
    assert alive == [[], [False], [False, False]]


def test_the_reference_whose_weights_are_on_the_gpu_is_loaded_again(checkpoint, monkeypatch):
    student, _ = _student(checkpoint, LOST, engine="reference")
    expected = student._student._real.flow(POINTS, POINTS)
    on_gpu = SimpleNamespace(parameters=lambda: [SimpleNamespace(device=SimpleNamespace(type="cuda"))])
    student._student.model, student._student.engine = on_gpu, "reference"
    np.testing.assert_allclose(student.flow(POINTS, POINTS), expected, atol=1e-6)


def test_a_student_that_cannot_be_made_on_the_cpu_fails_each_cloud_with_the_reason(checkpoint):
    student, health = _student(checkpoint, LOST, LOST)
    student._copy_on_cpu = lambda: (_ for _ in ()).throw(ZeroFlowError("the file is gone"))
    for _ in range(2):
        with pytest.raises(StudentFailed, match="can't be made on the CPU: ZeroFlowError: the file is gone"):
            student.flow(POINTS, POINTS)
    assert health.counts()["device_fallback"] == 2


def test_a_checkpoint_that_is_replaced_while_the_node_runs_changes_nothing(checkpoint):
    student, _ = _student(checkpoint)
    before = student.flow(POINTS, POINTS)
    content = checkpoint.read_bytes()
    try:
        with checkpoint.open("r+b") as file:  # in place: the same inode, cut to nothing and filled with nonsense
            file.truncate(0)
            file.write(b"nonsense")
        np.testing.assert_array_equal(student.flow(POINTS, POINTS), before)
    finally:
        checkpoint.write_bytes(content)


def test_gpu_memory_is_told_only_where_there_is_a_gpu(checkpoint):
    student, _ = _student(checkpoint)
    student._student.device = "cpu"
    assert student.gpu_memory() == {}


def test_one_pair_after_another_whichever_threads_ask(checkpoint):
    student, _ = _student(checkpoint)
    busy, together = threading.Lock(), []

    class Slow(Gpu):
        def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
            together.append(not busy.acquire(blocking=False))
            time.sleep(0.05)
            if not together[-1]:
                busy.release()
            return pc0

    student._student = Slow(student._student._real)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: student.flow(POINTS, POINTS), range(4)))
    assert together == [False] * 4
