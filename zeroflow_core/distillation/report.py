"""A distillation on one page: what was learned from, what it cost, how good the student is, and what to do with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.recording import Recording
from zeroflow_core.distillation.sources import LogSource
from zeroflow_core.distillation.training.recipes import Recipe
from zeroflow_core.distillation.training.train import Trained
from zeroflow_core.evaluation.wording import count, duration, metres, ratio, several, share, time_taken
from zeroflow_core.files import new_file

REPORT = "report.md"
_TOLD = 5  # failed pairs; the manifest has all
_HEADINGS = {
    "three_way_epe": "three-way",
    "fd": "moving objects (FD)",
    "fs": "standing objects (FS)",
    "bs": "background (BS)",
    "mean_dynamic": "mean dynamic",
}


@dataclass(frozen=True)
class Facts:
    """
    logs:      that were learned from; recording: of the first one, if it was imported from a bag
    manifest, failed: of the labels
    held_back: errors by method on held-back pairs, see judge_held_back
    metrics:   by method, of labelled logs, as metrics.json holds them
    launch:    the command that starts the node
    pictures:  names of those that lie beside the report
    unlike:    of bags that are not recorded like the first, see unlike_bags
    """

    name: str
    source: LogSource
    logs: Sequence[Path]
    recording: Recording | None
    manifest: dict[str, Any]
    failed: Sequence[dict]
    student: str
    recipe: Recipe
    trained: Trained
    held_back: dict[str, dict[str, float | None]]
    metrics: dict[str, dict]
    launch: str
    pictures: Sequence[str]
    unlike: Sequence[str] = ()


def write_report(facts: Facts, out: Path) -> Path:
    """Write report.md to the folder `out`, complete or not at all, and return its path.

    Raises:
        ZeroFlowError: the file system refuses.
    """
    with new_file(out / REPORT, "w") as file:
        file.write("\n".join(_lines(facts)) + "\n")
    return out / REPORT


def _lines(facts: Facts) -> Iterator[str]:
    yield f"# {facts.name}"
    yield ""
    yield f"A FastFlow3D (*{facts.student}*) that learned scene flow from {facts.source.name}, without a human label."
    if "before_after.png" in facts.pictures:
        yield ""
        yield "![A pair the student did not learn from: before training, after it, and the teacher](before_after.png)"
    for heading, part in (
        ("How good it is", _result(facts)),
        ("What it learned from", _source(facts)),
        ("Teacher", _teacher(facts)),
        ("Training", _training(facts)),
        ("Next", _next(facts)),
    ):
        yield ""
        yield f"## {heading}"
        yield ""
        yield from part


def _result(facts: Facts) -> Iterator[str]:
    if facts.metrics:
        run = facts.metrics["student"]["run"]
        where = f"{several(run['num_pairs'], 'pair')} of {several(run['num_logs'], 'log')}"
        yield f"On the labelled logs in {Path(run['data']) / run['split']} ({where}), metres by av2-2023:"
        yield ""
        yield from _errors({method: _of_metrics(one) for method, one in facts.metrics.items()})
        yield ""
    if facts.held_back:
        yield "On pairs that were held back from training, by those logs' own labels, metres by av2-2023:"
        yield ""
        yield from _errors(facts.held_back)
        yield ""
    figures = {name.partition("/")[2]: value for name, value in facts.trained.figures.items()}
    if "moving_epe" in figures:
        moving, zero = figures["moving_epe"], figures["zero_moving_epe"]
        yield "Against the teacher's labels of held-back pairs, metres from one sweep to the next:"
        yield ""
        yield "| | what moves | what stands |"
        yield "|---|---|---|"
        yield f"| zero flow | {metres(zero)} | {metres(figures['zero_still_epe'])} |"
        yield f"| student | {metres(moving)} | {metres(figures['still_epe'])} |"
        yield ""
        if moving is not None and zero:
            yield _in_words(moving, zero)
            yield ""
    if not facts.metrics and not facts.held_back:
        yield "No log has labels of its own: this is how well the student follows its teacher, not how right both are."
    else:
        yield "*Zero flow* says that nothing moves; mean dynamic is error ÷ speed, over the classes (av2-2024)."


def _in_words(moving: float, zero: float) -> str:
    if moving < zero:
        return f"The student finds {share(1 - moving / zero)} of the motion that its teacher sees in these pairs."
    return (
        "**The student does no better than saying that nothing moves.** It has seen too few pairs, or its teacher sees "
        "no motion: look at the picture, then label more pairs or train for more epochs."
    )


def _of_metrics(metrics: dict) -> dict[str, float | None]:
    errors = {part: metrics["av2-2023"][part] for part in _HEADINGS if part != "mean_dynamic"}
    return {**errors, "mean_dynamic": metrics["av2-2024"]["mean_dynamic"]}


def _errors(rows: dict[str, dict[str, float | None]]) -> Iterator[str]:
    yield f"| | {' | '.join(_HEADINGS.values())} |"
    yield "|---" * (1 + len(_HEADINGS)) + "|"
    for method in ("zero", "student", "teacher"):
        if method in rows:
            cells = [(ratio if part == "mean_dynamic" else metres)(rows[method][part]) for part in _HEADINGS]
            yield f"| {'zero flow' if method == 'zero' else method} | {' | '.join(cells)} |"


def _source(facts: Facts) -> Iterator[str]:
    sweeps = [Log(log).stamps_ns for log in facts.logs]
    seconds = sum(float(stamps[-1] - stamps[0]) for stamps in sweeps) * 1e-9
    number = sum(map(len, sweeps))
    yield f"- {facts.source.name}: {several(len(sweeps), 'log')}, {several(number, 'sweep')}, {time_taken(seconds)}"
    recording = facts.recording
    if recording is not None:
        motion = {"odometry": f"odometry ({recording.odometry})", "tf": "TF", "kiss_icp": "estimated with KISS-ICP"}
        height = "as given" if recording.height is not None else "estimated"
        yield f"- clouds of {recording.topic} in frame {recording.frame_id}; ego motion: {motion[recording.ego_motion]}"
        yield (
            f"- ground at z = {recording.ground_z:.2f} m ({height}), so z_offset = {recording.z_offset:.2f} m; "
            f"{'deskewed here' if recording.deskewed else 'taken as deskewed by the driver'}"
        )
    for sentence in facts.unlike:
        yield f"- **{sentence}**"
    yield f"- ground left out before the student: {facts.trained.metadata['ground']}"


def _teacher(facts: Facts) -> Iterator[str]:
    manifest, counts = facts.manifest, facts.manifest["counts"]
    yield f"{manifest['teacher']}; everything about the labels is in labels/manifest.json."
    yield ""
    device = "GPU" if manifest["configuration"]["device"] == "cuda" else "CPU-core"
    hours = f"{manifest['device_hours']:.2f} {device}-hours"
    each = f"{duration(manifest['seconds_per_pair'])} each"
    loss = f"; mean loss {manifest['mean']['loss']:.4f}" if counts["labelled"] else ""
    yield f"- {count(counts['labelled'])} of {several(counts['pairs'], 'pair')} labelled in {hours}, {each}{loss}"
    for direction, errors in manifest["errors"].items():
        yield (
            f"- by the logs' own labels, {direction}: three-way {metres(errors['three_way_epe'])} m, moving objects "
            f"{metres(errors['fd'])} m (definition of the ZeroFlow paper)"
        )
    if counts["without_estimate"]:
        yield f"- {several(counts['without_estimate'], 'pair')} gave it nothing to go by"
    if facts.failed:
        yield f"- {several(len(facts.failed), 'pair')} failed, and were not learned from:"
        yield from (f"  - {pair['log']}, pair {pair['index']}: {pair['error']}" for pair in facts.failed[:_TOLD])
        if len(facts.failed) > _TOLD:
            yield f"  - … and {count(len(facts.failed) - _TOLD)} more"


def _training(facts: Facts) -> Iterator[str]:
    recipe, trained = facts.recipe, facts.trained
    yield "![Loss and validation over the steps of training](curves.png)"
    yield ""
    yield (
        f"Recipe *{recipe.name}*: {several(trained.steps, 'step')} of {several(recipe.batch, 'sample')} in "
        f"{time_taken(trained.seconds)}, {share(trained.wait_share)} of it waiting for data. The weights that were "
        "kept are those of the best epoch."
    )


def _next(facts: Facts) -> Iterator[str]:
    yield "See it live:" if not facts.unlike else f"See it live, where it is set up as in {facts.recording.bag}:"
    yield ""
    yield "```sh"
    yield facts.launch
    yield "```"
