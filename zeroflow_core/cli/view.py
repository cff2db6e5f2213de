"""``zeroflow view``: what moves in 3-D, on a screen, in a browser or in a file."""

from __future__ import annotations

import os
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from zeroflow_core.cli.ending import ended_by_sigterm
from zeroflow_core.cli.options import Device
from zeroflow_core.cli.playback_options import (
    Checkpoint,
    Count,
    Every,
    Ground,
    Height,
    Labels,
    LogName,
    Method,
    MinSpeed,
    Odometry,
    Seed,
    Start,
    TeacherConfiguration,
    Topic,
    Truth,
    chosen,
)
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    from zeroflow_core.playback import Playback

_TOPIC = re.compile(r"(/[A-Za-z_]\w*)+", re.ASCII)
_OF_TOPICS = ("source", "save", "serve", "port", "min_speed")  # what else there is, is of logs and bags


def view(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="An AV2 log, a rosbag2, a run of evaluate or distill, or a flow node's topic: /flow.")
    ],
    save: Annotated[
        Path | None, typer.Option(help="Write it to this .rrd file instead; `rerun FILE` opens it.", show_default=False)
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Show it to browsers instead, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="For --serve: of the page; its data takes the next one.")] = 9090,
    start: Start = 0,
    count: Count = None,
    every: Every = 1,
    min_speed: MinSpeed = 0.5,
    truth: Truth = True,
    method: Method = None,
    checkpoint: Checkpoint = None,
    labels: Labels = None,
    ground: Ground = None,
    device: Device = "auto",
    teacher_config: TeacherConfiguration = None,
    seed: Seed = None,
    log: LogName = None,
    topic: Topic = None,
    odometry: Odometry = None,
    height: Height = None,
) -> None:
    """Show what moves in 3-D with Rerun: sweeps, flow, boxes and trajectories over time, labels beside them.

    Opens the viewer, which goes on by itself, or a browser's page, or writes
    a file. A topic is shown as it comes, until Ctrl-C. Needs the extra viz.

    Example: zeroflow view drive_bag --save drive.rrd
    """
    from zeroflow_core.viewing import require_viewer

    require_viewer()
    from zeroflow_core.viewing.outlets import check_wishes

    check_wishes(save, serve, port)
    is_there = os.path.exists(source)  # a Path raises where it may not look
    if not is_there and _TOPIC.fullmatch(f"/{source}"):
        raise ZeroFlowError(f"there is no {source} here to show; if it is a topic, write /{source}")
    if not is_there and _TOPIC.fullmatch(source):
        words = ["--min-speed", str(min_speed), *(["--save", str(save)] if save is not None else [])]
        _show_topic(source, [*words, *(["--serve", "--port", str(port)] if serve else [])], context)

    from zeroflow_core.playback import open_playback

    playback = open_playback(
        Path(source),
        method=method,
        log=log,
        topic=topic,
        odometry=odometry,
        height=height,
        with_truth=truth,
        min_speed=min_speed,
        checkpoint=checkpoint,
        labels=labels,
        ground=ground,
        device=device,
        teacher_config=teacher_config,
        seed=seed,
    )
    indices = chosen(playback, start, count, every)
    try:
        _show(playback, indices, save, serve, port)
    except _Stopped:
        print(f"Stopped; {save} was not written." if save else "Stopped.", file=sys.stderr)
        raise typer.Exit(130) from None


class _Stopped(Exception):
    """By Ctrl-C, before all was shown."""


def _show(playback: Playback, indices: list[int], save: Path | None, serve: bool, port: int) -> None:
    import rerun as rr

    from zeroflow_core.viewing.outlets import SERVED, address, outlet
    from zeroflow_core.viewing.recording import SceneRecording

    stream = rr.RecordingStream("zeroflow")
    stream.send_recording_name(playback.name)
    with ended_by_sigterm(), outlet(stream, save, port if serve else None) as check:
        if serve:
            print(f"{address(port)}\n{SERVED}", flush=True)
        recording = SceneRecording(stream, min_speed=playback.min_speed)
        with progress_bar() as progress:
            task = progress.add_task(f"Showing {playback.name}", total=len(indices), note="")
            try:
                for moment in playback.moments(indices):
                    check()
                    recording.log(moment)
                    progress.update(task, advance=1)
            except KeyboardInterrupt:
                raise _Stopped from None
        if recording.count == 0:
            raise ZeroFlowError(f"there is nothing to show of {playback.name}: no sweep could be used")
        try:
            while serve:
                time.sleep(1.0)
        except KeyboardInterrupt:
            return
    if save is not None:
        print(f"{save}: {recording.count} sweeps of {playback.name}, {save.stat().st_size / 1e6:.1f} MB")


def _show_topic(topic: str, words: list[str], context: typer.Context) -> NoReturn:
    """In place of this process, as all of ours that speak ROS are the node's package's."""
    missing = [name for name in ("rclpy", "zeroflow_ros") if find_spec(name) is None]
    if missing:
        raise ZeroFlowError(
            f"there is no file {topic}, and to show a topic of that name {missing[0]} is missing: source a ROS 2 "
            "installation, or pip install 'zeroflow_ros[ros]'"
        )
    sources = {name: context.get_parameter_source(name) for name in context.params if name not in _OF_TOPICS}
    if given := [name for name, origin in sources.items() if origin is not None and origin.name == "COMMANDLINE"]:
        option = "--" + given[0].replace("_", "-")
        raise ZeroFlowError(
            f"there is no file {topic}, and {option} means nothing to a topic of that name; leave it out"
        )
    print(f"There is no file {topic}, so it is taken for a topic.", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "zeroflow_ros.live_view", topic, *words])
