"""The flow node under load: it and a probe as processes of their own, as on a robot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.workers.parent import ending_with_me

STAGES = (
    *("receive", "decode", "ego_motion", "odometry", "deskew", "ground", "pair", "inference", "verify"),
    *("encode", "publish", "objects", "markers", "total"),
)
# What the node adds to what it is there for.
OVERHEAD = ("receive", "decode", "pair", "encode", "publish")
_PATIENCE_S = 300.0  # for all but the sending: the first start on a machine prepares the student


@dataclass(frozen=True)
class Variant:
    """How the node is used: where the ego motion comes from (odom or kiss_icp), and whether markers are looked at."""

    ego_motion: str
    markers: bool

    @property
    def name(self) -> str:
        return self.ego_motion + (" + markers" if self.markers else "")


@dataclass(frozen=True)
class Load:
    """What the node is given: clouds of so many points, so many a second, for so long.

    play: an AV2 log or a bag that they come from; a simulated drive where None
    """

    points: int
    rate: float
    seconds: float
    play: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it. account: see zeroflow_ros.account"""

    variant: Variant
    account: Mapping[str, Any]

    @property
    def stages(self) -> dict[str, tuple[float, float]]:
        """(median, 99th percentile) in ms of each stage that the node has timed, in the order of the work."""
        values = self.account["values"]
        timed = [name for name in STAGES if f"{name}_p50_ms" in values]
        return {name: (float(values[f"{name}_p50_ms"]), float(values[f"{name}_p99_ms"])) for name in timed}

    @property
    def overhead(self) -> tuple[float, float]:
        """ms: the sums over its parts of the medians, and of the 99th percentiles."""
        parts = [times for name, times in self.stages.items() if name in OVERHEAD]
        return sum(middle for middle, _ in parts), sum(slow for _, slow in parts)


def run_variant(variant: Variant, load: Load, parameters: Mapping[str, str]) -> Outcome:
    """Start a probe, which starts a node, and wait for its account.

    parameters: of the node, further ones

    Raises:
        ZeroFlowError: one of them failed; with its last words.
    """
    settings = {"ego_motion": variant.ego_motion, **parameters}
    with TemporaryDirectory() as folder:
        account = Path(folder) / "account.json"
        words = [sys.executable, "-m", "zeroflow_ros.probe", "--json", str(account)]
        words += ["--points", str(load.points), "--rate", str(load.rate), "--seconds", str(load.seconds)]
        words += ["--odometry" if variant.ego_motion == "odom" else "--no-odometry"]
        words += ["--markers"] if variant.markers else []
        words += ["--play", str(load.play)] if load.play is not None else []
        words += ["--start", *(f"{name}:={value}" for name, value in settings.items())]
        try:
            done = subprocess.run(
                words, env=_environment(), capture_output=True, text=True, timeout=load.seconds + _PATIENCE_S
            )
        except subprocess.TimeoutExpired as error:
            raise ZeroFlowError(f"the probe did not end within {error.timeout:.0f} s ({variant.name})") from error
        if done.returncode != 0 or not account.exists():
            last_words = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise ZeroFlowError(f"the probe failed with exit code {done.returncode} ({variant.name}):\n  {last_words}")
        return Outcome(variant, json.loads(account.read_text()))


def _environment() -> dict[str, str]:
    """Others don't hear what is measured here, nor does it hear them, unless the user chose a domain."""
    own = {
        "ROS_DOMAIN_ID": str(30 + os.getpid() % 70),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOCALHOST_ONLY": "1",  # Humble knows only this one
    }
    return own | os.environ | ending_with_me()
