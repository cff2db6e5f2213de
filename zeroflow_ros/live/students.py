"""The student as the node runs it: loaded, warmed up, and on the CPU when the GPU fails."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from zeroflow_ros.live.health import Health, Problem, told
from zeroflow_ros.parameters.settings import Settings

# What the messages of CUDA's errors have in common, whatever class they come in: torch's errors of the device are
# RuntimeErrors before 2.8, Triton's are its own.
_DEVICE_WORDS = ("cuda", "cudnn", "cublas", "triton", "nvrtc", "device-side")


class StudentFailed(Exception):
    """No flow from this pair, and why."""


class NodeStudent:
    """A zeroflow_core Student that goes on on the CPU when its GPU runs out of memory or is lost.

    settings: the node's settings at the moment; `checkpoint`, `device`, `engine` and `precision` are read now,
              `cpu_fallback` when it matters

    Raises:
        ZeroFlowError: the checkpoint or the device can't be used.
    """

    def __init__(self, settings: Callable[[], Settings], health: Health) -> None:
        self._settings, self._health = settings, health
        self._at_work = threading.Lock()  # a thread of a node that was deactivated meanwhile may still be
        self._student = self._load(settings().device)

    @property
    def metadata(self) -> dict:
        return self._student.metadata

    @property
    def device(self) -> str:
        return str(self._student.device)

    @property
    def network(self):
        return self._student.network

    def warm_up(self) -> None:
        """The first call is slow, or fails: better now than with the first cloud.

        Raises:
            StudentFailed: the student can't compute here.
        """
        points = np.random.default_rng(0).uniform([-20, -20, -1], [20, 20, 1], (2000, 3)).astype(np.float32)
        self._attempt(points, points)

    def flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        """As zeroflow_core.fastflow3d.student.Student.flow; one pair after another, whichever threads ask.

        Raises:
            StudentFailed: not on the GPU, and not allowed or not possible on the CPU either.
        """
        with self._at_work:
            return self._attempt(pc0, pc1)

    def gpu_memory(self) -> dict[str, str]:
        """What this process holds of the GPU's memory, for the diagnostics; nothing on a CPU."""
        if not self.device.startswith("cuda"):
            return {}
        import torch

        held, used = torch.cuda.memory_reserved(self.device), torch.cuda.memory_allocated(self.device)
        return {"gpu_memory_mib": f"{held / 2**20:.0f}", "gpu_memory_in_use_mib": f"{used / 2**20:.0f}"}

    def _attempt(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        # Of errors only the text is kept: they themselves keep the tensors alive that the memory is needed for.
        try:
            return self._student.flow(pc0, pc1)
        except Exception as error:
            problem = told(error)
            if not self._is_of_device(problem):
                raise StudentFailed(f"the student failed: {problem}") from error
        if "out of memory" in problem:
            _empty_cache()  # what lies about unused, of this process, may be enough
            try:
                return self._student.flow(pc0, pc1)
            except Exception as error:
                problem = told(error)
        if not self._settings().cpu_fallback:
            raise StudentFailed(f"the GPU failed and cpu_fallback is off: {problem}")
        self._move_to_cpu(problem)
        try:
            return self._student.flow(pc0, pc1)
        except Exception as error:
            raise StudentFailed(f"the student failed on the CPU, too: {told(error)}") from error

    def _is_of_device(self, problem: str) -> bool:
        return self.device.startswith("cuda") and any(word in problem.lower() for word in _DEVICE_WORDS)

    def _move_to_cpu(self, problem: str) -> None:
        text = f"the GPU failed ({problem}): going on on the CPU, until the node is configured again"
        self._health.problem(Problem.DEVICE_FALLBACK, text)
        self._health.standing["device"] = "the GPU failed: the student runs on the CPU"
        try:
            self._student = self._copy_on_cpu()
        except Exception as error:
            raise StudentFailed(f"the GPU failed, and the student can't be made on the CPU: {told(error)}") from error
        _empty_cache()

    def _copy_on_cpu(self):
        from zeroflow_core.devices import choose_precision
        from zeroflow_core.fastflow3d.student import Student

        old = self._student
        weights_on_cpu = all(weight.device.type == "cpu" for weight in old.model.parameters())
        if not weights_on_cpu:  # the reference engine's went to the GPU, which may be gone
            return self._load("cpu")
        wanted = self._settings().precision
        if wanted == "auto":
            wanted = old.metadata.get("precision", "auto") if old.engine == "fast" else "fp32"
        student = Student(old.model, old.metadata, "cpu", choose_precision(wanted, "cpu"), old.engine)
        self._tell(student)
        return student

    def _load(self, device: str):
        from zeroflow_core import load_student

        settings = self._settings()
        student = load_student(settings.checkpoint, device=device, engine=settings.engine, precision=settings.precision)
        self._tell(student)
        return student

    def _tell(self, student) -> None:
        facts = self._health.facts
        facts["checkpoint"] = str(student.metadata.get("name", self._settings().checkpoint))
        facts["device"], facts["engine"] = str(student.device), student.engine
        facts["precision"] = student.precision


def _empty_cache() -> None:
    """Give back the GPU memory that torch keeps for later; a lost device has none to give."""
    import torch

    try:
        torch.cuda.empty_cache()
    except RuntimeError:
        pass
