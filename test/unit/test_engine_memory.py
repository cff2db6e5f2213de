"""The fast engine's memory stays what it is, however many clouds of whatever size come by."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_cases import grid, random_network, scene, student

STATUS = Path("/proc/self/statm")
CONFIG = grid(64, 8, (1, 2, 2), 0.4)

needs_proc = pytest.mark.skipif(not STATUS.exists(), reason="this system does not tell how much memory a process has")


def _resident_bytes() -> int:
    gc.collect()
    return int(STATUS.read_text().split()[1]) * resource.getpagesize()


def _frames(seed: int) -> Iterator[np.ndarray]:
    """Clouds whose size, place and extent differ, and now and then none."""
    rng = np.random.default_rng(seed)
    clouds = np.concatenate([np.concatenate(scene(CONFIG, k, 4000)) for k in range(4)])
    while True:
        points = int(rng.integers(0, 6000)) * int(rng.random() < 0.95)
        extent = rng.uniform(0.1, 1)
        yield (clouds[rng.integers(len(clouds), size=points)] * extent + rng.normal(0, 2, 3) * [1, 1, 0]).astype("f4")


@needs_proc
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frames_leave_nothing_behind(precision):
    """A leak grows in every stretch of time, whereas what an allocator keeps comes now and then: the least growth
    counts."""
    fast, frames = student(random_network(CONFIG, 41), precision=precision), _frames(42)
    last, stretches = next(frames), []
    for _ in range(6):
        before = _resident_bytes()
        for _ in range(60):
            newest = next(frames)
            fast.flow(newest, last)
            last = newest
        stretches.append(_resident_bytes() - before)
    assert min(stretches[1:]) < 300_000, stretches  # 5 kB a frame, a tenth of a cloud
    assert sum(stretches[1:]) < 30_000_000, stretches


@needs_proc
def test_engines_leave_nothing_behind():
    model, pair = random_network(CONFIG, 43), scene(CONFIG, 44, 3000)
    stretches = []
    for _ in range(5):
        before = _resident_bytes()
        for _ in range(4):
            student(model).flow(*pair)
        stretches.append(_resident_bytes() - before)
    assert min(stretches[1:]) < 1_000_000, stretches  # an engine of this size has some MB


def test_clouds_of_many_sizes_make_no_kernels():
    """oneDNN keeps what it compiles for each new shape. A few sizes may have theirs, but every frame may not."""
    program = (
        "import numpy as np\nfrom zeroflow_core.fastflow3d.student import load_student\n"
        "student = load_student('default', device='cpu', engine='fast')\n"  # bf16 takes minutes where a CPU lacks it
        "rng = np.random.default_rng(0)\n"
        "for frame in range(80):\n"
        "    points = int(rng.integers(100, 30000))\n"
        "    cloud = rng.normal(0, rng.uniform(5, 30), (points, 3)).clip(-50, 50).astype(np.float32)\n"
        "    print('frame', frame, flush=True)\n    student.flow(cloud, cloud[::-1] * np.float32(0.9))\n"
    )
    environment = os.environ | {"ONEDNN_VERBOSE": "profile_create"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    made = [text.count("create:cache_miss") for text in done.stdout.split("frame ")[1:]]
    assert len(made) == 80
    assert sum(made[40:]) <= 40, made
