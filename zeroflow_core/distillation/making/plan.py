"""What weights are made of, as a file in config/distill/ says it: data, teacher, student and training.

    {"student": "half", "seed": 1,
     "simulated": [{"scanners": ["av2", "hdl64"], "chunks": 4, "logs": 10, "sweeps": 3, "seed": 9001}],
     "recorded": [{"data": "argoverse2", "split": "train", "licence": "CC BY-NC-SA 4.0"}, {"bag": "drives"}],
     "teacher": {"method": "nsfp", "config": "fast"},
     "training": {"from": "fast", "epochs": 20}}

Entries have the names of the fields below; what is left out has their defaults.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from zeroflow_core.datasets.ground_choice import GROUNDS
from zeroflow_core.distillation.sources import LogSource
from zeroflow_core.distillation.training.augment import check_number
from zeroflow_core.distillation.training.recipes import Recipe, recipe
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.config import SIZES
from zeroflow_core.nsfp.config import teacher_config
from zeroflow_core.simulation.logs import MIXED
from zeroflow_core.simulation.scanners import scanner_named
from zeroflow_core.simulation.scenes import SCENES

_STUDENT_GROUNDS = tuple(name for name in GROUNDS if name != "auto")
_MOST_SEED = 2**31 - 1
_SECTIONS = ("name", "student", "seed", "ground", "held_back", "simulated", "recorded", "teacher", "training")

Entry = TypeVar("Entry")


class Chunk(NamedTuple):
    """Simulated logs of one scanner, as ``zeroflow simulate --split train`` writes them with these options."""

    name: str
    scanner: str
    logs: int
    sweeps: int
    seed: int
    scene: str
    randomise: bool
    density: float


@dataclass(frozen=True)
class Simulated:
    """Simulated logs, in chunks of one scanner each: the scanners take turns.

    logs, sweeps: of a chunk; sweeps of each log
    seed:         of the first chunk; each one after it has the next
    scene, randomise, density: as zeroflow simulate takes them

    Raises:
        ZeroFlowError: one of them can't be.
    """

    scanners: tuple[str, ...]
    chunks: int
    logs: int
    sweeps: int
    seed: int
    scene: str = MIXED
    randomise: bool = True
    density: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.scanners, (list, tuple)) or not self.scanners:
            raise ZeroFlowError(f'scanners must be a list of names, such as ["av2"], not {self.scanners!r}')
        for name in self.scanners:
            scanner_named(str(name))
        for name, low in (("chunks", 1), ("logs", 1), ("sweeps", 2)):  # flow needs two sweeps
            check_number(name, getattr(self, name), low, 1e6, whole=True)
        check_number("seed", self.seed, 0, _MOST_SEED, whole=True)
        check_number("density", self.density, 0, 1e3)
        if self.scene not in (*SCENES, MIXED):
            raise ZeroFlowError(f"scene '{self.scene}' is unknown; choose one of: {', '.join(SCENES)}, {MIXED}")
        if not isinstance(self.randomise, bool):
            raise ZeroFlowError(f"randomise must be true or false, not {self.randomise!r}")
        object.__setattr__(self, "scanners", tuple(self.scanners))


@dataclass(frozen=True)
class Recorded:
    """Recorded sweeps without labels; licence: of theirs, "" where nobody says."""

    source: LogSource
    licence: str = ""


@dataclass(frozen=True)
class TeacherPlan:
    """method, config, seed, ground: as LabelSettings has them

    Raises:
        ZeroFlowError: there is no such teacher.
    """

    method: str = "nsfp"
    config: str = "fast"
    seed: int = 0
    ground: str = "auto"

    def __post_init__(self) -> None:
        teacher_config(self.method, self.config)
        if self.ground not in GROUNDS:
            raise ZeroFlowError(f"ground '{self.ground}' is unknown; choose one of: {', '.join(GROUNDS)}")
        check_number("seed", self.seed, 0, _MOST_SEED, whole=True)


@dataclass(frozen=True)
class Plan:
    """
    name:      of the student
    student:   its size
    seed:      of the training: first weights, order, augmentations
    training:  how
    held_back: share of the pairs that is kept from learning, to choose the best epoch by
    ground:    what the student is not to see: ``map``, ``patchwork`` or ``none``; None for what the teacher doesn't

    Raises:
        ZeroFlowError: one of them can't be, or there is nothing to learn from.
    """

    name: str
    student: str
    seed: int
    simulated: tuple[Simulated, ...]
    recorded: tuple[Recorded, ...]
    teacher: TeacherPlan
    training: Recipe
    held_back: float = 0.1
    ground: str | None = None

    def __post_init__(self) -> None:
        if self.student not in SIZES:
            raise ZeroFlowError(f"student '{self.student}' is none of the sizes: {', '.join(SIZES)}")
        check_number("seed", self.seed, 0, _MOST_SEED, whole=True)
        check_number("held_back", self.held_back, 0, 0.9)
        if self.ground not in (None, *_STUDENT_GROUNDS):
            raise ZeroFlowError(f"ground '{self.ground}' is unknown; choose one of: {', '.join(_STUDENT_GROUNDS)}")
        if not self.simulated and not self.recorded:
            raise ZeroFlowError("there is nothing to learn from: neither simulated nor recorded logs")

    def chunks(self) -> Iterator[Chunk]:
        """The chunks of simulated logs, named after their number and scanner: 001-av2, 002-hdl64, …"""
        number = 0
        for entry in self.simulated:
            for k in range(entry.chunks):
                scanner, number = entry.scanners[k % len(entry.scanners)], number + 1
                yield Chunk(
                    f"{number:03d}-{scanner}", scanner, entry.logs, entry.sweeps, entry.seed + k, entry.scene,
                    entry.randomise, entry.density,
                )  # fmt: skip

    def with_seed(self, seed: int) -> Plan:
        return replace(self, seed=seed)

    def with_recorded(self, more: tuple[Recorded, ...]) -> Plan:
        return replace(self, recorded=self.recorded + more)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, as a file gives it back."""
        return json.loads(json.dumps(asdict(self), default=str))


