"""The runs of the teacher's benchmark brought together: one line a configuration, beside its published form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from zeroflow_core.bench.teacher_cost import (
    AV2_TRAIN_PAIRS,
    PAPER_PAIRS,
    PAPER_PAIRS_PER_S,
    flops_per_iteration,
    hours,
)
from zeroflow_core.bench.teacher_run import Run

BOUND = 0.05  # by which the error of a fast engine may exceed that of what was published


@dataclass(frozen=True)
class Summary:
    """What several runs of one configuration, with different seeds, came to.

    name:                of the configuration, such as nsfp:fast
    problems:            runs without an estimate, which count as "nothing moves"
    three_way_epe:       mean over the seeds, metres, by ZeroFlow's definition; so are fd, fs and bs
    each_three_way_epe:  of each seed
    av2_2023:            mean three-way EPE by that definition
    epe_ratio:           mean three-way EPE as a share of the published configuration's
    iterations, points:  medians
    seconds:             median of a pair's
    each_seconds:        of each seed
    cpu_seconds:         median, of all threads
    memory_bytes:        the most
    speed_ratio:         times as fast as the published configuration: median over the seeds
    paper_speed_ratio:   times as fast as the paper's teacher on its GPU, by the median of the seconds
    av2_train_hours:     of this machine for AV2 Sensor's train split, were all its pairs like this one
    paper_recipe_hours:  and for the pairs that the paper's recipe trains on
    flops_per_iteration: of the networks, in the median
    flops:               of the networks for a pair, in the median
    flops_per_s:         median
    matmul_rate:         median of what a plain product of matrices of the same precision did beside each run
    matmul_share:        of the networks' rate in that, median
    """

    name: str
    problems: int
    three_way_epe: float | None
    each_three_way_epe: list[float | None]
    fd: float | None
    fs: float | None
    bs: float | None
    av2_2023: float | None
    epe_ratio: float | None
    iterations: float
    points: float
    seconds: float
    each_seconds: list[float]
    cpu_seconds: float
    ms_per_iteration: float
    memory_bytes: int | None
    speed_ratio: float | None
    paper_speed_ratio: float
    av2_train_hours: float
    paper_recipe_hours: float
    precision: str
    flops_per_iteration: float
    flops: float
    flops_per_s: float
    matmul_rate: float
    matmul_share: float


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """One of each configuration, in the order of the runs."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    return [_summary(name, its, by_name.get(published(name), [])) for name, its in by_name.items()]


def published(name: str) -> str:
    """The configuration that one called `name` is compared with."""
    return f"{method_of(name)}:published"


def method_of(name: str) -> str:
    """Of a configuration's name."""
    return name.partition(":")[0]


def _summary(name: str, runs: list[Run], reference: list[Run]) -> Summary:
    if name == published(name):
        reference = []  # a ratio to itself says nothing
    three_way = _mean(runs, "zeroflow", "three_way_epe")
    reference_three_way = _mean(reference, "zeroflow", "three_way_epe")
    seconds_of = {run.seed: run.seconds for run in reference}
    ratios = [seconds_of[run.seed] / run.seconds for run in runs if run.seed in seconds_of]
    work = [flops_per_iteration(method_of(name), run.points) for run in runs]
    rates = [each * run.iterations / run.seconds for each, run in zip(work, runs, strict=True)]
    seconds = median(run.seconds for run in runs)
    return Summary(
        name=name,
        problems=sum(run.problem is not None for run in runs),
        three_way_epe=three_way,
        each_three_way_epe=[run.errors["zeroflow"]["three_way_epe"] for run in runs],
        **{part: _mean(runs, "zeroflow", part) for part in ("fd", "fs", "bs")},
        av2_2023=_mean(runs, "av2-2023", "three_way_epe"),
        epe_ratio=three_way / reference_three_way if three_way is not None and reference_three_way else None,
        iterations=median(run.iterations for run in runs),
        points=median(run.points for run in runs),
        seconds=seconds,
        each_seconds=[run.seconds for run in runs],
        cpu_seconds=median(run.cpu_seconds for run in runs),
        ms_per_iteration=median(1000 * run.seconds / max(1, run.iterations) for run in runs),
        memory_bytes=max((run.memory_bytes for run in runs if run.memory_bytes is not None), default=None),
        speed_ratio=median(ratios) if ratios else None,
        paper_speed_ratio=1 / seconds / PAPER_PAIRS_PER_S,
        av2_train_hours=hours(AV2_TRAIN_PAIRS, 1 / seconds),
        paper_recipe_hours=hours(PAPER_PAIRS, 1 / seconds),
        precision=runs[0].precision,
        flops_per_iteration=median(work),
        flops=median(each * run.iterations for each, run in zip(work, runs, strict=True)),
        flops_per_s=median(rates),
        matmul_rate=median(run.matmul_rate for run in runs),
        matmul_share=median(rate / run.matmul_rate for rate, run in zip(rates, runs, strict=True)),
    )


def _mean(runs: Sequence[Run], definition: str, figure: str) -> float | None:
    """None without runs, or where the pair has no point that counts."""
    values = [run.errors[definition][figure] for run in runs]
    return mean(values) if values and None not in values else None


def verdict(summary: Summary) -> str | None:
    """Whether the bound on the error holds, in a sentence; None where there is nothing to compare with."""
    if summary.epe_ratio is None:
        return None
    holds = "within" if summary.epe_ratio <= 1 + BOUND else "NOT within"
    faster = "" if summary.speed_ratio is None else f"; {summary.speed_ratio:.3g}× as fast"
    return (
        f"{summary.name}: mean three-way EPE {100 * (summary.epe_ratio - 1):+.1f} % against {published(summary.name)}, "
        f"{holds} the bound of +{100 * BOUND:.0f} %{faster}"
    )
