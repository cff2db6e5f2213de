"""ZeroFlow's numerics and offline work: live scene flow for LiDAR, learned without labels. Never imports ROS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroflow_core.version import VERSION as __version__

if TYPE_CHECKING:
    from zeroflow_core.fastflow3d.student import load_student

__all__ = ["__version__", "load_student"]


def __getattr__(name: str):
    # torch takes seconds to import; commands that don't need it shouldn't wait.
    if name == "load_student":
        from zeroflow_core.fastflow3d.student import load_student

        return load_student
    raise AttributeError(f"module 'zeroflow_core' has no attribute '{name}'")
