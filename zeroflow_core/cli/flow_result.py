"""What ``zeroflow flow`` leaves of a pair: its flow in a file, pictures, errors where there are labels, and a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zeroflow_core.datasets.stored_flow import write_stored_flow
from zeroflow_core.drawing.birds_eye import draw_birds_eye
from zeroflow_core.drawing.error_view import draw_error_legend, draw_error_view
from zeroflow_core.drawing.lettering import draw_title
from zeroflow_core.drawing.view import View
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation import av2_2023
from zeroflow_core.evaluation.errors import DYNAMIC_SPEED
from zeroflow_core.evaluation.figures import figures_of, figures_of_zero_flow
from zeroflow_core.evaluation.results import DEFINITIONS, PARTS
from zeroflow_core.evaluation.tables import COUNT, METRES, PER_CENT
from zeroflow_core.evaluation.truth import Estimate, PairTruth, as_estimate
from zeroflow_core.evaluation.wording import NOTHING, duration, several
from zeroflow_core.files import new_file
from zeroflow_core.pairs import Flow, FramePair, Status

FILES = FLOW, PICTURE, ERRORS, ERROR_PICTURE = "flow.feather", "flow.png", "errors.json", "errors.png"

_LOOK = {"size": (1200, 1200), "metres_across": 104.0, "magnify": 0.7}  # of the pictures: all that is scored
_FASTEST = 1e6  # metres per pair that a picture tells apart; a flow beyond all measure keeps its heading
_LEAST_WIDTH = 80  # characters of the table; in less room numbers would be cut off
_WITHOUT = {
    Status.GROUND: "ground",
    Status.OUT_OF_RANGE: "out of range",
    Status.NOT_FINITE: "not finite",
    Status.NO_ESTIMATE: "without estimate",
}


@dataclass(frozen=True)
class Result:
    """
    method:     one line that says what made the flow
    source:     one line that says of which pair
    seconds:    that the method took
    iterations, loss: of a teacher; None for other methods, or where there is none
    truth:      None where the pair has no labels
    """

    method: str
    source: str
    pair: FramePair
    flow: Flow
    seconds: float
    iterations: int | None = None
    loss: float | None = None
    truth: PairTruth | None = None

    @cached_property
    def estimate(self) -> Estimate:
        return as_estimate(self.flow)

    @cached_property
    def moving(self) -> np.ndarray:
        """(N,) bool: a flow above 0.5 m/s."""
        speed = np.linalg.norm(self.estimate.residual.astype(np.float64), axis=1) / abs(self.pair.dt)
        return speed > DYNAMIC_SPEED

    @cached_property
    def errors(self) -> dict[str, dict]:
        """Every definition's figures, of this flow and, below ``zero_flow``, of saying that nothing moves. Only with
        a truth."""
        return {**figures_of(self.truth, self.estimate), "zero_flow": figures_of_zero_flow(self.truth)}


def write_result(result: Result, out: Path) -> list[str]:
    """Write the files to the folder `out`, each complete or not at all, when those of an earlier call are gone.

    Returns their names.

    Raises:
        ZeroFlowError: the file system refuses.
    """
    images = {PICTURE: _flow_picture(result)}
    if result.truth is not None:
        images[ERROR_PICTURE] = _error_picture(result, result.truth)
        told = json.dumps(_told(result), indent=2, allow_nan=False)
    _remove(out / name for name in FILES)  # this pair may have no errors to tell
    write_stored_flow(out / FLOW, result.estimate.residual, result.estimate.covered)
    for name, image in images.items():
        with new_file(out / name, "wb") as file:
            image.save(file, "PNG")
    if result.truth is None:
        return [FLOW, PICTURE]
    with new_file(out / ERRORS, "w") as file:
        file.write(told + "\n")
    return list(FILES)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ZeroFlowError(f"cannot write {path}: {error.strerror or error}") from error


def _told(result: Result) -> dict:
    about = {
        "method": result.method,
        "source": result.source,
        "stamp_ns": result.pair.stamp0_ns,
        "dt_s": result.pair.dt,
        "seconds": result.seconds,
        "iterations": result.iterations,
        "loss": result.loss,
    }
    return {**result.errors, "pair": about}


def _flow_picture(result: Result) -> Image.Image:
    moving = several(int(result.moving.sum()), "moving point")
    velocity = np.clip(result.estimate.residual, -_FASTEST, _FASTEST) / result.pair.dt
    return draw_birds_eye(
        result.pair.pc0, velocity, title=result.source, subtitle=f"{moving}, {result.method}", **_LOOK
    )


def _error_picture(result: Result, truth: PairTruth) -> Image.Image:
    """The error of every point that av2-2023 scores."""
    error = np.linalg.norm(result.estimate.residual.astype(np.float64) - truth.scene_flow.residual, axis=1)
    scored = av2_2023.scored_points(truth)
    image = draw_error_view(result.pair.pc0, error, scored=scored, covered=result.estimate.covered, **_LOOK)
    view = View(*_LOOK["size"], _LOOK["size"][0] / _LOOK["metres_across"], magnify=_LOOK["magnify"])
    draw_title(image, view, f"Error of {result.source}", result.method)
    draw_error_legend(image, view)
    return image


def print_result(result: Result, console: Console) -> None:
    """The counts of the flow, and the errors beside those of zero flow."""
    console.width = max(console.width, _LEAST_WIDTH)
    milliseconds = 1000 * result.pair.dt
    console.print(Text(f"{result.source}, {milliseconds:.0f} ms, by {result.method}"), soft_wrap=True)
    console.print()
    console.print(_counts(result))
    if result.truth is not None:
        console.print()
        console.print(_error_table(result.errors))


def _counts(result: Result) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    total, status = len(result.flow.status), result.flow.status
    covered, moving = int(result.estimate.covered.sum()), int(result.moving.sum())
    without = [f"{COUNT.text((status == code).sum())} {name}" for code, name in _WITHOUT.items() if code in status]
    table.add_row("points", COUNT.text(total), ", ".join(without))
    table.add_row("with flow", COUNT.text(covered), _share(covered, total, "of all"))
    table.add_row("moving", COUNT.text(moving), _share(moving, covered, f"of these, above {DYNAMIC_SPEED:g} m/s"))
    if result.iterations is not None:
        table.add_row("iterations", COUNT.text(result.iterations))
        table.add_row("loss", NOTHING if result.loss is None else f"{result.loss:.4g}")
    table.add_row("time", duration(result.seconds))
    return table


def _share(part: int, whole: int, of: str) -> str:
    return f"{PER_CENT.text(part / whole)} % {of}" if whole else ""


def _error_table(errors: dict[str, dict]) -> Table:
    headings = ("definition, metres", "three-way", "FD", "FS", "BS", "points", "covered %")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="right" if k else "left", no_wrap=True)
    for module in DEFINITIONS:
        ours, zero = errors[module.NAME], errors["zero_flow"][module.NAME]
        counts = COUNT.text(ours["num_points"]), PER_CENT.text(ours["coverage"])
        table.add_row(Text(module.NAME, "bold"), *(METRES.text(ours[part]) for part in PARTS), *counts)
        table.add_row("  zero flow", *(METRES.text(zero[part]) for part in PARTS), style="dim")
    return table
