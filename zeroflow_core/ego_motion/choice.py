"""What is done about the ego motion, by what was asked for: the node and the import of recordings decide alike."""

from __future__ import annotations

from zeroflow_core.ego_motion.icp import new_icp
from zeroflow_core.errors import ZeroFlowError

DESKEWS = ("auto", "always", "never")


def deskews(choice: str, source: str) -> bool:
    """Whether the vehicle's motion during each sweep is to be taken out of it here, by the points' times.

    choice: one of DESKEWS: always, never (the driver has done it), or auto: where the clouds themselves tell the ego
            motion, since no driver can have done it then
    source: who tells the ego motion; kiss_icp: the clouds
    """
    return choice == "always" or (choice == "auto" and source == "kiss_icp")


def kiss_icp_missing() -> str | None:
    """Why KISS-ICP cannot be used here, and what to do; None where it can."""
    try:
        new_icp(max_range=100.0)
    except ZeroFlowError as error:
        return str(error)
    return None
