"""`realism`: what simulated sweeps have in common with real ones, and what not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file

SENSORS, SCENES = ("av2", "hdl64", "os1-128"), ("street", "junction", "highway")
_TOLERANCE = 1.15  # ratio to the nearest of the real values below which nothing is called a difference
_SHARE_FLOOR = 1.0  # per cent added to shares before they are compared, or the rarest would differ most
_TOLD = 8  # differences in words
_LEAST = 0.01  # of a real value, for a share of it to say something
_WIDTH = 132  # characters of the table with three scenes: rather that than numbers cut off


@dataclass
class Group:
    """What was measured of one source.

    name:   of a log or a scene
    values: statistics by name, one dict for each pair of sweeps
    shown:  the first pair, for the picture
    """

    name: str
    values: list[dict[str, float]] = field(default_factory=list)
    shown: object = None

    def series(self, statistic: str) -> np.ndarray:
        """The known values (K,) of one statistic."""
        values = np.array([measured[statistic] for measured in self.values], dtype=np.float64)
        return values[np.isfinite(values)]


def realism(
    data: Annotated[Path, typer.Option(help="Folder with real logs in AV2's layout.")],
    synthetic: Annotated[
        Path | None, typer.Option(help="Folder with simulated logs; without it, scenes are simulated here.")
    ] = None,
    sensor: Annotated[list[str], typer.Option(help="Scanner to simulate; may be given again.")] = SENSORS,
    scene: Annotated[list[str], typer.Option(help="Scene to simulate; may be given again.")] = SCENES,
    sweeps: Annotated[int, typer.Option(min=1, help="Pairs of sweeps of each log and scene.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes, and of the draw of points.")] = 7,
    device: Annotated[str, typer.Option(help="cpu or cuda, for the simulation.")] = "cpu",
    pictures: Annotated[Path | None, typer.Option(help="Folder for a contact sheet of each scanner.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for every value measured.")] = None,
) -> None:
    """Compare simulated sweeps with real ones in numbers, and in pictures.

    A scanner is compared with the logs whose heads and beams it has. The table has the mean over the real
    sweeps, their lowest and highest value, the mean of each scene, and that as a share of the real mean.

    Example: python -m zeroflow_core.bench realism --data logs --sensor av2 --scene street --pictures out
    """
    from zeroflow_core.bench.contact_sheet import save_contact_sheet
    from zeroflow_core.bench.samples import check_simulation

    console, progress = Console(), Console(stderr=True)
    console.width = max(console.width, _WIDTH)
    if synthetic is None:
        for name, one in product(sensor, scene):
            check_simulation(name, one, device)
    with progress.status("reading the real logs") as status:
        real = _of_logs(data, sweeps, seed)
        if not real:
            raise ZeroFlowError(
                f"no log in {data} has a scanner that can be simulated (two 32-beam heads, or 32, 64 or 128 beams) "
                "and two sweeps; give a folder with such logs"
            )
        if synthetic is None:
            made = {name: [_simulated(name, one, seed, sweeps, device, status) for one in scene] for name in sensor}
        else:
            status.update("reading the simulated logs")
            made = {name: [_merged("synthetic", groups)] for name, groups in _of_logs(synthetic, sweeps, seed).items()}
    for name, groups in made.items():
        if name in real:
            everything = _merged("real", real[name])
            console.print(_table(name, everything, groups))
            told = [line for group in groups for line in _differences(everything, group)]
            console.print(*told, sep="\n", highlight=False, soft_wrap=True)
        else:
            console.print(f"{name}: no log in {data} has such a scanner, so there is nothing to compare it with")
        if pictures is not None:
            beside = real.get(name, next(iter(real.values())))
            rows = [(f"real: {group.name[:8]}", group.shown) for group in beside[:2]]
            rows += [(f"{name}: {group.name}", group.shown) for group in groups]
            path = pictures / f"{name}.png"
            save_contact_sheet(path, rows)
            console.print(f"{path}: {len(rows)} sweeps beside each other")
    if json_file is not None:
        content = {"seed": seed, "real": _plain(real), "synthetic": _plain(made)}
        with new_file(json_file, "w") as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _of_logs(folder: Path, count: int, seed: int) -> dict[str, list[Group]]:
    """What was measured of each log, by the name of the scanner it resembles."""
    from zeroflow_core.bench.samples import log_samples, resembling
    from zeroflow_core.datasets.av2 import Log, find_logs

    found: dict[str, list[Group]] = {}
    for path in find_logs(folder):
        log = Log(path)
        name = resembling(log)
        if name is not None and len(log) > 1:
            found.setdefault(name, []).append(_measured(log.log_id, log_samples(log, count), seed))
    return found


def _simulated(sensor: str, scene: str, seed: int, count: int, device: str, status) -> Group:
    from zeroflow_core.bench.samples import simulated_samples

    status.update(f"simulating {count} × {scene} for {sensor}")
    return _measured(scene, simulated_samples(sensor, scene, seed, count, device), seed)


def _measured(name: str, samples: Iterable, seed: int) -> Group:
    from zeroflow_core.bench.statistics import measure

    group = Group(name)
    for sample in samples:
        group.values.append(measure(sample, seed))
        group.shown = group.shown or sample
    return group


def _merged(name: str, groups: list[Group]) -> Group:
    """All of them as one."""
    return Group(name, [measured for group in groups for measured in group.values], groups[0].shown)


def _table(sensor: str, real: Group, made: list[Group]) -> Table:
    counts = ", ".join(f"{len(group.values)} {group.name}" for group in (real, *made))
    table = Table(title=f"{sensor}: means over {counts} pairs of sweeps", box=box.SIMPLE_HEAD)
    table.add_column("statistic", no_wrap=True)
    for heading in ("real", "lowest", "highest", *(group.name for group in made), *(f"{g.name} ÷ real" for g in made)):
        table.add_column(heading, justify="right")
    by_topic = groupby(real.values[0], key=lambda name: name.split()[0].rstrip(","))
    for _, names in by_topic:
        for name in names:
            values, theirs = real.series(name), [group.series(name) for group in made]
            means = [_text(_mean(series)) for series in theirs]
            ratios = [_text(_ratio(_mean(series), _mean(values))) for series in theirs]
            spread = (_mean(values), *((values.min(), values.max()) if len(values) else (np.nan, np.nan)))
            table.add_row(name, *map(_text, spread), *means, *ratios)
        table.add_section()
    return table


def _differences(real: Group, made: Group) -> list[str]:
    """The largest differences in words, the largest first, after a line that says of what."""
    found = []
    for name in real.values[0]:
        values, mean = real.series(name), _mean(made.series(name))
        if not len(values) or np.isnan(mean):
            continue
        floor = _SHARE_FLOOR if name.endswith("%") else 0.0
        nearest = float(np.clip(mean, values.min(), values.max()))
        ratio = _ratio(mean + floor, nearest + floor)
        if ratio > 0 and max(ratio, 1 / ratio) > _TOLERANCE:
            more = "more" if ratio > 1 else "less"
            span = f"{_text(values.min())} to {_text(values.max())}" if np.ptp(values) > 0 else _text(values[0])
            found.append((abs(np.log(ratio)), f"  {more}: {name}: {_text(mean)}, real sweeps have {span}"))
    found.sort(key=lambda entry: -entry[0])
    told = [text for _, text in found[:_TOLD]] or ["  none beyond the spread of the real sweeps"]
    return [f"The largest of {len(found)} differences of {made.name}:", *told, ""]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _ratio(value: float, reference: float) -> float:
    """NaN where it says nothing: of an unknown value, or by next to nothing."""
    return value / reference if reference > _LEAST else np.nan


def _text(value: float) -> str:
    """Three digits that count, and – for what is not known."""
    if not np.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}" if abs(value) >= 0.001 else "0"


def _plain(found: dict[str, list[Group]]) -> dict:
    """{scanner: {log or scene: [{statistic: value or None}]}}"""

    def known(measured: dict[str, float]) -> dict[str, float | None]:
        return {name: value if np.isfinite(value) else None for name, value in measured.items()}

    return {
        sensor: {group.name: [known(measured) for measured in group.values] for group in groups}
        for sensor, groups in found.items()
    }