def read_plan(path: Path) -> Plan:
    """The plan in a ``.json`` file; its student is called after the file unless it says a name.

    Raises:
        ZeroFlowError: no such file, no JSON, or something in it that is unknown or can't be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ZeroFlowError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ZeroFlowError(f"{path} is no JSON ({error})") from error
    try:
        return _plan(content, path.stem)
    except ZeroFlowError as error:
        raise ZeroFlowError(f"{path}: {error}") from error


def _plan(content: Any, name: str) -> Plan:
    content = _object(content, "the file")
    _check_names("the file", content, _SECTIONS, ("student", "training"))
    training = {"from": "fast", **_object(content["training"], "training")}
    name = content.get("name", name)
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):  # folders are called after it
        raise ZeroFlowError(f"name must be a word, not {name!r}")
    return Plan(
        name=name,
        student=str(content["student"]),
        seed=content.get("seed", 0),
        simulated=tuple(_built(Simulated, one, "simulated") for one in _list(content, "simulated")),
        recorded=tuple(_recorded(_object(one, "recorded")) for one in _list(content, "recorded")),
        teacher=_built(TeacherPlan, content.get("teacher", {}), "teacher"),
        training=recipe(str(training.pop("from")), **training),
        **{key: content[key] for key in ("held_back", "ground") if key in content},
    )


def _recorded(entry: dict[str, Any]) -> Recorded:
    licence = str(entry.pop("licence", ""))
    for key in ("split", "topic", "odometry", "ego_motion", "deskew"):
        if not isinstance(entry.get(key, ""), str):
            raise ZeroFlowError(f"recorded: {key} must be a word, not {entry[key]!r}")
    if "height" in entry:
        check_number("recorded.height", entry["height"], -100, 100)
    for key in ("data", "bag"):
        if key in entry:
            entry[key] = Path(str(entry[key])).expanduser()
    if "names" in entry:
        entry["names"] = tuple(map(str, _list(entry, "names")))
    return Recorded(_built(LogSource, entry, "recorded"), licence)


def _built(kind: type[Entry], entry: Any, where: str) -> Entry:
    entry = _object(entry, where)
    known = [one.name for one in fields(kind)]
    needed = [one.name for one in fields(kind) if one.default is MISSING]
    _check_names(where, entry, known, needed)
    try:
        return kind(**entry)
    except ZeroFlowError as error:
        raise ZeroFlowError(f"{where}: {error}") from error


def _check_names(where: str, entry: dict[str, Any], known: Any, needed: Any) -> None:
    for name in entry:
        if name not in known:
            raise ZeroFlowError(f"{where} has no '{name}'; it has: {', '.join(known)}")
    for name in needed:
        if name not in entry:
            raise ZeroFlowError(f"{where} lacks '{name}'")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ZeroFlowError(f"{where} must be a JSON object, not {value!r}")
    return dict(value)


def _list(content: dict[str, Any], name: str) -> list:
    value = content.get(name, [])
    if not isinstance(value, list):
        raise ZeroFlowError(f"{name} must be a list, not {value!r}")
    return value
