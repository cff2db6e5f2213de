"""Worlds by name and seed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    from zeroflow_core.simulation.scene import Scene

SCENES = ("street", "junction", "highway")


def make_scene(name: str, seed: int, seconds: float, density: float = 1.0) -> Scene:
    """The world of that name and seed from time 0 to `seconds`, the same for the same arguments.

    name:    one of SCENES
    density: of traffic and people, 0 … 3; 0 leaves what never moves
    Raises ZeroFlowError for an unknown name, a negative seed, and seconds or density out of range.
    """
    if name not in SCENES:
        raise ZeroFlowError(f"There is no scene '{name}'. Choose one of {', '.join(SCENES)}.")
    if seed < 0:
        raise ZeroFlowError(f"A scene's seed cannot be negative, and {seed} is. Give a whole number from 0 on.")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ZeroFlowError(f"A scene has to last more than 0 seconds, not {seconds:g}. Ask for a longer one.")
    if not 0 <= density <= 3:
        raise ZeroFlowError(f"Density has to be between 0 (no traffic) and 3, not {density:g}. 1 is usual.")

    # torch comes with these, and who only asks for the names should not wait for it
    from zeroflow_core.simulation.highway import make_highway
    from zeroflow_core.simulation.junction import make_junction
    from zeroflow_core.simulation.street import make_street

    makers = {"street": make_street, "junction": make_junction, "highway": make_highway}
    return makers[name](seed, seconds, density)
