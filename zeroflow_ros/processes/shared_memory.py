"""What processes that were killed left of Fast DDS in /dev/shm: 70 MB each with our profile, and nobody takes it away.

Each participant has segments ``fastdds_<16 hexadecimal digits>``, and holds a lock on ``<segment>_el`` as long as it
lives. The kernel lets go of the lock however the process ends, so an unlocked one belongs to nobody any more.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import suppress
from pathlib import Path

_FOLDER = Path("/dev/shm")
_LOCK = re.compile(r"(fastdds_[0-9a-f]{16})_el")
_YOUNG_S = 5.0  # between making its lock file and locking it, a process is alive as well


def remove_leftovers(folder: Path = _FOLDER, young_s: float = _YOUNG_S) -> int:
    """Remove the segments of processes that have ended without removing them; returns how many. Those of living
    processes stay, and so do those of other users.

    young_s: seconds; younger ones stay as well
    """
    removed = 0
    for lock in sorted(folder.glob("fastdds_*_el")) if folder.is_dir() else ():
        found = _LOCK.fullmatch(lock.name)
        if found is None:
            continue
        with suppress(OSError):  # locked, gone meanwhile, or somebody else's
            if _is_abandoned(lock, young_s):
                (folder / found[1]).unlink(missing_ok=True)
                lock.unlink()
                removed += 1
    return removed


def _is_abandoned(lock: Path, young_s: float) -> bool:
    """Raises OSError when a living process holds the lock. A young one is not even tried: its process would find it
    taken."""
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        if time.time() - os.fstat(descriptor).st_mtime <= young_s:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    finally:
        os.close(descriptor)
