"""The Fast DDS profile that lets big clouds through, and whether this process can have it.

With Fast DDS's defaults, best-effort clouds above about 0.5 MB are lost almost completely between processes,
because they do not fit the sender's shared-memory segment. `config/fastdds.xml` makes the segment large. What
counts is the profile of the process that publishes the clouds.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zeroflow_core.resources import share_file

_SEGMENT_MB = 68  # what a process with the profile takes of /dev/shm, at once
_SHARED_MEMORY = Path("/dev/shm")


def variables() -> tuple[str, ...]:
    """The environment variables that name the profile: Fast DDS 3.x reads the first, 2.x the second.

    rmw_fastrtps of Kilted and later warns about the second, so only distributions with 2.x are given it.
    """
    old = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    return ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")[: 2 if old else 1]


def profile_path() -> Path:
    """Where config/fastdds.xml is installed."""
    return share_file("config/fastdds.xml")


def environment() -> dict[str, str]:
    """The variables to start a process with: the profile that is already chosen, else ours.

    Use it on top of the current environment: ``subprocess.Popen(..., env={**os.environ, **environment()})``.
    """
    return dict.fromkeys(variables(), _chosen() or str(profile_path()))


def use_profile() -> None:
    """Give this process the profile unless one is chosen; only works before rclpy.init."""
    os.environ.update(environment())


def missing_profile() -> str | None:
    """What will go wrong with big clouds in this environment and what to do, in one sentence; None if all is well.

    Other middlewares than Fast DDS need no profile. To be asked before `use_profile` and rclpy.init.
    """
    if not os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps"):
        return None
    chosen = _chosen()
    if chosen is None:
        return f"no Fast DDS profile is set, so clouds above 0.5 MB get lost between processes: {advice()}"
    if not Path(chosen).is_file():
        return f"the Fast DDS profile {chosen} does not exist, so clouds above 0.5 MB get lost: {advice()}"
    return small_shared_memory()


def small_shared_memory() -> str | None:
    """One sentence when /dev/shm has no room for the profile's segment, in which case big clouds get lost."""
    if not _SHARED_MEMORY.is_dir():
        return None
    free_mb = shutil.disk_usage(_SHARED_MEMORY).free / 1e6
    if free_mb >= _SEGMENT_MB:
        return None
    return (
        f"{_SHARED_MEMORY} has {free_mb:.0f} MB left, but each process with the Fast DDS profile needs "
        f"{_SEGMENT_MB} MB, so clouds above 0.5 MB get lost: start the container with --shm-size=1g or --ipc=host"
    )


def advice() -> str:
    """How to start the processes that publish clouds."""
    settings = " ".join(f"{name}={profile_path()}" for name in variables())
    return f"start every process that publishes clouds with {settings}"


def _chosen() -> str | None:
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
