"""How the viewer shows a recording: a chase view, one from above, plots over time and the legend."""

from __future__ import annotations

import rerun.blueprint as rrb

from zeroflow_core.drawing.view import BACKGROUND

_VEHICLE = "world/vehicle"
# In the vehicle frame, metres: the views go where the vehicle goes, and turn with it.
_CHASE = rrb.EyeControls3D(kind=rrb.Eye3DKind.Orbital, position=(-22, 0, 13), look_target=(12, 0, 0), eye_up=(0, 0, 1))
_ABOVE = rrb.EyeControls3D(kind=rrb.Eye3DKind.Orbital, position=(0, 0, 75), look_target=(0, 0, 0), eye_up=(0, 1, 0))


def layout(with_truth: bool, with_latency: bool, *, live: bool) -> rrb.Blueprint:
    """live: the newest is shown as it comes"""
    plots = [_plot("speed", "Speed (m/s)", legend=True), _plot("objects", "Moving objects", legend=with_truth)]
    if with_latency:
        plots.append(_plot("latency", "Latency (ms)", legend=False))
    legend = rrb.Spatial2DView(origin="legend", name="Colours", background=BACKGROUND)
    beside = rrb.Vertical(*plots, legend, row_shares=[1] * len(plots) + [2])
    if with_truth:
        scenes = rrb.Grid(
            _scene("Estimate", "truth", _CHASE),
            _scene("Truth", "estimate", _CHASE),
            _scene("Estimate, from above", "truth", _ABOVE),
            _scene("Truth, from above", "estimate", _ABOVE),
            grid_columns=2,
        )
    else:
        chase, above = _scene("From behind", "truth", _CHASE), _scene("From above", "truth", _ABOVE)
        scenes = rrb.Horizontal(chase, above, column_shares=[4, 3])
    return rrb.Blueprint(
        rrb.Horizontal(scenes, beside, column_shares=[3.2, 1]),
        rrb.TimePanel(state="collapsed", timeline="stamp", play_state="following" if live else "playing"),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
    )


def _plot(what: str, name: str, *, legend: bool) -> rrb.TimeSeriesView:
    corner = rrb.PlotLegend(rrb.Corner2D.LeftTop, visible=legend)
    return rrb.TimeSeriesView(origin=f"plots/{what}", name=name, plot_legend=corner)


def _scene(name: str, without: str, eye: rrb.EyeControls3D) -> rrb.Spatial3DView:
    return rrb.Spatial3DView(
        origin=_VEHICLE,
        contents=["+ /world/**", f"- /{_VEHICLE}/{without}/**"],
        name=name,
        background=BACKGROUND,
        line_grid=rrb.LineGrid3D(visible=False),
        eye_controls=eye,
    )
