"""``zeroflow convert``: an AV2 log as a rosbag2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroflow_core.errors import ZeroFlowError


def convert(
    log_dir: Annotated[Path, typer.Argument(help="An AV2 log: the folder that holds sensors/lidar.")],
    out: Annotated[Path, typer.Argument(help="The bag's folder, which must not exist yet.")],
    storage: Annotated[
        str, typer.Option(help="sqlite3, which every ROS 2 plays, or mcap, for which Humble needs a package.")
    ] = "sqlite3",
    no_odom: Annotated[bool, typer.Option("--no-odom", help="Leave out /odom.")] = False,
    no_tf: Annotated[bool, typer.Option("--no-tf", help="Leave out /tf and /tf_static.")] = False,
) -> None:
    """Convert an AV2 log into a rosbag2 with /lidar/points, /odom, /tf and /tf_static.

    Stamps, points and poses are those of the log. Play it with
    `ros2 bag play <out>`, or through the node with
    `ros2 launch zeroflow_ros flow.launch.py bag:=<out>`.

    Example: zeroflow convert sensor/val/7fab2350-7eaf-3b7e-a39d-6937a4c1bede drive_bag
    """
    from rich.console import Console
    from rich.progress import track

    from zeroflow_core.datasets.av2 import Log, find_logs
    from zeroflow_core.datasets.bags import write_bag

    logs = find_logs(log_dir)
    if len(logs) > 1:
        raise ZeroFlowError(
            f"{log_dir} holds {len(logs)} logs and a bag holds one; give one of them, such as {logs[0]}"
        )
    log = Log(logs[0])
    console = Console(stderr=True)
    write_bag(
        out,
        track(log.sweeps(), total=len(log), description=f"Converting {log.log_id}", console=console),
        static_transforms={} if no_tf else log.calibration(),
        storage=storage,
        odom=not no_odom,
        tf=not no_tf,
        poses=() if no_odom and no_tf else log.poses(int(log.stamps_ns[0]), int(log.stamps_ns[-1])),
    )
    megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    seconds = (log.stamps_ns[-1] - log.stamps_ns[0]) * 1e-9
    print(f"{out}: {len(log)} sweeps, {seconds:.1f} s, {megabytes:.1f} MB")
