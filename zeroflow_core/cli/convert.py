"""``zeroflow convert``: an AV2 log as a rosbag2, or a rosbag2 as AV2-layout logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.wording import several

if TYPE_CHECKING:
    from zeroflow_core.datasets.recording import Recording

_LOG_TO_BAG = "Log to bag"
_BAG_TO_LOGS = "Bag to logs"


def convert(
    source: Annotated[Path, typer.Argument(help="An AV2 log (the folder that holds sensors/lidar), or a rosbag2.")],
    out: Annotated[
        Path, typer.Argument(help="The bag's folder, which must not exist yet; or the folder for the logs.")
    ],
    storage: Annotated[
        str | None,
        typer.Option(
            help="sqlite3, which every ROS 2 plays, or mcap, for which Humble needs a package.",
            show_default="sqlite3",
            rich_help_panel=_LOG_TO_BAG,
        ),
    ] = None,
    no_odom: Annotated[bool, typer.Option("--no-odom", help="Leave out /odom.", rich_help_panel=_LOG_TO_BAG)] = False,
    no_tf: Annotated[
        bool, typer.Option("--no-tf", help="Leave out /tf and /tf_static.", rich_help_panel=_LOG_TO_BAG)
    ] = False,
    topic: Annotated[
        str | None, typer.Option(help="PointCloud2, where the bag has several.", rich_help_panel=_BAG_TO_LOGS)
    ] = None,
    odometry: Annotated[
        str | None, typer.Option(help="nav_msgs/Odometry, where the bag has several.", rich_help_panel=_BAG_TO_LOGS)
    ] = None,
    ego_motion: Annotated[
        str | None,
        typer.Option(
            help="odometry, tf, kiss_icp (from the clouds alone), or auto: the first that there is.",
            show_default="auto",
            rich_help_panel=_BAG_TO_LOGS,
        ),
    ] = None,
    deskew: Annotated[
        str | None,
        typer.Option(
            help="Whether the vehicle's motion is taken out of the clouds: always, never (the driver did it), or auto: "
            "with kiss_icp.",
            show_default="auto",
            rich_help_panel=_BAG_TO_LOGS,
        ),
    ] = None,
    height: Annotated[
        float | None,
        typer.Option(
            help="Metres of the clouds' frame above the ground.", show_default="estimated", rich_help_panel=_BAG_TO_LOGS
        ),
    ] = None,
) -> None:
    """Convert an AV2 log into a rosbag2, or a rosbag2 into AV2-layout logs, which every other command reads.

    A log becomes a bag with /lidar/points, /odom, /tf and /tf_static, and keeps
    its stamps, points and poses. Play it with `ros2 bag play <out>`, or through
    the node with `ros2 launch zeroflow_ros flow.launch.py bag:=<out>`.

    A bag, or a folder of bags, becomes logs of up to a minute in the folder OUT.
    The same command again keeps those that are complete.

    Example: zeroflow convert sensor/val/7fab2350-7eaf-3b7e-a39d-6937a4c1bede drive_bag

    Example: zeroflow convert drive.mcap recorded/train --topic /points
    """
    bags = _bags(source)
    of_bags = {"--topic": topic, "--odometry": odometry, "--ego-motion": ego_motion, "--height": height}
    of_bags["--deskew"] = deskew
    of_logs = {"--storage": storage, "--no-odom": no_odom or None, "--no-tf": no_tf or None}
    needless = [name for name, value in (of_logs if bags else of_bags).items() if value is not None]
    if needless:
        what = f"a {'bag' if bags else 'log'}, which {source} is"
        raise ZeroFlowError(f"{', '.join(needless)} cannot be used to convert {what}; leave it out")
    if not bags:
        _to_bag(source, out, storage or "sqlite3", odom=not no_odom, tf=not no_tf)
        return
    for bag in bags:
        _to_logs(bag, out, topic, odometry, ego_motion or "auto", deskew or "auto", height)


def _bags(source: Path) -> list[Path]:
    """The bags at or in `source`; empty where there are logs."""
    from zeroflow_core.datasets.av2 import find_logs
    from zeroflow_core.datasets.recording import find_bags, is_bag

    if is_bag(source) or source.is_file():
        return find_bags(source)
    if not source.exists():
        raise ZeroFlowError(f"there is no {source}; give an AV2 log's folder, or a rosbag2")
    try:
        find_logs(source)
        return []
    except ZeroFlowError:
        try:
            return find_bags(source)
        except ZeroFlowError as error:
            raise ZeroFlowError(
                f"there is neither an AV2 log nor a rosbag2 in {source}; give a folder with sensors/lidar/*.feather, "
                "or one with metadata.yaml and .db3 or .mcap files"
            ) from error


def _to_bag(source: Path, out: Path, storage: str, odom: bool, tf: bool) -> None:
    from rich.console import Console
    from rich.progress import track

    from zeroflow_core.datasets.av2 import Log, find_logs
    from zeroflow_core.datasets.bags import write_bag

    logs = find_logs(source)
    if len(logs) > 1:
        raise ZeroFlowError(f"{source} holds {len(logs)} logs and a bag holds one; give one of them, such as {logs[0]}")
    log = Log(logs[0])
    console = Console(stderr=True)
    write_bag(
        out,
        track(log.sweeps(), total=len(log), description=f"Converting {log.log_id}", console=console),
        static_transforms=log.calibration() if tf else {},
        storage=storage,
        odom=odom,
        tf=tf,
        poses=log.poses(int(log.stamps_ns[0]), int(log.stamps_ns[-1])) if odom or tf else (),
    )
    megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    seconds = (log.stamps_ns[-1] - log.stamps_ns[0]) * 1e-9
    print(f"{out}: {len(log)} sweeps, {seconds:.1f} s, {megabytes:.1f} MB")


def _to_logs(
    bag: Path,
    out: Path,
    topic: str | None,
    odometry: str | None,
    ego_motion: str,
    deskew: str,
    height: float | None,
) -> None:
    from zeroflow_core.datasets.recording import import_bag, read_recording

    with progress_bar() as progress:
        bar = progress.add_task(f"Converting {bag.name}", total=None, note="")
        logs = import_bag(
            bag,
            out,
            topic=topic,
            odometry=odometry,
            ego_motion=ego_motion,
            deskew=deskew,
            height=height,
            on_sweep=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    recordings = [recording for recording in map(read_recording, logs) if recording is not None]
    sweeps = sum(recording.sweeps for recording in recordings)
    print(f"{bag}: {several(len(logs), 'log')} in {out}, {several(sweeps, 'sweep')}, {_description(recordings[0])}")


def _description(recording: Recording) -> str:
    source = {"odometry": f"from {recording.odometry}", "tf": "from TF", "kiss_icp": "by KISS-ICP"}
    said = f"ego motion {source[recording.ego_motion]}, ground at z = {recording.ground_z:.2f} m"
    return said + (f", all raised by z_offset {recording.z_offset:.2f} m" if recording.z_offset else "")
