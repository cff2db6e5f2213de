"""The clouds of a bag that can be used, one after the other, with the next one in sight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from zeroflow_core.datasets.bags.bag import Bag, DamagedBag
from zeroflow_core.datasets.bags.clouds import read_cloud
from zeroflow_core.datasets.point_cloud2 import CloudError
from zeroflow_core.datasets.recording.settings import Recording
from zeroflow_core.datasets.recording.source import Source
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep


@dataclass(frozen=True)
class Usable:
    """
    message: its number among those of the topic
    sweep:   in the vehicle frame, see Source.sweep; vehicle_SE3_cloud: from the frame that the cloud came in
    """

    message: int
    sweep: Sweep
    vehicle_SE3_cloud: SE3


class Stream:
    """
    next:        what `take` will return, None at the end
    left_out:    how many clouds could not be used, by what was wrong with them
    first_error: of one that could not be decoded
    """

    def __init__(self, bag: Bag, source: Source, on_sweep: Callable[[int, int], None]) -> None:
        self._bag, self._source, self._on_sweep = bag, source, on_sweep
        self._messages = enumerate(bag.messages([source.recording.topic]))
        self._last_stamp_ns: int | None = None
        self.left_out: Counter[str] = Counter()
        self.first_error: ZeroFlowError | None = None
        self.next = self._read(0)

    def take(self) -> Usable:
        taken = self.next
        self._last_stamp_ns = taken.sweep.stamp_ns
        self.next = self._read(0)
        return taken

    def skip(self, log: Recording) -> None:
        """Step over what a log was made of."""
        self._last_stamp_ns = log.last_stamp_ns
        self.next = self._read(log.messages[1])

    def _read(self, first: int) -> Usable | None:
        """The next one from message `first` on."""
        for number, (time_ns, topic, cdr) in self._messages:
            self._on_sweep(number + 1, self._source.recording.bag_clouds)
            usable = self._usable(number, time_ns, topic, cdr) if number >= first else None
            if usable is not None:
                return usable
        return None

    def _usable(self, number: int, time_ns: int, topic: str, cdr: bytes) -> Usable | None:
        try:
            recorded = read_cloud(self._bag, topic, time_ns, cdr)
        except (CloudError, DamagedBag) as error:
            self.first_error = self.first_error or error
            return self._leave_out("could not be decoded")
        if recorded.stamp_ns == self._last_stamp_ns:
            return self._leave_out("had the stamp of the one before")
        sweep = self._source.sweep(recorded)
        if sweep is None:
            return self._leave_out("had no pose")
        if len(sweep) == 0:
            return self._leave_out("held no point")
        return Usable(number, sweep, self._source.mount(recorded))

    def _leave_out(self, why: str) -> None:
        self.left_out[why] += 1
