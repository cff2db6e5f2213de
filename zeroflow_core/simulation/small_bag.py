"""Writes the small bag in rosbags/: python -m zeroflow_core.simulation.small_bag rosbags/small_scanner

Sixteen beams, some 7,000 points, 12 sweeps: enough to see every topic at work, small enough to be in the
repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.simulation.log import simulate_sweeps
from zeroflow_core.simulation.scanners import SCANNERS

SEED = 24
SWEEPS = 12
SCENE = "junction"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sweeps = (simulated.sweep for simulated in simulate_sweeps(SEED, SWEEPS, "small", SCENE))
    write_bag(Path(sys.argv[1]), sweeps, {"lidar": SCANNERS["small"].heads[0].vehicle_SE3_head})


if __name__ == "__main__":
    main()
