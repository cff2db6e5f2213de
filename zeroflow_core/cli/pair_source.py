"""Where a command takes a pair of sweeps from: a log, a bag, or two clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zeroflow_core.cli.npy import read_cloud
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.wording import several

if TYPE_CHECKING:
    from zeroflow_core.datasets.av2 import Log
    from zeroflow_core.pairs import Sweep

_ODOMETRY = "nav_msgs/msg/Odometry"
_USUAL_INTERVAL_S = 0.1  # between sweeps, where nothing else is known
_WHAT = "give the folder of an AV2 log, a rosbag2, or two clouds as .npy files"


@dataclass(frozen=True)
class PairSource:
    """
    name:   what the pair is called on screen and in files
    sweeps: the two, with poses, without ground masks
    index:  of the first one in its log or bag
    log:    that the sweeps are of, or None
    usual_ground: the ground rule for sweeps of this kind where the user names none
    """

    name: str
    sweeps: tuple[Sweep, Sweep]
    index: int = 0
    log: Log | None = None
    usual_ground: str = "auto"


def find_pair(
    sources: Sequence[Path],
    pair: int | None,
    topic: str | None = None,
    odometry: str | None = None,
    interval: float | None = None,
) -> PairSource:
    """The sweeps `pair` and `pair` + 1 of what is named; by default the first ones.

    sources:  an AV2 log's folder, or a folder with one such log in it; or a rosbag2; or two .npy files, whose clouds
              are (N,3) in metres and in one frame
    topic, odometry: of a bag, see read_sweeps
    interval: seconds between two .npy clouds

    Raises:
        ZeroFlowError: something else, something damaged, no such pair, no ego motion, or an option of another kind of
            source.
    """
    from zeroflow_core.datasets.bags import is_bag

    clouds = [path for path in sources if path.suffix.lower() == ".npy"]
    bag = None if clouds else next((path for path in sources if is_bag(path)), None)
    if bag is None and (topic is not None or odometry is not None):
        raise ZeroFlowError(f"--topic and --odometry are of a bag, and {sources[0]} is none; leave them out")
    if not clouds and interval is not None:
        raise ZeroFlowError("--interval is of two .npy clouds: logs and bags have stamps; leave it out")
    if clouds and pair is not None:
        raise ZeroFlowError("--pair is of a log or a bag: two .npy clouds are one pair; leave it out")
    if clouds and len(clouds) == len(sources) == 2:
        return _of_clouds(clouds[0], clouds[1], _USUAL_INTERVAL_S if interval is None else interval)
    if clouds or len(sources) != 1:
        raise ZeroFlowError(f"{', '.join(map(str, sources))} is no source of one pair; {_WHAT}")
    if not sources[0].exists():
        raise ZeroFlowError(f"there is no {sources[0]}; {_WHAT}")
    if bag is not None:
        return _of_bag(bag, pair or 0, topic, odometry)
    return _of_log(sources[0], pair or 0)


def _of_log(path: Path, pair: int) -> PairSource:
    from zeroflow_core.datasets.av2 import Log, find_logs

    if not path.is_dir():
        raise ZeroFlowError(f"{path} is neither a log nor a bag; {_WHAT}")
    found = find_logs(path)
    if len(found) > 1:
        raise ZeroFlowError(f"{path} holds {len(found)} logs; give one of them, such as {found[0]}")
    log = Log(found[0])
    _check_index(pair, len(log), f"the log {log.path}")
    return PairSource(f"log {log.log_id}, pair {pair}", (log.sweep(pair), log.sweep(pair + 1)), pair, log)


def _of_bag(path: Path, pair: int, topic: str | None, odometry: str | None) -> PairSource:
    from zeroflow_core.datasets.bags import read_sweeps

    count, sweeps = 0, []
    for count, sweep in enumerate(read_sweeps(path, topic, odometry), start=1):
        if count > pair:
            sweeps.append(sweep)
        if len(sweeps) == 2:
            break
    _check_index(pair, count, f"the bag {path}")
    if any(sweep.world_SE3_ego is None for sweep in sweeps):
        raise ZeroFlowError(_without_pose(path, pair))
    if sweeps[0].stamp_ns == sweeps[1].stamp_ns:
        raise ZeroFlowError(
            f"clouds {pair} and {pair + 1} of the bag {path} have the same stamp, {sweeps[0].stamp_ns} ns; flow needs "
            "two moments: choose another --pair"
        )
    return PairSource(f"bag {path.resolve().name}, pair {pair}", (sweeps[0], sweeps[1]), pair)


def _without_pose(path: Path, pair: int) -> str:
    return (
        f"clouds {pair} and {pair + 1} of the bag {path} have no ego motion: it has neither {_ODOMETRY} nor TF around "
        "them, or /tf_static does not join its frames to that of the clouds; choose another --pair, or let `zeroflow "
        "convert` estimate it from the clouds and give the log that it writes"
    )


def _of_clouds(first: Path, second: Path, interval: float) -> PairSource:
    from zeroflow_core.geometry import SE3
    from zeroflow_core.pairs import Sweep

    if not 1e-6 <= abs(interval) < 1e6:
        raise ZeroFlowError(f"--interval {interval} is no time between two clouds; give seconds, such as 0.1")
    sweeps = [
        Sweep(read_cloud(path, str(path)), stamp_ns, SE3.identity())
        for path, stamp_ns in ((first, 0), (second, round(interval * 1e9)))
    ]
    return PairSource(f"{first.name} and {second.name}", (sweeps[0], sweeps[1]), usual_ground="none")


def _check_index(pair: int, count: int, what: str) -> None:
    if count < 2:
        raise ZeroFlowError(f"{what} has {several(count, 'sweep')}; flow needs two")
    if pair > count - 2:
        raise ZeroFlowError(
            f"{what} has {several(count, 'sweep')}, so its last pair is --pair {count - 2}; there is no pair {pair}"
        )
