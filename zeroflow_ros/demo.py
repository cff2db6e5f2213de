"""The demo: a log through the real node over real DDS, then a film, a picture and a page of figures.

Three processes, as on a robot: a replay publishes clouds, the flow node answers, and this one looks on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file
from zeroflow_ros.processes.child import Child, child

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from zeroflow_core.datasets.bags import Bag
    from zeroflow_core.playback.rendering import Look
    from zeroflow_ros.album import Album
    from zeroflow_ros.witness import Witness

_SETTLING_S = 3.0  # younger participants are discovered only by their next announcement
_START_S = 180.0  # for the node to load its weights, on a slow machine
_SILENCE_S = 90.0  # without an answer to a cloud
_LAST_WORDS_S = 5.0  # for messages under way when the replay has ended


def demo(
    log: Annotated[
        Path | None, typer.Argument(help="An AV2 log or a rosbag2; without it, a drive is simulated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for film, picture and summary.")] = Path("out/demo"),
    sweeps: Annotated[int, typer.Option(min=2, help="Sweeps of the simulated drive.")] = 30,
    scene: Annotated[str, typer.Option(help="What is driven through: street, junction or highway.")] = "junction",
    seed: Annotated[int, typer.Option(min=0, help="Which of those.")] = 1,
    checkpoint: Annotated[
        str, typer.Option(help="Weights of the student: a file, 'default', or a published name.")
    ] = "default",
    device: Annotated[str, typer.Option(help="Where the student runs: auto, cpu, cuda or cuda:n.")] = "auto",
    points: Annotated[str | None, typer.Option(help="Cloud topic, where a bag has several.")] = None,
    odom: Annotated[str | None, typer.Option(help="Topic of the odometry, where a bag has several.")] = None,
) -> None:
    """Play a log through the flow node over DDS, draw what moves, and sum up how it went."""
    from zeroflow_ros.summary import check, sum_up, table

    console = Console(highlight=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".playing-", dir=out) as workspace:
            source = _source(console, log, Path(workspace), sweeps, scene, seed, points, odom)
            album = _album(Path(workspace))
            witness = _play(console, source, out, checkpoint, device, album)
            picture = _draw(witness, album, source, out)
            film = _film(console, album, source, out)
        summary = sum_up(source.name, source.num_points, witness, picture, film)
        with new_file(out / "summary.json", "w") as file:
            file.write(json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        raise ZeroFlowError(f"cannot write to {out}: {error}") from error
    console.print(table(summary))
    check(summary)


@dataclass(frozen=True)
class _Source:
    """What is played.

    name:       for people
    bag:        path of the rosbag2
    points:     its topic of clouds
    others:     the topics played along with it: odometry and transforms
    odometry:   the one that the node hears, or None
    num_points: points of each cloud, by stamp in ns, in the order of the bag
    truth:      see zeroflow_ros.witness.Truth
    """

    name: str
    bag: Path
    points: str
    others: list[str]
    odometry: str | None
    num_points: dict[int, int]
    truth: Callable[[int], np.ndarray | None]


def _source(
    console: Console,
    log: Path | None,
    workspace: Path,
    sweeps: int,
    scene: str,
    seed: int,
    points: str | None,
    odom: str | None,
) -> _Source:
    name = f"simulated {scene} {seed}" if log is None else log.resolve().name
    from zeroflow_core.simulation.log import read_velocity, simulate_log

    if log is None:
        log = workspace / "log"
        with console.status(f"Simulating {sweeps} sweeps of a {scene}"):
            simulate_log(log, seed, sweeps, scene=scene)
    bag = log
    if log.is_dir() and not (log / "metadata.yaml").exists():
        bag = workspace / "bag"
        _record(console, log, bag)
    return _open(name, bag, points, odom, partial(read_velocity, log))


def _record(console: Console, log: Path, bag: Path) -> None:
    """The AV2 log as a rosbag2, as ``zeroflow convert`` writes it."""
    from rich.progress import track

    from zeroflow_core.datasets.av2 import Log, find_logs
    from zeroflow_core.datasets.bags import write_bag

    found = find_logs(log)
    if len(found) > 1:
        raise ZeroFlowError(f"{log} holds {len(found)} logs; give one of them, such as {found[0]}")
    source = Log(found[0])
    sweeps = track(
        source.sweeps(), f"Recording {len(source)} sweeps", len(source), console=console, transient=True
    )
    poses = source.poses(int(source.stamps_ns[0]), int(source.stamps_ns[-1]))
    write_bag(bag, sweeps, static_transforms=source.calibration(), poses=poses)


def _open(
    name: str, path: Path, points: str | None, odom: str | None, truth: Callable[[int], np.ndarray | None]
) -> _Source:
    """Choose topics, and count what there is to expect."""
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import PointCloud2

    from zeroflow_core.datasets.bags import CLOUD, ODOMETRY, TF, Bag
    from zeroflow_ros.messages.clouds import nanoseconds

    with Bag(path) as bag:
        clouds = _only(bag, CLOUD, points, "--points")
        if clouds is None:
            names = ", ".join(bag.topics) or "none"
            raise ZeroFlowError(f"the bag {path} has no {CLOUD} topic; its topics: {names}")
        odometry = _only(bag, ODOMETRY, odom, "--odom")
        others = [topic for topic, kind in bag.topics.items() if topic == odometry or kind == TF]
        num_points = {}
        for _, _, cdr in bag.messages([clouds]):
            cloud = deserialize_message(cdr, PointCloud2)
            num_points[nanoseconds(cloud.header.stamp)] = cloud.width * cloud.height
    if len(num_points) < 2:
        raise ZeroFlowError(f"flow needs two clouds, but {clouds} of the bag {path} has {len(num_points)}")
    return _Source(name, path, clouds, others, odometry, num_points, truth)


def _only(bag: Bag, kind: str, wanted: str | None, option: str) -> str | None:
    """The topic of `kind` that is wanted, or the only one; None where there is none."""
    found = [topic for topic, its_kind in bag.topics.items() if its_kind == kind]
    names = ", ".join(found) or "none"
    if wanted is not None and wanted not in found:
        raise ZeroFlowError(f"{wanted} is no {kind} topic of the bag {bag.path}; those are: {names}")
    if wanted is None and len(found) > 1:
        raise ZeroFlowError(f"the bag {bag.path} has several {kind} topics; choose with {option}: {names}")
    return wanted or next(iter(found), None)


def _album(workspace: Path) -> Album:
    from zeroflow_ros.album import Album

    (workspace / "moments").mkdir()
    return Album(workspace / "moments")


def _play(console: Console, source: _Source, out: Path, checkpoint: str, device: str, album: Album) -> Witness:
    """Run replay and node to the end of the log."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from zeroflow_ros.witness import Witness

    stamps = list(source.num_points)
    interval = {now: (now - before) * 1e-9 for before, now in zip(stamps, stamps[1:], strict=False)}
    with ExitStack() as cleanup:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        cleanup.callback(rclpy.try_shutdown)
        witness = Witness(source.truth, interval, album)
        cleanup.callback(witness.stop)
        executor = SingleThreadedExecutor()
        executor.add_node(witness)

        # A sensor subscription misses what is published before both sides know each other. So the replay comes
        # first and is known to the node before the node subscribes, which is what the replay waits for.
        with console.status("Starting the replay"):
            arguments = _replay_arguments(source)
            replay = cleanup.enter_context(child("replay_node", out / "replay_node.log", arguments))
            if not _spin(executor, lambda: witness.count_publishers("points") > 0, _SILENCE_S, replay):
                raise ZeroFlowError(f"the replay was not ready within {_SILENCE_S:.0f} s; see {replay.log}")
            _spin(executor, lambda: False, _SETTLING_S, replay)
        with console.status("Starting the flow node"):
            arguments = _node_arguments(source, checkpoint, device)
            node = cleanup.enter_context(child("flow_node", out / "flow_node.log", arguments))
            if not _spin(executor, lambda: witness.num_processed > 0, _START_S, node):
                raise ZeroFlowError(f"the flow node gave no answer within {_START_S:.0f} s; see {node.log}")
        _watch(console, executor, witness, replay, node, len(stamps))
        _spin(executor, lambda: len(witness.rows) >= len(stamps) - 1, _LAST_WORDS_S, node)
        _spin(executor, lambda: witness.last_diagnosis > witness.last_flow, _LAST_WORDS_S, node)
        executor.shutdown()
        witness.finish()
    return witness


