"""`node`: the flow node from a publisher's send to a subscriber's receive of the flow, with real processes over DDS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench.machine import described
from zeroflow_core.bench.node_run import OVERHEAD, Load, Outcome, Variant, run_variant
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file

EGO_MOTIONS = ("odom", "kiss_icp")
_WIDTH = 120  # characters: rather that than headings cut up
_GOAL_MS = 15.0  # of overhead, for 100,000 points on two cores


def node(
    points: Annotated[int, typer.Option(min=1000, help="Of each cloud.")] = 100_000,
    rate: Annotated[float, typer.Option(min=0.5, max=100.0, help="Clouds per second.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=2.0, help="Of each variant, for which clouds are sent.")] = 20.0,
    checkpoint: Annotated[
        str, typer.Option(help="Weights of the student: a file, 'default', or a published name.")
    ] = "default",
    device: Annotated[str, typer.Option(help="Where the student runs: auto, cpu, cuda or cuda:n.")] = "auto",
    ego_motion: Annotated[
        list[str], typer.Option(help="Where the ego motion comes from: odom or kiss_icp; may be given again.")
    ] = EGO_MOTIONS,
    markers: Annotated[
        bool | None, typer.Option(help="Whether somebody looks at the markers; without it both, in turns.")
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="Of each variant, one after the other.")] = 1,
    play: Annotated[Path | None, typer.Option(help="An AV2 log or a bag in place of a simulated drive.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for everything that was measured.")] = None,
) -> None:
    """Measure the flow node: what it adds to the student's work, and how long a flow takes from end to end.

    A node and a probe run as processes of their own, variant after variant. The probe sends clouds at a steady rate
    as a driver does, and odometry or none; with markers, the node has moving points to cluster as well.

    Example: python -m zeroflow_core.bench node --seconds 20 --json node.json
    """
    from zeroflow_core.devices import choose_device

    for name in ego_motion:
        if name not in EGO_MOTIONS:
            raise ZeroFlowError(f"ego motion '{name}' cannot be measured; choose from: {', '.join(EGO_MOTIONS)}")
    machine = described(choose_device(device))
    about = {"bench": "node", **machine, "points": points, "rate": rate, "checkpoint": checkpoint}
    load = Load(points, rate, seconds, play)
    watched = (False, True) if markers is None else (markers,)
    variants = [Variant(name, looked_at) for name in ego_motion for looked_at in watched]
    outcomes: list[Outcome] = []
    try:
        with Console(stderr=True).status("measuring") as status:
            for turn in range(turns):
                for variant in variants:
                    status.update(f"turn {turn + 1} of {turns}: {variant.name}")
                    outcomes.append(run_variant(variant, load, {"checkpoint": checkpoint, "device": device}))
    finally:  # after Ctrl-C, too, what there is is told
        if outcomes:
            _tell(outcomes, load)
    if json_file is not None:
        with new_file(json_file, "w") as file:
            rows = [about | {"variant": one.variant.name, **one.account} for one in outcomes]
            file.write(json.dumps(rows, indent=1, allow_nan=False) + "\n")


def _tell(outcomes: list[Outcome], load: Load) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)
    console.print(_end_to_end(outcomes, load), _stages(outcomes), _clouds(outcomes))


def _end_to_end(outcomes: list[Outcome], load: Load) -> Table:
    title = f"{load.points:,} points at {load.rate:g} Hz for {load.seconds:g} s: ms from a cloud's sending to its flow"
    table = _table(title, "ms", outcomes)
    for key in ("p50", "p99", "max"):
        table.add_row(f"end to end {key}", *(_ms(one.account["latency_ms"][key]) for one in outcomes))
    for name, k in (("p50", 0), ("p99", 1)):
        goal = f" (goal {_GOAL_MS:g})" if k == 0 else ""
        table.add_row(f"node overhead {name}{goal}", *(_ms(one.overhead[k]) for one in outcomes))
    table.add_row("processors kept busy", *(_number(one.account["node"]["processors"], ".2f") for one in outcomes))
    table.add_row("memory of its own, MB", *(_number(one.account["node"]["memory_mb"], ".0f") for one in outcomes))
    return table


def _stages(outcomes: list[Outcome]) -> Table:
    table = _table("The node's stages, ms: median / p99 (*: overhead)", "", outcomes)
    for name in dict.fromkeys(name for one in outcomes for name in one.stages):
        cells = ["{:.1f} / {:.1f}".format(*one.stages[name]) if name in one.stages else "–" for one in outcomes]
        table.add_row(f"{name} *" if name in OVERHEAD else name, *cells)
    return table


def _clouds(outcomes: list[Outcome]) -> Table:
    table = _table("What became of the clouds", "", outcomes)
    for name in ("sent", "lost_to_node", "received", "flows", "lost_to_probe", "unaccounted"):
        table.add_row(name.replace("_", " "), *(str(one.account[name]) for one in outcomes))
    reasons = dict.fromkeys(name for one in outcomes for name in one.account["counts"])
    for name in reasons:
        if name not in ("clouds_received", "flows_published"):
            table.add_row(name, *(str(one.account["counts"].get(name, 0)) for one in outcomes))
    return table


def _table(title: str, first: str, outcomes: list[Outcome]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column(first)
    for one in outcomes:
        table.add_column(one.variant.name, justify="right")
    return table


def _ms(value: float | None) -> str:
    return _number(value, ".1f")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
