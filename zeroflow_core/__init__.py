"""ZeroFlow's numerics and offline work: live scene flow for LiDAR, learned without labels. Never imports ROS."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zeroflow_core.fastflow3d.student import load_student

__all__ = ["load_student"]
__version__ = "0.1.0"


def __getattr__(name: str):
    # torch takes seconds to import; commands that don't need it shouldn't wait.
    if name == "load_student":
        from zeroflow_core.fastflow3d.student import load_student

        return load_student
    raise AttributeError(f"module 'zeroflow_core' has no attribute '{name}'")
