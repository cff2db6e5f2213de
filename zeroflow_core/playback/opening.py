"""Which kind of source a path is, by what lies there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.datasets.bags import is_bag
from zeroflow_core.datasets.recording.importing import check_asked_for
from zeroflow_core.drawing.moving import check_min_speed
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.methods import Settings, make_method
from zeroflow_core.playback.bag_frames import BagClouds, BagFrames
from zeroflow_core.playback.frames import Frames
from zeroflow_core.playback.log_frames import LogFrames
from zeroflow_core.playback.playback import Playback
from zeroflow_core.playback.recorded_flow import RecordedFlow, flow_topics
from zeroflow_core.playback.runs import read_run

_WHAT = "give an AV2 log, a rosbag2, or the folder of a `zeroflow evaluate` or `zeroflow distill`"


def open_playback(
    source: Path,
    *,
    method: str | None = None,
    log: str | None = None,
    topic: str | None = None,
    odometry: str | None = None,
    height: float | None = None,
    with_truth: bool = True,
    min_speed: float = 0.5,
    **settings: Any,
) -> Playback:
    """What a source has to show, its method ready to run.

    source:   an AV2 log, or a folder of them; a rosbag2 with clouds, or with the flow that a node has published; or
              the folder of a run of `zeroflow evaluate` (its method on its logs) or `zeroflow distill` (its student)
    method:   one of evaluation.methods.METHODS; None: that of the run, flow as recorded unless there is a checkpoint,
              or else the student
    log:      the name of one of several logs; of a run's logs by default the one with the largest error
    topic, odometry, height: of a bag, as import_bag takes them
    with_truth: whether labels are shown, where there are any
    min_speed: m/s over ground from which points count as moving
    settings: checkpoint, labels, ground, device, engine, precision, streaming, verify, teacher_config, seed: as
              Settings of evaluation.methods has them; None: as usual, or as the run had it

    Raises:
        ZeroFlowError: none of these, something damaged, a name that is not there, an option of another kind of source,
            or a speed that cannot be.
    """
    check_min_speed(min_speed)
    source, how = Path(source), {"method": method, **settings}
    how = {name: value for name, value in how.items() if value is not None}
    if not os.path.exists(source):  # a Path raises where it may not look, or the name is too long
        raise ZeroFlowError(f"there is no {source}; {_WHAT}")
    if is_bag(source):
        if log is not None:
            raise ZeroFlowError(f"--log names one of several logs, and {source} is a bag; leave it out")
        frames: Frames = _of_bag(source, topic, odometry, height, how)
    else:
        given = {"--topic": topic, "--odometry": odometry, "--height": height}
        wrong = [option for option, value in given.items() if value is not None]
        if wrong:
            raise ZeroFlowError(f"{wrong[0]} is of a bag, and {source} is none; leave it out")
        frames = _of_logs(source, log, with_truth, how)
    return Playback(frames, min_speed=min_speed)


def _of_logs(source: Path, log: str | None, with_truth: bool, how: dict[str, Any]) -> LogFrames:
    if not source.is_dir():
        raise ZeroFlowError(f"{source} is neither a log nor a bag nor a run; {_WHAT}")
    run = read_run(source)
    if run is None:
        logs, of_run = find_logs(source), {}
        if len(logs) > 1 and log is None:
            raise ZeroFlowError(f"{source} holds {len(logs)} logs; name one, such as --log {logs[0].name}")
    else:
        logs, of_run = run.logs, run.method
        if not logs:
            raise ZeroFlowError(f"{run.what} in {source} has no logs any more; give a log or a bag itself")
    chosen = logs[0] if log is None else next((path for path in logs if path.name == log), None)
    if chosen is None:
        raise ZeroFlowError(f"there is no log {log} in {source}; it has: {', '.join(path.name for path in logs[:5])}")
    opened = Log(chosen)
    return LogFrames(opened, make_method(Settings(chosen, **{**of_run, **how})), with_truth=with_truth)


def _of_bag(
    source: Path, topic: str | None, odometry: str | None, height: float | None, how: dict[str, Any]
) -> Frames:
    check_asked_for("auto", height, "auto")
    flow, plain = flow_topics(source)
    if not how.keys() & {"method", "checkpoint"} and (topic in flow or (topic is None and len(flow) == 1)):
        return RecordedFlow(BagClouds(source, topic or flow[0], odometry, deskew="never", height=height))
    if how.get("method") == "labels":
        raise ZeroFlowError(f"--method labels is of logs, and {source} is a bag; choose another method")
    if topic is None and len(plain) == 1:
        topic = plain[0]
    clouds = BagClouds(source, topic, odometry, height=height)
    return BagFrames(clouds, make_method(Settings(source, **how)))
