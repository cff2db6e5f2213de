"""rosbag2 in and out, without a ROS installation: read any bag, write bags that every ROS 2 plays.

`Bag` hands out recorded messages as they are (raw CDR bytes, for replay), `read_sweeps` turns its clouds into
Sweeps, `write_bag` records Sweeps. Bags are written with metadata version 8, which rosbag2 from Humble to
Kilted reads (Humble rejects version 9).

``bag.py`` opens bags; ``messages.py`` knows their types; ``trajectory.py``, ``transforms.py`` and ``poses.py`` find
where the vehicle was; ``clouds.py`` reads sweeps, and ``writing.py`` writes them.
"""

from zeroflow_core.datasets.bags.bag import Bag, DamagedBag, TopicQoS, find_bags, is_bag
from zeroflow_core.datasets.bags.clouds import read_sweeps
from zeroflow_core.datasets.bags.messages import CLOUD, ODOMETRY, TF
from zeroflow_core.datasets.bags.writing import write_bag

__all__ = [
    "CLOUD",
    "ODOMETRY",
    "TF",
    "Bag",
    "DamagedBag",
    "TopicQoS",
    "find_bags",
    "is_bag",
    "read_sweeps",
    "write_bag",
]
