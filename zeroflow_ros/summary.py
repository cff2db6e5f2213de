"""What the demo says at its end: the figures, one screen of them, and whether they are good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.table import Table

from zeroflow_core.errors import ZeroFlowError
from zeroflow_ros.live.health import Problem
from zeroflow_ros.witness import Witness


def sum_up(
    played: str, num_points: dict[int, int], witness: Witness, picture: Path | None, film: Path | None
) -> dict:
    """All figures, in plain data.

    played:     the name of what was played
    num_points: points of each cloud played, by stamp in ns
    """
    equal = sum(rows == num_points.get(stamp_ns) for stamp_ns, rows in witness.rows.items())
    sizes = list(num_points.values())
    p50, p99 = np.percentile(witness.latencies, [50, 99]) * 1e3 if witness.latencies else (None, None)
    counters = {problem.value: int(witness.facts.get(problem.value, 0)) for problem in Problem}
    errors = witness.errors
    return {
        "played": played,
        "sweeps": len(num_points),
        "flow_messages": len(witness.rows),
        "flow_messages_with_rows_equal_to_input": equal,
        "points_per_sweep": {"least": min(sizes), "median": int(np.median(sizes)), "most": max(sizes)},
        "latency_ms": {"p50": p50, "p99": p99, "clouds": len(witness.latencies)},
        "moving_objects_per_sweep": {
            "mean": float(np.mean(witness.num_objects)) if witness.num_objects else None,
            "most": max(witness.num_objects, default=None),
        },
        "checkpoint": witness.facts.get("checkpoint", "unknown"),
        "device": witness.facts.get("device", "unknown"),
        "problems": {name: n for name, n in counters.items() if n},
        "errors": errors.to_dict() if errors.dynamic_points + errors.static_points else None,
        "picture": None if picture is None else str(picture),
        "film": None if film is None else str(film),
    }


def table(summary: dict) -> Table:
    """One screen for `summary`, the result of `sum_up`."""
    rows = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")  # a path that is cut off cannot be opened
    rows.add_row("Played", summary["played"])
    rows.add_row("Student", "{checkpoint} on {device}".format(**summary))
    text = "{sweeps} sweeps, {flow_messages} flow messages, rows equal to input in "
    text += "{flow_messages_with_rows_equal_to_input} of {flow_messages}"
    rows.add_row("Messages", text.format(**summary))
    text = "{median:,} per sweep ({least:,} to {most:,})"
    rows.add_row("Points", text.format(**summary["points_per_sweep"]))
    if summary["latency_ms"]["clouds"]:
        text = "p50 {p50:.0f} ms, p99 {p99:.0f} ms, from a cloud to its flow as both reach a third process"
        rows.add_row("Latency", text.format(**summary["latency_ms"]))
    if summary["moving_objects_per_sweep"]["most"] is None:
        rows.add_row("Moving objects", "no objects came; see the node's log")
    else:
        text = "{mean:.1f} per sweep, at most {most}"
        rows.add_row("Moving objects", text.format(**summary["moving_objects_per_sweep"]))
    if summary["errors"] is not None:
        text = "end-point error {dynamic_epe:.3f} m per sweep, {dynamic_epe_of_zero:.3f} m for zero flow"
        rows.add_row("Moving points", text.format(**summary["errors"]))
        text = "end-point error {static_epe:.3f} m per sweep, {static_epe_of_zero:.3f} m for zero flow; "
        text += "{static_too_fast:.1%} above 0.5 m/s"
        rows.add_row("Still points", text.format(**summary["errors"]))
    if summary["problems"]:
        rows.add_row("Complaints", _listing(summary["problems"]))
    rows.add_row("Picture", summary["picture"])
    rows.add_row("Film", summary["film"])
    return rows


def check(summary: dict) -> None:
    """Every pair of sweeps must have given one complete flow message.

    Raises:
        ZeroFlowError: it has not.
    """
    expected, flows = summary["sweeps"] - 1, summary["flow_messages"]
    equal = summary["flow_messages_with_rows_equal_to_input"]
    if (flows, equal) != (expected, expected):
        raise ZeroFlowError(
            f"{summary['sweeps']} sweeps should give {expected} flow messages with as many rows as points; "
            f"{flows} came, {equal} of them complete. The node's complaints: {_listing(summary['problems'])}"
        )


def _listing(problems: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in problems.items()) or "none"
