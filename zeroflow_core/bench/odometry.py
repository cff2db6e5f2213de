"""`odometry`: how far ego motion from the clouds alone, deskewing and ground without a map are from the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench.machine import described
from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    from zeroflow_core.bench.odometry_run import GroundErrors, PoseErrors, RealLog, SimulatedLog

SENSORS = ("av2", "hdl64", "small")
_WIDTH = 120  # characters: rather that than headings cut up
_WAYS = {
    "compensated": "compensated",
    "fired": "as fired",
    "deskewed": "as fired, deskewed",
}


def odometry(
    data: Annotated[
        Path | None, typer.Option(help="Folder with real logs in AV2's layout, to compare with their poses and maps.")
    ] = None,
    sim_logs: Annotated[int, typer.Option(min=0, help="Simulated logs of each scanner; scenes take turns.")] = 6,
    sensor: Annotated[list[str], typer.Option(help="Scanner to simulate; may be given again.")] = SENSORS,
    sweeps: Annotated[int, typer.Option(min=3, help="Of each simulated log.")] = 20,
) -> None:
    """Measure the estimated ego motion, deskewing and ground.

    On simulated logs, whose poses and firing times are exact: the error of the motion from one sweep to the next, and
    by how much points that stand within 50 m seem to move because of it (apparent m). On real ones: agreement with
    their poses and maps.

    Example: python -m zeroflow_core.bench odometry --data logs --sim-logs 3
    """
    from zeroflow_core.bench.odometry_run import real_log, simulated_log
    from zeroflow_core.datasets.av2 import Log, find_logs
    from zeroflow_core.simulation.scanners import scanner_named

    if data is None and sim_logs == 0:
        raise ZeroFlowError("there is nothing to measure: give --data, or --sim-logs above 0")
    for name in sensor:
        scanner_named(name)
    paths = find_logs(data) if data is not None else []
    console = Console()
    console.width = max(console.width, _WIDTH)
    simulated, real = [], []
    with Console(stderr=True).status("measuring") as status:
        for name in sensor:
            for number in range(sim_logs):
                status.update(f"simulated log {number + 1} of {sim_logs}: {name}")
                simulated.append(simulated_log(name, number, sweeps))
        for path in paths:
            status.update(f"log {path.name}")
            real.append(real_log(Log(path)))
    if simulated:
        console.print(_pose_table(simulated), _ground_table(simulated))
    if real:
        console.print(_real_table(real))
    line = {
        "bench": "odometry",
        **described("cpu"),
        "sweeps": sweeps,
        "simulated": [_plain_simulated(log) for log in simulated],
        "real": [_plain_real(log) for log in real],
    }
    console.print(json.dumps(line), soft_wrap=True, highlight=False, markup=False)


def _pose_table(logs: Sequence[SimulatedLog]) -> Table:
    table = _table(
        "Ego motion from simulated sweeps against the exact one, for a pair of sweeps",
        ("scanner", "m/sweep", "points", "m: mean", "p95", "max", "°: mean", "p95", "max", "apparent m", "ms/sweep"),
    )
    for sensor, of_sensor in groupby(logs, lambda log: log.sensor):
        group = list(of_sensor)
        step = f"{np.mean([log.step for log in group]):.2f}"
        for way, words in _WAYS.items():
            errors = [log.poses[way] for log in group]
            metres, degrees, apparent = (
                np.concatenate([getattr(one, part) for one in errors]) for part in ("metres", "degrees", "apparent")
            )
            table.add_row(
                sensor,
                step,
                words,
                *(f"{value:.3f}" for part in (metres, degrees) for value in _mean_p95_max(part)),
                f"{apparent.mean():.3f}",
                f"{1000 * np.mean([one.seconds for one in errors]):.0f}",
            )
    return table


def _ground_table(logs: Sequence[SimulatedLog]) -> Table:
    table = _table(
        "Points against where they would be seen at the stamp, and ground without a map",
        ("scanner", "fired, m: mean", "p95", "deskewed: mean", "p95", "Patchwork++ IoU", "height off, m: mean", "max"),
    )
    for sensor, of_sensor in groupby(logs, lambda log: log.sensor):
        group = list(of_sensor)
        fired, deskewed = (np.concatenate([getattr(log, part) for log in group]) for part in ("fired_m", "deskewed_m"))
        off = np.abs([height for log in group if (height := _height_error(log.ground)) is not None])
        table.add_row(
            sensor,
            f"{fired.mean():.3f}",
            f"{np.percentile(fired, 95):.3f}",
            f"{deskewed.mean():.3f}",
            f"{np.percentile(deskewed, 95):.3f}",
            f"{np.mean([log.ground.overlap.mean() for log in group]):.3f}",
            f"{off.mean():.3f}" if len(off) else "–",
            f"{off.max():.3f}" if len(off) else "–",
        )
    return table


def _real_table(logs: Sequence[RealLog]) -> Table:
    table = _table(
        "Real logs: agreement with their poses, and of Patchwork++ with their maps by ZeroFlow's rule (0.4 m) and "
        "AV2's (0.3 m)",
        ("log", "sweeps", "m/sweep", "m: mean", "max", "°: mean", "max", "ms/sweep", "IoU 0.4", "0.3", "height off, m"),
    )
    for log in logs:
        poses, ground = ["–"] * 5, ["–"] * 3
        if log.poses is not None:
            poses = [f"{f(part):.3f}" for part in (log.poses.metres, log.poses.degrees) for f in (np.mean, np.max)]
            poses.append(f"{1000 * log.poses.seconds:.0f}")
        if log.ground is not None:
            off = _height_error(log.ground)
            ground = [f"{log.ground.overlap.mean():.3f}", f"{log.ground.av2_overlap.mean():.3f}"]
            ground.append("–" if off is None else f"{off:+.3f}")
        table.add_row(log.name[:8], str(log.sweeps), f"{log.step:.2f}", *poses, *ground)
    return table


def _mean_p95_max(values: np.ndarray) -> tuple[float, float, float]:
    return float(values.mean()), float(np.percentile(values, 95)), float(values.max())


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="left" if k == 0 else "right")
    return table


def _height_error(ground: GroundErrors) -> float | None:
    return None if ground.ground_z is None else ground.ground_z - ground.true_ground_z


def _plain_simulated(log: SimulatedLog) -> dict[str, Any]:
    return {
        "sensor": log.sensor,
        "scene": log.scene,
        "step_m": log.step,
        "poses": {way: _plain_errors(errors) for way, errors in log.poses.items()},
        "fired_m": _mean_p95_max(log.fired_m),
        "deskewed_m": _mean_p95_max(log.deskewed_m),
        "ground": _plain_ground(log.ground),
    }


def _plain_real(log: RealLog) -> dict[str, Any]:
    return {
        "log": log.name,
        "sweeps": log.sweeps,
        "step_m": log.step,
        "poses": None if log.poses is None else _plain_errors(log.poses),
        "ground": None if log.ground is None else _plain_ground(log.ground),
    }


def _plain_errors(errors: PoseErrors) -> dict[str, Any]:
    """metres and degrees: mean, 95th percentile and maximum"""
    return {
        "metres": _mean_p95_max(errors.metres),
        "degrees": _mean_p95_max(errors.degrees),
        "apparent_m": float(errors.apparent.mean()),
        "seconds": errors.seconds,
    }


def _plain_ground(ground: GroundErrors) -> dict[str, Any]:
    return {
        "iou": float(ground.overlap.mean()),
        "iou_av2": None if ground.av2_overlap is None else float(ground.av2_overlap.mean()),
        "z": ground.ground_z,
        "z_error_m": _height_error(ground),
    }
