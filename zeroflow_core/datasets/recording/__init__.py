"""Recordings as logs: a rosbag2 in, folders in AV2's layout out, which every other command then reads.

``clouds of a topic → where the vehicle was → its vehicle frame → logs of at most a minute or so``

The vehicle frame is the one that odometry or transforms move, where the bag says how it and the clouds' frame lie to
each other, else the clouds' own; raised or lowered so that the ground lies where Argoverse 2's does.

``importing.py`` writes the logs; ``source.py`` finds out how a bag's clouds become sweeps with poses, ``stream.py``
hands them out one by one, and ``settings.py`` keeps how a log was made.
"""

from zeroflow_core.datasets.bags import find_bags, is_bag
from zeroflow_core.datasets.recording.importing import check_asked_for, import_bag
from zeroflow_core.datasets.recording.settings import EGO_MOTIONS, Recording, read_recording

__all__ = ["EGO_MOTIONS", "Recording", "check_asked_for", "find_bags", "import_bag", "is_bag", "read_recording"]
