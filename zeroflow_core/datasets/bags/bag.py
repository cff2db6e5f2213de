"""Bags as they lie on disk: which folders and files are some, and their messages, byte for byte."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zeroflow_core.datasets.bags.messages import CLOUD, typestore
from zeroflow_core.errors import ZeroFlowError

_WHAT_TO_GIVE = "give the bag's folder or its .db3 or .mcap file"
_FILES = (".db3", ".mcap")
_DEPTH = 4  # of folders in folders that are searched for bags


class TopicQoS(NamedTuple):
    """What the recorded publisher offered, as far as a replay needs it."""

    reliable: bool
    transient_local: bool
    depth: int


class DamagedBag(ZeroFlowError):
    """What is recorded cannot be read; nothing that was read before should be trusted to be all of it."""


def is_bag(path: Path) -> bool:
    """Whether `path` looks like a bag: a folder that holds one, or a .db3 or .mcap file."""
    if path.is_dir():
        return (path / "metadata.yaml").exists() or bool(_storage_files(path))
    return path.suffix in _FILES


def find_bags(path: Path) -> list[Path]:
    """The bags at or below `path`, sorted: a bag's folder, a .db3 or .mcap file, or a folder of such.

    Storage files that lie in a folder without metadata.yaml are a bag each.

    Raises:
        ZeroFlowError: there is no bag.
    """
    path = Path(path)
    if not path.exists():
        raise ZeroFlowError(f"there is no {path}; {_WHAT_TO_GIVE}, or a folder of bags")
    try:
        bags = list(_bags_below(path, _DEPTH))
    except OSError as error:
        raise ZeroFlowError(f"cannot look for bags in {path}: {error.strerror or error}") from error
    if not bags:
        raise ZeroFlowError(
            f"there is no rosbag2 {'in' if path.is_dir() else 'at'} {path}; {_WHAT_TO_GIVE}, or a folder of bags"
        )
    return bags


def _bags_below(path: Path, depth: int) -> Iterator[Path]:
    if not path.is_dir():
        if path.suffix in _FILES:
            yield path
    elif (path / "metadata.yaml").exists():
        yield path
    else:
        yield from _storage_files(path)
        for child in sorted(path.iterdir()):
            if depth > 0 and child.is_dir() and not child.name.startswith("."):
                yield from _bags_below(child, depth - 1)


def _storage_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in _FILES and not p.name.startswith("."))


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
        if not self.path.exists():
            raise ZeroFlowError(f"there is no bag at {self.path}; {_WHAT_TO_GIVE}")
        if self.path.is_dir() and not (self.path / "metadata.yaml").exists():
            files = _storage_files(self.path)
            advice = (
                f"the recording was not closed: run `ros2 bag reindex {self.path}`, or give {files[0].name} itself"
                if files
                else "a rosbag2 is a folder with metadata.yaml and .db3 or .mcap files"
            )
            raise ZeroFlowError(f"{self.path} has no metadata.yaml; {advice}")
        if not self.path.is_dir() and self.path.suffix not in _FILES:
            raise ZeroFlowError(f"{self.path} is not a rosbag2; {_WHAT_TO_GIVE}")
        try:
            self._reader = Reader(self.path)
            self._reader.open()
            # Split recordings are listed by name at times, where the tenth file comes before the second.
            files = getattr(self._reader.storage, "storages", [])
            files.sort(key=lambda storage: storage.metadata.start_time)
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

    def messages(
        self, topics: Sequence[str] | None = None, start_ns: int | None = None
    ) -> Iterator[tuple[int, str, bytes]]:
        """(record time in ns, topic, CDR bytes) of every message of `topics` (None: of all) from `start_ns` on."""
        names = list(self.topics) if topics is None else topics
        connections = [c for name in names for c in self._connections(name)]
        return self._read(connections, start_ns)

    def deserialize(self, topic: str, cdr: bytes) -> Any:
        """The message that these bytes of `topic` are.

        Raises:
            DamagedBag: they are none of the topic's type.
        """
        msgtype = self.topics[topic]
        try:
            return typestore().deserialize_cdr(cdr, msgtype)
        except Exception as error:  # the generated code raises whatever the damaged bytes lead to
            raise DamagedBag(
                f"the bag {self.path} has a damaged {msgtype} message in {topic} ({error}); copy the bag again"
            ) from error

    def only_topic(self, msgtype: str, wanted: str | None, parameter: str) -> str | None:
        """`wanted`, checked; or the one topic of `msgtype`; or None where there is none.

        parameter: what the user gives to choose one, for messages

        Raises:
            ZeroFlowError: there are several, or `wanted` is none of them.
        """
        candidates = [name for name, type_ in self.topics.items() if type_ == msgtype]
        if wanted is None:
            if len(candidates) > 1:
                raise ZeroFlowError(
                    f"the bag {self.path} has several {msgtype} topics; choose one as {parameter}: "
                    f"{', '.join(candidates)}"
                )
            return candidates[0] if candidates else None
        if wanted not in candidates:
            raise ZeroFlowError(f"the bag {self.path} has no {msgtype} topic {wanted}; its topics: {self._listing()}")
        return wanted

    def cloud_topic(self, wanted: str | None) -> str:
        """The PointCloud2 topic to read; raises as only_topic, and where there is none."""
        topic = self.only_topic(CLOUD, wanted, "topic")
        if topic is None:
            raise ZeroFlowError(f"the bag {self.path} has no PointCloud2 topic; its topics: {self._listing()}")
        return topic

    def _listing(self) -> str:
        return ", ".join(f"{name} ({msgtype})" for name, msgtype in self.topics.items()) or "none"

    def _read(self, connections: list, start_ns: int | None) -> Iterator[tuple[int, str, bytes]]:
        if not connections:  # rosbags takes an empty choice for all of them
            return
        try:
            for connection, time_ns, cdr in self._reader.messages(connections, start_ns):
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
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ZeroFlowError(
                f"there is no room to unpack the bag {self.path} ({reason}); set TMPDIR to a folder on a larger disk"
            )
        if any(words in reason for words in ("not supported", "Unsupported", "Profile is not")):
            return ZeroFlowError(f"the bag {self.path} cannot be read ({reason}); bring it through `ros2 bag convert`")
        return DamagedBag(
            f"the bag {self.path} cannot be read ({reason}); it is damaged or incomplete: copy it again, "
            "or run `ros2 bag reindex` on it"
        )
