"""How a log was made of a bag, as its recording.json keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from zeroflow_core.errors import ZeroFlowError

EGO_MOTIONS = ("auto", "odometry", "tf", "kiss_icp")

_FILE = "recording.json"
_OF_ONE_LOG = ("sweeps", "interval_s", "messages", "last_stamp_ns")
_SAME_ELSEWHERE = ("bag",)  # bags may be moved


@dataclass(frozen=True)
class Recording:
    """What a log was imported from, and how.

    bag, topic, frame_id: where the clouds were, and the frame that they were in
    vehicle_frame: the frame of the log's points, but for z_offset
    world_frame:   the fixed frame of its poses, "" where they are KISS-ICP's
    ego_motion:    odometry, tf or kiss_icp
    odometry:      the topic, where ego_motion is odometry
    deskewed:      the vehicle's motion during a sweep was taken out of it by the import, not by the driver; the node's
                   parameter deskew should say the same
    height:        as it was given: metres from frame_id down to the ground; None: it was estimated
    ground_z:      metres, of the ground in vehicle_frame
    z_offset:      metres that were added to z; the node's parameter of this name should be the same
    bag_start_ns, bag_clouds: tell the bag from another one of the same name

    Of this log alone:

    sweeps:        how many; interval_s: the usual time between two
    messages:      the first message of the topic that the log was made of, and the one behind its last
    last_stamp_ns: of its last sweep
    """

    bag: str
    topic: str
    frame_id: str
    vehicle_frame: str
    world_frame: str
    ego_motion: str
    odometry: str | None
    deskewed: bool
    height: float | None
    ground_z: float
    z_offset: float
    bag_start_ns: int
    bag_clouds: int
    sweeps: int = 0
    interval_s: float = 0.0
    messages: tuple[int, int] = (0, 0)
    last_stamp_ns: int = 0

    def differences(self, other: Recording) -> list[str]:
        """What tells logs of two imports apart, as "name: mine, not theirs"; empty when they go together."""
        names = [f.name for f in fields(self) if f.name not in (*_OF_ONE_LOG, *_SAME_ELSEWHERE)]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [
            f"{name}: {json.dumps(mine)}, not {json.dumps(theirs)}" for name, mine, theirs in pairs if mine != theirs
        ]


def write_recording(log: Path, recording: Recording) -> None:
    """Into the folder of a log that is being written."""
    (log / _FILE).write_text(json.dumps(asdict(recording), indent=2) + "\n")


def read_recording(log: Path) -> Recording | None:
    """How the log in that folder was made; None where it is not there, or was made of something else than a bag.

    Raises:
        ZeroFlowError: its recording.json cannot be understood.
    """
    path = Path(log) / _FILE
    try:
        stored = json.loads(path.read_text())
        return Recording(**{**stored, "messages": tuple(stored["messages"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ZeroFlowError(f"{path} is damaged ({error}); remove {log} and import the bag again") from error
