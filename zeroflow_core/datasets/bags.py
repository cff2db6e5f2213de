"""rosbag2 in and out, without a ROS installation: read any bag, write bags that every ROS 2 plays.

`Bag` hands out recorded messages as they are (raw CDR bytes, for replay), `read_sweeps` turns its clouds into
Sweeps, `write_bag` records Sweeps. Bags are written with metadata version 8, which rosbag2 from Humble to
Kilted reads (Humble rejects version 9).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from zeroflow_core.errors import ZeroFlowError


class TopicQoS(NamedTuple):
    """What the recorded publisher offered, as far as a replay needs it."""

    reliable: bool
    transient_local: bool
    depth: int


class Bag:
    """A rosbag2 for reading: sqlite3 or MCAP, plain or zstd-compressed, one file or split.

        with Bag("drive") as bag:
            bag.topics                              # {"/lidar/points": "sensor_msgs/msg/PointCloud2", ...}
            bag.qos("/tf_static").transient_local   # True for latched topics
            for time_ns, topic, cdr in bag.messages(["/lidar/points", "/odom"]):
                publisher[topic].publish(cdr)

    path:        the bag's folder (with its metadata.yaml), or one .db3 or .mcap file
    topics:      message type by topic name, in the order of the bag
    start_ns:    record time of the first message, 0 when the bag is empty
    duration_ns: from the first to the last message, 0 when the bag is empty

    Messages come with their record time (integer ns) and their complete CDR serialisation, header included,
    so rclpy publishes them unchanged. They come in time order; messages with the same time come in the order
    in which they were written. `messages` may be called again and again, which is how a replay loops.

    Raises:
        ZeroFlowError: there is no bag, it is damaged or unfinished, or a topic is not in it.
    """

    def __init__(self, path: Path | str) -> None:
        from rosbags.rosbag2 import Reader

        self.path = Path(path)
        what_to_give = "give the bag's folder or its .db3 or .mcap file"
        if not self.path.exists():
            raise ZeroFlowError(f"there is no bag at {self.path}; {what_to_give}")
        if self.path.is_dir() and not (self.path / "metadata.yaml").exists():
            files = sorted(p.name for p in self.path.iterdir() if p.suffix in (".db3", ".mcap"))
            advice = (
                f"the recording was not closed: run `ros2 bag reindex {self.path}`, or give {files[0]} itself"
                if files
                else "a rosbag2 is a folder with metadata.yaml and .db3 or .mcap files"
            )
            raise ZeroFlowError(f"{self.path} has no metadata.yaml; {advice}")
        if not self.path.is_dir() and self.path.suffix not in (".db3", ".mcap"):
            raise ZeroFlowError(f"{self.path} is not a rosbag2; {what_to_give}")
        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except Exception as error:  # damaged files surface as anything from struct.error to AssertionError
            raise self._damaged(error) from error
        self.topics: dict[str, str] = {c.topic: c.msgtype for c in self._reader.connections}
        empty = self._reader.message_count == 0
        self.start_ns: int = 0 if empty else self._reader.start_time
        self.duration_ns: int = 0 if empty else self._reader.end_time - 1 - self._reader.start_time

    def close(self) -> None:
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def count(self, topic: str) -> int:
        """How many messages `topic` has."""
        return sum(c.msgcount for c in self._connections(topic))

    def qos(self, topic: str) -> TopicQoS:
        """What the publisher of `topic` offered; reliable, volatile, depth 10 where the bag does not say."""
        from rosbags.interfaces import QosDurability, QosReliability

        profiles = [q for c in self._connections(topic) for q in c.ext.offered_qos_profiles]
        if not profiles:
            return TopicQoS(reliable=True, transient_local=False, depth=10)
        return TopicQoS(
            reliable=all(q.reliability != QosReliability.BEST_EFFORT for q in profiles),
            transient_local=all(q.durability == QosDurability.TRANSIENT_LOCAL for q in profiles),
            depth=max(max(q.depth for q in profiles), 1),
        )

    def messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[int, str, bytes]]:
        """(record time in ns, topic, CDR bytes) of every message of `topics` (None: of all)."""
        names = list(self.topics) if topics is None else topics
        connections = [c for name in names for c in self._connections(name)]
        return self._read(connections)

    def _read(self, connections: list) -> Iterator[tuple[int, str, bytes]]:
        if not connections:  # rosbags takes an empty choice for all of them
            return
        try:
            for connection, time_ns, cdr in self._reader.messages(connections):
                yield time_ns, connection.topic, cdr
        except Exception as error:
            raise self._damaged(error) from error

    def _connections(self, topic: str) -> list:
        connections = [c for c in self._reader.connections if c.topic == topic]
        if not connections:
            raise ZeroFlowError(
                f"the bag {self.path} has no topic {topic}; its topics: {', '.join(self.topics) or 'none'}"
            )
        return connections

    def _damaged(self, error: Exception) -> ZeroFlowError:
        reason = str(error).rstrip(".") or type(error).__name__
        return ZeroFlowError(
            f"the bag {self.path} cannot be read ({reason}); it is damaged or incomplete: copy it again, "
            "or run `ros2 bag reindex` on it"
        )
