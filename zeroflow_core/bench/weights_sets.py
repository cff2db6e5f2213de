"""Pairs to judge weights by: recorded ones whose motion is known, and simulated worlds that no training sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.distillation.pairs import PairRef, choose_pairs
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.truth import has_labels
from zeroflow_core.simulation.logs import MIXED, simulate_logs

SCANNERS = ("av2", "hdl64", "os1-128", "vlp32")  # as they are: trainings draw relatives of them
REAL, WORLDS, STATIC = "real", "worlds", "static"
_SEED = 1  # in its first six static worlds the ego drives; where it stands, too little can go wrong
_SPLIT = "test"  # recipes simulate train and val, and no split has a log of another one
_SWEEPS = 2


@dataclass(frozen=True)
class WeightSet:
    """
    name: such as av2, tri-b0157d97, worlds-hdl64, static-hdl64
    kind: one of REAL, WORLDS, STATIC: recorded, simulated traffic, and simulated with nothing but the ego in motion
    logs: folders of the labelled logs, whose pairs are those that a teacher labels
    """

    name: str
    kind: str
    logs: tuple[Path, ...]

    @property
    def pairs(self) -> list[PairRef]:
        return choose_pairs(self.logs)


@dataclass(frozen=True)
class Worlds:
    """How many simulated logs of two sweeps each scanner has: streets, junctions and highways in turn."""

    moving: int = 6
    static: int = 6


def real_sets(data: Path | None) -> tuple[list[WeightSet], list[str]]:
    """Every labelled log below the folders of `data`, each a set of its own; and sentences on what was left out.

    data: holds a folder for each source, with logs in AV2's layout below; None for no recorded sets

    Raises:
        ZeroFlowError: there is no such folder, or no log in it.
    """
    if data is None:
        return [], ["recorded sweeps: no --data was given"]
    if not data.is_dir():
        raise ZeroFlowError(f"--data {data}: there is no such folder; give the one that holds folders of logs")
    sets, left_out = [], []
    for source in sorted(folder for folder in data.iterdir() if folder.is_dir()):
        try:
            logs = find_logs(source)
        except ZeroFlowError:
            continue
        labelled = [log for log in logs if has_labels(Log(log)) and len(Log(log)) > 1]
        if len(labelled) < len(logs):
            left_out.append(f"{source.name}: {len(logs) - len(labelled)} of {len(logs)} logs, whose motion is unknown")
        for log in labelled:
            name = source.name if len(labelled) == 1 else f"{source.name}-{log.name[:8]}"
            sets.append(WeightSet(name, REAL, (log,)))
    if not sets and not left_out:
        raise ZeroFlowError(f"--data {data}: no folder in it holds logs in AV2's layout")
    return sets, left_out


def simulated_sets(
    cache: Path,
    worlds: Worlds,
    wanted: Callable[[str], bool] = lambda name: True,
    jobs: int | None = None,
    on_sweep: Callable[[], None] = lambda: None,
) -> list[WeightSet]:
    """Simulated sets, written to `cache`; logs that are there are kept.

    wanted:   whether the set of that name is asked for; others are not made
    on_sweep: called for every sweep, made or kept

    Raises:
        ZeroFlowError: `cache` can't be written.
    """
    sets = []
    for name, scanner, kind, logs in _simulated(worlds):
        if not wanted(name):
            continue
        written = simulate_logs(
            cache / name,
            _SPLIT,
            logs,
            _SWEEPS,
            seed=_SEED,
            scanner=scanner,
            scene=MIXED,
            density=1.0 if kind == WORLDS else 0.0,  # 0 leaves what never moves, and the ego
            jobs=jobs,
            on_sweep=lambda points, kept: on_sweep(),
        )
        sets.append(WeightSet(name, kind, tuple(written.logs)))
    return sets


def simulated_sweeps(worlds: Worlds, wanted: Callable[[str], bool] = lambda name: True) -> int:
    """How many sweeps simulated_sets tells of."""
    return sum(_SWEEPS * logs for name, _, _, logs in _simulated(worlds) if wanted(name))


def chooser(asked: Sequence[str]) -> Callable[[str], bool]:
    """Whether a set is asked for, by its name or the beginning of it before a dash; all are when nothing is asked."""

    def wanted(name: str) -> bool:
        return not asked or any(name == one or name.startswith(f"{one}-") for one in asked)

    return wanted


def check_asked(asked: Sequence[str], real: Iterable[WeightSet], worlds: Worlds) -> None:
    """Raises ZeroFlowError where a name that is asked for means no set."""
    names = [one.name for one in real] + [name for name, *_ in _simulated(worlds)]
    for one in asked:
        if not any(map(chooser([one]), names)):
            raise ZeroFlowError(f"--set {one}: there is no such set; choose among: {', '.join(names)}")


def _simulated(worlds: Worlds) -> list[tuple[str, str, str, int]]:
    """Name, scanner, kind and number of logs."""
    kinds = ((WORLDS, worlds.moving), (STATIC, worlds.static))
    return [(f"{kind}-{scanner}", scanner, kind, logs) for kind, logs in kinds for scanner in SCANNERS if logs]
