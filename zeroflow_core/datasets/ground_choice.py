"""Which ground rule the sweeps of a log get, by its name on the command line."""

from __future__ import annotations

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.ground import GroundRule, Patchwork, ground_rule

GROUNDS = ("auto", "map", "patchwork", "none")


def ground_of(log: Log, name: str = "auto") -> GroundRule:
    """The rule called `name` for the sweeps of `log`.

    name: ``map`` (the raster of the log's map), ``patchwork``, ``none``, or ``auto``: the map, and Patchwork++ where
          there is none

    Raises:
        ZeroFlowError: another name; or the map is asked for, and the log has none, or a damaged one.
    """
    if name not in GROUNDS:
        raise ZeroFlowError(f"ground rule '{name}' is unknown; choose one of: {', '.join(GROUNDS)}")
    if name not in ("auto", "map"):
        return ground_rule(name)
    raster = log.map_ground()
    if raster is None and name == "map":
        raise ZeroFlowError(f"the log {log.path} has no map with ground heights; choose --ground patchwork")
    return raster or Patchwork()
