"""Where the logs to learn from come from: the split of an AV2 root, or bags, which become such logs first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zeroflow_core.datasets.av2 import find_split
from zeroflow_core.datasets.recording import check_asked_for, find_bags, import_bag, read_recording
from zeroflow_core.errors import ZeroFlowError, differences

_OF_BAGS = "train"  # the split that bags become
IMPORTED = f"sensor/{_OF_BAGS}"  # of the folder that bags are imported into, which is an AV2 root by itself

_SET_UP = ("topic", "ego_motion", "odometry", "vehicle_frame", "deskewed", "z_offset")  # of a Recording
_SAME_HEIGHT = 0.05  # metres; estimates are no better

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportProgress:
    """bag: the one at work, the `number`th of `bags`; done: its clouds that are imported, of `total`"""

    bag: Path
    number: int
    bags: int
    done: int
    total: int


@dataclass(frozen=True)
class LogSource:
    """
    data, split: folder that holds ``sensor/<split>/<log>``, and the split; or else
    bag:         a rosbag2, or a folder of them
    names:       of the split's logs, to take these alone
    topic, odometry, ego_motion, height, deskew: of a bag, as import_bag takes them

    Raises:
        ZeroFlowError: both kinds of source, or neither, options of the other kind, or a value that can't be.
    """

    data: Path | None = None
    split: str = "train"
    names: tuple[str, ...] = ()
    bag: Path | None = None
    topic: str | None = None
    odometry: str | None = None
    ego_motion: str = "auto"
    height: float | None = None
    deskew: str = "auto"

    def __post_init__(self) -> None:
        if (self.data is None) == (self.bag is None):
            what = "nothing" if self.data is None else "both logs and a bag"
            raise ZeroFlowError(f"{what} to learn from: give --data with a --split, or else --bag")
        check_split(self.split)
        if self.bag is not None and self.names:
            raise ZeroFlowError("--log chooses logs of --data; a bag is taken whole")
        if self.bag is not None and self.split != _OF_BAGS:
            raise ZeroFlowError(f"--split is of --data; labels of a bag are called {_OF_BAGS}")
        check_asked_for(self.ego_motion, self.height, self.deskew)
        if self.data is not None:
            given = {"--topic": self.topic, "--odometry": self.odometry, "--height": self.height}
            given |= {"--deskew": self.deskew, "--ego-motion": self.ego_motion}
            wrong = [option for option, value in given.items() if value not in (None, "auto")]
            if wrong:
                raise ZeroFlowError(f"{wrong[0]} is for --bag; an AV2 log says that itself")

    @property
    def name(self) -> str:
        """One line that says what it is."""
        return f"the bag {self.bag}" if self.data is None else f"the split {self.split} of {self.data}"


def check_split(name: str) -> None:
    """
    Raises:
        ZeroFlowError: no folder can be called so.
    """
    if not name or "/" in name or name in (".", ".."):
        raise ZeroFlowError(f"a split can't be called '{name}'; give a name such as train")


def find_sources(
    source: LogSource, imported: Path, on_progress: Callable[[ImportProgress], None] = lambda progress: None
) -> list[Path]:
    """The folders of the logs that the source means, sorted. Bags are imported into ``<imported>/sensor/train``,
    where those that are there already are kept.

    Raises:
        ZeroFlowError: no such folder, split, log, bag or topic, or a bag that can't be read.
    """
    if source.data is not None:
        logs = find_split(source.data, source.split)
        unknown = sorted(set(source.names) - {log.name for log in logs})
        if unknown:
            raise ZeroFlowError(
                f"there is no log {', '.join(unknown)} in {logs[0].parent}; give names of folders there"
            )
        return [log for log in logs if not source.names or log.name in source.names]
    bags, logs = find_bags(source.bag), []
    for number, bag in enumerate(bags, 1):

        def on_sweep(done: int, total: int, number: int = number, bag: Path = bag) -> None:
            on_progress(ImportProgress(bag, number, len(bags), done, total))

        logs += import_bag(
            bag,
            imported / IMPORTED,
            topic=source.topic,
            odometry=source.odometry,
            ego_motion=source.ego_motion,
            deskew=source.deskew,
            height=source.height,
            on_sweep=on_sweep,
        )
    logs = sorted(logs)
    for sentence in unlike_bags(logs):
        _log.warning("%s; a student learns from both, but one robot is not set up like the other", sentence)
    return logs


def unlike_bags(logs: Sequence[Path]) -> list[str]:
    """What tells the set-up of the bags that logs were imported from apart from that of the first: a sentence a bag.

    Raises:
        ZeroFlowError: a recording.json is damaged.
    """
    recordings = {recording.bag: recording for recording in map(read_recording, logs) if recording is not None}
    first, *others = recordings.values() or [None]
    sentences = []
    for other in others:
        names = [name for name in _SET_UP if name != "z_offset" or abs(other.z_offset - first.z_offset) > _SAME_HEIGHT]
        unlike = differences(*({name: getattr(one, name) for name in names} for one in (other, first)))
        if unlike:
            sentences.append(f"the bag {other.bag} is not like {first.bag}: {unlike}")
    return sentences
