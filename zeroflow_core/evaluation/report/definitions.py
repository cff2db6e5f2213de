"""The definitions of three-way EPE beside each other: what each counts, and what it says about a run."""

from __future__ import annotations

from dataclasses import dataclass

from zeroflow_core.evaluation import av2_2023, av2_2024, zeroflow_paper
from zeroflow_core.evaluation.report.charts import shares
from zeroflow_core.evaluation.report.markup import Markup, join, tag
from zeroflow_core.evaluation.report.page import Section, section, table
from zeroflow_core.evaluation.wording import PART_NAMES, count, interval, metres, ratio, readable, share


@dataclass(frozen=True)
class Definition:
    """key: in metrics.json; counts: which points it scores and how it sorts them, formulas in backticks"""

    key: str
    title: str
    counts: str


DEFINITIONS = (
    Definition(
        av2_2023.NAME,
        "AV2 2023 challenge",
        "Counts every point with a valid label and `|x|, |y| ≤ 50 m` that the labels don’t mark as ground: AV2’s own "
        "mark what lies at most 0.3 m above the map’s ground, simulated logs the true ground, and where there are only "
        "boxes, AV2’s rule marks it; foreground is what lies in a box of AV2’s 30 classes, road signs included; "
        "dynamic is what moves `0.05 m` per pair or more; background that moves is in no part.",
    ),
    Definition(
        av2_2024.NAME,
        "AV2 2024 challenge",
        "Counts every point with a valid label and `|x|, |y| < 35 m`, `|z| < 2.5 m` in the second sweep’s frame that "
        "lies more than 0.4 m above the map’s ground; foreground is cars, other vehicles, pedestrians and riders; "
        "dynamic is what moves `0.05 m` per pair or more, `0.5 m/s` at `10 Hz`; signs, their trailers and animals "
        "count nowhere.",
    ),
    Definition(
        zeroflow_paper.NAME,
        "ZeroFlow paper",
        "Counts every point with `|x|, |y| ≤ 35 m` and `−3 ≤ z < 3 m` that lies more than 0.4 m above the map’s "
        "ground, with a valid label or not; foreground is pedestrians, riders, all vehicles and trailers; dynamic is "
        "what moves `0.05 m` per pair or more, `0.5 m/s` at `10 Hz`; background is the rest, signs, cones and barrels "
        "included, at any speed; animals count nowhere.",
    ),
)


def definition_cards(metrics: dict) -> Section:
    """The three-way EPE of each definition with its parts."""
    whole = max((metrics[one.key]["three_way_epe"] or 0.0 for one in DEFINITIONS), default=0.0)
    return section(
        "definitions",
        "Three-way end-point error",
        tag(
            "p",
            "The mean of three errors, each a mean over the points of all pairs and logs together. Three definitions "
            "are in use; they score different points and sort them differently, so their figures must not be compared "
            "with each other. Covered is the "
            "share of the scored points to which the method gives a flow; at the others it counts as saying that they "
            "stand still.",
            class_="lead",
        ),
        tag("div", [_card(one, metrics[one.key], whole) for one in DEFINITIONS], class_="columns three"),
    )


def _card(definition: Definition, figures: dict, whole: float) -> Markup:
    value = figures["three_way_epe"]
    parts = [(name, None if figures[key] is None else figures[key] / 3) for key, name in PART_NAMES.items()]
    rows = []
    for k, (key, name) in enumerate(PART_NAMES.items()):
        named = join(tag("span", class_=f"swatch part{k}"), name)
        rows.append([named, metres(figures[key]), count(figures[f"num_{key}"]), share(figures[f"coverage_{key}"])])
    rows.append(["All scored", "", count(figures["num_points"]), share(figures["coverage"])])
    return tag(
        "div",
        tag("h3", definition.title),
        tag("div", metres(value), tag("small", "" if value is None else " m"), class_="value"),
        shares(parts, whole, f"Shares of the parts in the three-way error of the {definition.title}"),
        table(["Part", "EPE, m", "Points", "Covered"], rows),
        tag("p", _formulas(definition.counts), class_="counts"),
        class_="definition",
    )


def _formulas(text: str) -> Markup:
    """Text whose parts in backticks are kept on one line."""
    return join(tag("span", part, class_="unbroken") if k % 2 else part for k, part in enumerate(text.split("`")))


def definition_details(metrics: dict) -> Section:
    """What each definition has beyond three-way EPE."""
    return section(
        "details",
        "More figures",
        tag(
            "div",
            tag("div", tag("h3", "AV2 2023 challenge"), _details_2023(metrics[av2_2023.NAME])),
            tag("div", tag("h3", "ZeroFlow paper"), _details_zeroflow(metrics[zeroflow_paper.NAME])),
            class_="blocks",
        ),
    )


def _details_2023(figures: dict) -> Markup:
    columns = ("acc_strict", share), ("acc_relax", share), ("angle_error", ratio), ("epe_close", metres)
    columns += (("epe_far", metres),)
    rows = [[name, *(write(figures[f"{key}_{part}"]) for key, write in columns)] for part, name in PART_NAMES.items()]
    return join(
        table(
            ["Part", "AccS", "AccR", "Angle, rad", "EPE ≤ 35 m", "EPE > 35 m"],
            rows,
            caption="AccS and AccR: share of points with an error below 5 and 10 cm, or 5 and 10% of the flow. "
            "Angle: between estimate and truth with 0.1 s as their fourth component. EPE in metres.",
        ),
        tag("p", "Dynamic IoU ", tag("strong", ratio(figures["dynamic_iou"]))),
    )


def _details_zeroflow(figures: dict) -> Markup:
    bins = next(iter(figures["classes"].values()))["by_speed"]
    over = [("", 1), ("All", 2), *((interval(one["from_mps"], one["to_mps"], "m/s"), 2) for one in bins)]
    rows = []
    for name, found in figures["classes"].items():
        each = [text for one in found["by_speed"] for text in (count(one["num_points"]), metres(one["epe"]))]
        rows.append([readable(name), count(found["num_points"]), metres(found["epe"]), *each])
    return join(
        table(
            ["Class", *("Points", "EPE, m") * (1 + len(bins))],
            rows,
            over=over,
            caption="Speeds are metres per pair at 10 Hz.",
        ),
        tag(
            "p",
            "Of the moving foreground, ",
            tag("strong", share(figures["acc_strict"])),
            " has an error below 5 cm (AccS) and ",
            tag("strong", share(figures["acc_relax"])),
            " below 10 cm (AccR).",
        ),
    )
