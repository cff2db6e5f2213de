"""Worlds by name and seed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    from zeroflow_core.simulation.scene import Scene

SCENES = ("street", "junction", "highway")
MAX_DENSITY = 3.0


def check_scene(name: str, seed: int, density: float) -> None:
    """Whether make_scene would take these, without making anything.

    Raises:
        ZeroFlowError: see make_scene.
    """
    if name not in SCENES:
        raise ZeroFlowError(f"scene '{name}' is unknown; choose one of: {', '.join(SCENES)}")
    if seed < 0:
        raise ZeroFlowError(f"seed {seed} is negative; give 0 or more")
    if not 0 <= density <= MAX_DENSITY:
        raise ZeroFlowError(f"traffic of density {density:g} cannot be made; give 0 to {MAX_DENSITY:g}, 1 being usual")


def make_scene(name: str, seed: int, seconds: float, density: float = 1.0) -> Scene:
    """The world of that name and seed from time 0 to `seconds`, the same for the same arguments.

    name:    one of SCENES
    density: of traffic and people, 0 … MAX_DENSITY; 0 leaves what never moves

    Raises:
        ZeroFlowError: an unknown name, a negative seed, or seconds or density out of range.
    """
    check_scene(name, seed, density)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ZeroFlowError(f"a scene of {seconds:g} seconds cannot be made; ask for more than 0")

    # torch comes with these, and who only asks for the names should not wait for it
    from zeroflow_core.simulation.highway import make_highway
    from zeroflow_core.simulation.junction import make_junction
    from zeroflow_core.simulation.street import make_street

    makers = {"street": make_street, "junction": make_junction, "highway": make_highway}
    return makers[name](seed, seconds, density)
