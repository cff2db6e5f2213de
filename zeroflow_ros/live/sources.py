"""Who publishes on a topic, and whether what they publish can be heard."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo


def described_input(node: Node, topic: str, kind: str, qos: QoSProfile | None) -> str:
    """The topic's full name and, in brackets, how many publish there and why some of them are not heard.

    kind: the type of message that is expected, such as sensor_msgs/msg/PointCloud2
    qos:  of the subscription, None when there is none
    """
    publishers = node.get_publishers_info_by_topic(topic)
    number = len(publishers)
    notes = [f"{number} publisher{'s' if number != 1 else ''}", *_mismatches(publishers, kind, qos)]
    return f"{node.resolve_topic_name(topic)} ({', '.join(notes)})"


def _mismatches(publishers: Sequence[TopicEndpointInfo], kind: str, qos: QoSProfile | None) -> list[str]:
    """Once each: of other types than `kind`, and what of their QoS does not fit."""
    notes = {f"of another type: {one.topic_type}" for one in publishers if one.topic_type != kind}
    if qos is not None:
        for one in publishers:
            fits, reason = qos_check_compatible(one.qos_profile, qos)
            if one.topic_type == kind and fits == QoSCompatibility.ERROR:
                faults = [part.removeprefix("ERROR: ") for part in reason.split(";") if part.startswith("ERROR: ")]
                notes.add(f"of another QoS: {', '.join(faults)}")
    return sorted(notes)
