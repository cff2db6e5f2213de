"""Writes the small bag in rosbags/: python -m zeroflow_core.simulation.small_bag rosbags/small_scanner

Sixteen beams, about 8,000 points, 12 sweeps: enough to see every topic at work, small enough to be in the
repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.log import simulate_sweeps
from zeroflow_core.simulation.scanner import SCANNERS

SEED = 24
SWEEPS = 12


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    scanner = SCANNERS["small"]
    mounting = SE3(np.eye(3), np.array([scanner.forward, 0.0, scanner.height]))
    sweeps = (simulated.sweep for simulated in simulate_sweeps(SEED, SWEEPS, "small"))
    write_bag(Path(sys.argv[1]), sweeps, {"lidar": mounting})


if __name__ == "__main__":
    main()