def _node_arguments(source: _Source, checkpoint: str, device: str) -> list[str]:
    arguments = ["--ros-args", "-p", f"checkpoint:={checkpoint}", "-p", f"device:={device}"]
    if source.odometry is not None:
        arguments += ["-r", f"odom:={source.odometry}"]
    return arguments


def _replay_arguments(source: _Source) -> list[str]:
    return [
        str(source.bag),
        *("--lockstep", "--wait", str(_START_S), "--answer-timeout", str(_SILENCE_S + 10)),
        *("--topics", source.points, *source.others),
        *("--ros-args", "-r", f"{source.points}:=points"),
    ]


def _watch(
    console: Console, executor: Executor, witness: Witness, replay: Child, node: Child, num_clouds: int
) -> None:
    """Until the replay has ended, with a bar that follows the node's answers."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("Playing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("", total=num_clouds)
        last_answer = time.monotonic()
        while replay.running():
            answered = witness.num_processed
            executor.spin_once(timeout_sec=0.1)
            node.check()
            if witness.num_processed > answered:
                last_answer = time.monotonic()
            elif time.monotonic() - last_answer > _SILENCE_S:
                raise ZeroFlowError(f"no answer came from the flow node for {_SILENCE_S:.0f} s; see {node.log}")
            latency = f"{witness.latencies[-1] * 1e3:.0f} ms" if witness.latencies else ""
            progress.update(bar, completed=witness.num_processed, description=latency)


def _spin(executor: Executor, done: Callable[[], bool], seconds: float, needed: Child) -> bool:
    """Receive messages until `done`; False when that takes more than `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        needed.check()
        executor.spin_once(timeout_sec=0.1)
    return True


def _look(source: _Source) -> Look:
    from zeroflow_core.playback.rendering import Look

    return Look(title=source.name, subtitle="as the node published it")


def _draw(witness: Witness, album: Album, source: _Source, out: Path) -> Path | None:
    """The sweep with most moving objects."""
    from zeroflow_core.playback.film import write_film
    from zeroflow_core.playback.rendering import draw_still, tell

    best = witness.best
    if best is None:
        return None
    among_others = (told for told in tell(album) if told.moment.stamp_ns == best.stamp_ns)
    told = next(among_others, None) or next(tell([best]))
    write_film(out / "demo.png", [(draw_still(told, _look(source)), told.shown_s)])
    return out / "demo.png"


def _film(console: Console, album: Album, source: _Source, out: Path) -> Path | None:
    """What was published, at the pace of the stamps."""
    from rich.progress import track

    from zeroflow_core.playback.film import write_film
    from zeroflow_core.playback.rendering import draw_film, tell
    from zeroflow_core.workers import cores

    if not len(album):
        return None
    with closing(draw_film(tell(album), _look(source), cores())) as pictures:
        write_film(out / "demo.mp4", track(pictures, "Filming", len(album), console=console, transient=True))
    return out / "demo.mp4"


def _keep_to_ourselves() -> None:
    """Other machines don't hear the demo, nor does a robot on this one, unless the user chose a domain."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(30 + os.getpid() % 70))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if os.environ.get("ROS_DISTRO") == "humble":  # knows only the older variable
        os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 after a failure told in a sentence, 130 after Ctrl-C; success leaves by SystemExit."""
    complain = Console(stderr=True, highlight=False)
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        complain.print(
            f"The demo needs ROS 2 ({error}): pip install 'zeroflow_ros[ros]' on x86-64, or source a ROS 2 "
            "installation (. /opt/ros/<distro>/setup.sh)",
            style="red",
            markup=False,
        )
        return 1
    from zeroflow_ros.processes import dds
    from zeroflow_ros.processes.running import StopSignal

    StopSignal()  # from now on SIGTERM cleans up like Ctrl-C
    _keep_to_ourselves()
    try:
        dds.use_profile()
        shortage = dds.small_shared_memory()
        if shortage is not None:
            complain.print(shortage, style="yellow", markup=False)
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(demo)
        app(arguments, prog_name="zeroflow_ros.demo")
    except ZeroFlowError as error:
        complain.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
