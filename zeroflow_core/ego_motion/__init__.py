"""Poses for sweeps that come without any, by KISS-ICP, and sweeps as seen at one moment.

The live node and the import of recordings call the same class, so that a student meets on the robot what it
learned from.
"""

from zeroflow_core.ego_motion.apart import OdometryApart, OdometryFailed
from zeroflow_core.ego_motion.choice import DESKEWS, deskews, kiss_icp_missing
from zeroflow_core.ego_motion.odometry import LONGEST_GAP_NS, KissOdometry
from zeroflow_core.ego_motion.uniform import deskew, relative_pose_errors

__all__ = [
    "DESKEWS",
    "LONGEST_GAP_NS",
    "KissOdometry",
    "OdometryApart",
    "OdometryFailed",
    "deskew",
    "deskews",
    "kiss_icp_missing",
    "relative_pose_errors",
]
