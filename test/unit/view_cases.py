"""What the flow node publishes and hears, for tests of the views of it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from rclpy.qos import QoSProfile, ReliabilityPolicy

from zeroflow_core.datasets.bags.messages import CLOUD, ODOMETRY, TF
from zeroflow_ros.live.outlets import Outlets
from zeroflow_ros.parameters.settings import Settings


@dataclass(frozen=True)
class Outlet:
    """A topic: the type of its messages, such as sensor_msgs/msg/PointCloud2, and its publisher's QoS."""

    kind: str
    qos: QoSProfile


def topics() -> dict[str, Outlet]:
    """Those a node named flow_node publishes in no namespace, and the clouds it hears under their usual name."""
    found = {}

    def publisher(kind: type, topic: str, qos: QoSProfile, **_):
        name = topic.replace("~/", "flow_node/")
        found[f"/{name}"] = Outlet(f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}", qos)
        return SimpleNamespace()

    Outlets(SimpleNamespace(create_lifecycle_publisher=publisher), SimpleNamespace())
    driver = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    return found | {"/lidar/points": Outlet(CLOUD, driver)}


def bag_topics() -> dict[str, str]:
    """The types of the topics of bags that `zeroflow convert` writes."""
    return {"/lidar/points": CLOUD, "/odom": ODOMETRY, "/tf": TF, "/tf_static": TF}


def flow_fields() -> tuple[str, ...]:
    """The fields of a flow cloud, unless a user says otherwise."""
    return ("x", "y", "z", *Settings().output_fields)
