"""From pseudo-labels to a student: what `zeroflow distill train` does.

Sources → prepared pairs, some of them held back → the task of scene flow → the training loop → the best student.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.devices import choose_device, choose_precision
from zeroflow_core.distillation.pairs import PairRef, choose_pairs, evenly
from zeroflow_core.distillation.training.curves import CURVES, VALIDATION
from zeroflow_core.distillation.training.fitting import BEST, LAST, Fit, TrainProgress
from zeroflow_core.distillation.training.prepared import PreparedPairs, Source
from zeroflow_core.distillation.training.processes import processes
from zeroflow_core.distillation.training.recipes import Recipe
from zeroflow_core.distillation.training.scene_flow import SceneFlow
from zeroflow_core.distillation.training.state import Progress
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.truth import has_labels, truth_problem
from zeroflow_core.fastflow3d.checkpoint import NAMES, load_model, save_model
from zeroflow_core.fastflow3d.config import SIZES, FastFlow3DConfig
from zeroflow_core.files import held, remove_unfinished, writing_to
from zeroflow_core.ground import GROUND_Z
from zeroflow_core.memory import keep_memory
from zeroflow_core.verification.flows import prepare as prepare_verification
from zeroflow_core.workers import cores

STUDENT, PREPARED = "student.safetensors", "prepared"
_PATIENCE_S = 15.0  # for what is left of a training that was killed
_VALIDATED = 64  # pairs of each kind, after every epoch
_USUAL_WORKERS, _MOST_WORKERS = 8, 256
_SPARE = 1 << 30  # bytes that a training on a CPU keeps for its next step

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings:
    """
    sources:     pairs to learn from
    out:         folder for all that comes out
    student:     a size (1x, xl, small), or a checkpoint to start from
    recipe:      how
    device:      ``auto``, ``cpu``, ``cuda`` or ``cuda:n``; under torchrun each process has a GPU of its own
    seed:        of the first weights, the order and the augmentations
    workers:     processes that load samples; None for as many as there are cores to spare
    micro_batch: samples at a time, where a batch does not fit into memory
    prepared:    folder to keep prepared pairs in; None for ``<out>/prepared``
    validation:  logs with labels of their own, to choose the best epoch by
    held_back:   share of each source's pairs, at the ends of its logs, that is kept from learning
    name:        of the student, in its metadata
    about:       more of its metadata, such as what it learned from
    """

    sources: tuple[Source, ...]
    out: Path
    student: str
    recipe: Recipe
    device: str = "auto"
    seed: int = 0
    workers: int | None = None
    micro_batch: int | None = None
    prepared: Path | None = None
    validation: tuple[Path, ...] = ()
    held_back: float = 0.1
    name: str = "student"
    about: dict[str, Any] | None = None


@dataclass(frozen=True)
class Trained:
    """
    student:    the best epoch's, exported
    metadata:   that it holds
    held_back:  pairs that were not learned from
    figures:    of the best epoch's validation, by name
    steps:      of the optimiser, made
    seconds:    of training
    wait_share: of them, spent waiting for data
    first:      this process is the first of those that train together, and speaks for them
    """

    student: Path
    metadata: dict[str, Any]
    held_back: list[PairRef]
    figures: dict[str, float | None]
    steps: int
    seconds: float
    wait_share: float
    first: bool = True


def train(settings: TrainSettings, on_progress: Callable[[TrainProgress], None] = lambda progress: None) -> Trained:
    """Train a student, or go on where an earlier call with the same settings stopped.

    Writes to `out`: last.ckpt and best.ckpt (published layout), student.safetensors, curves.csv, validation.csv, and
    tensorboard/ where TensorBoard is installed. On a CPU the process keeps memory from then on (see keep_memory).

    Raises:
        ZeroFlowError: nothing to learn from, settings that can't be used, `out` holds another training, memory ran
            out, or the file system refuses.
    """
    device = choose_device(settings.device)
    if not settings.sources:
        raise ZeroFlowError("there is nothing to learn from; give at least one folder of labels")
    if not 0 <= settings.held_back < 1:
        raise ZeroFlowError(f"held_back is a share from 0 to below 1, not {settings.held_back}")
    if settings.workers is not None and settings.workers > _MOST_WORKERS:
        raise ZeroFlowError(f"{settings.workers} processes can't load samples; give at most {_MOST_WORKERS}")
    if settings.recipe.refine:
        prepare_verification()  # now, as what is wrong with it would show as a riddle in the middle of the work
    keep_memory_of_steps(device)
    with processes(device) as team, _held(settings.out, team.first):
        torch.manual_seed(settings.seed)
        task, held_back = _task(settings, team.device)
        fit = Fit(
            task,
            settings.recipe,
            {**task.metadata, "grid": task.config.to_dict()},
            settings.out,
            team,
            workers=_workers(settings, team.world),
            micro_batch=settings.micro_batch,
            on_progress=on_progress,
        )
        fit.run()
        if team.first:
            _export(settings.out, task)
    progress: Progress = fit.progress
    share = progress.waited / progress.seconds if progress.seconds else 0.0
    return Trained(
        settings.out / STUDENT, task.metadata, held_back, progress.figures, progress.step, progress.seconds, share,
        team.first,
    )


def keep_memory_of_steps(device: str) -> None:
    """Let this process keep what a step on a CPU frees for the next one; see keep_memory."""
    if torch.device(device).type == "cpu":
        keep_memory(_SPARE)


@contextmanager
def _held(out: Path, first: bool) -> Iterator[None]:
    """`out` made, and held against other trainings meanwhile, by the first process."""
    if not first:
        yield
        return
    with held(out, "training into", _PATIENCE_S):
        with writing_to(out):
            remove_unfinished(out, [LAST, BEST, STUDENT, CURVES, VALIDATION])
            remove_unfinished(out / PREPARED)
        yield


def _task(settings: TrainSettings, device: str) -> tuple[SceneFlow, list[PairRef]]:
    config, weights = _student(settings.student)
    folder = settings.prepared or settings.out / PREPARED
    recipe, learned, held_back, refs = settings.recipe, [], [], []
    for source in settings.sources:
        kept, back = split_pairs(labelled_pairs(source), settings.held_back)
        learned.append(PreparedPairs(source, kept, config, folder, recipe.refine))
        held_back.append(PreparedPairs(source, back, config, folder, recipe.refine).some(_VALIDATED))
        refs += back
    labelled = _labelled(settings.validation)
    task = SceneFlow(
        config,
        weights,
        learned,
        [source for source in held_back if len(source)],
        labelled,
        recipe,
        _metadata(settings, learned),
        device,
        recipe.bf16 and choose_precision("auto", device) == "bf16",
        settings.seed,
    )
    return task, refs


def labelled_pairs(source: Source) -> list[PairRef]:
    """The pairs of a source that have labels, in the order of logs and time.

    Raises:
        ZeroFlowError: there is none.
    """
    pairs, opened = [], None
    for pair in choose_pairs(source.logs):
        if opened is None or opened.path != pair.log:
            opened = Log(pair.log)
        if source.labels.has(opened, pair.index):
            pairs.append(pair)
    if not pairs:
        raise ZeroFlowError(
            f"{source.labels.forward} has no label for any pair of {len(source.logs)} logs, of which the first is "
            f"{source.logs[0]}; label them first (zeroflow distill label), or give the logs that were labelled"
        )
    return pairs


def split_pairs(pairs: Sequence[PairRef], held_back: float) -> tuple[list[PairRef], list[PairRef]]:
    """Those to learn from and those held back: the share `held_back` of all, taken as whole logs from the last one on,
    and of the log that would be too much from its end. Where that log is cut, a pair of
    either part shares a sweep with one of the other.

    One pair is held back at least, where there is more than one and a share at all.
    """
    if held_back == 0 or len(pairs) < 2:
        return list(pairs), []
    cut = len(pairs) - min(max(round(held_back * len(pairs)), 1), len(pairs) - 1)
    return list(pairs[:cut]), list(pairs[cut:])


def _labelled(logs: Sequence[Path]) -> list[PairRef]:
    """Pairs to validate by, of logs that have labels.

    Raises:
        ZeroFlowError: logs are given, and none has labels that tell the truth.
    """
    if not logs:
        return []
    pairs = evenly([pair for pair in choose_pairs(logs) if has_labels(Log(pair.log))], _VALIDATED)
    problems = [truth_problem(Log(pair.log), pair.index) for pair in pairs]
    why = next((problem for problem in problems if problem is not None), "it has none")
    usable = [pair for pair, problem in zip(pairs, problems, strict=True) if problem is None]
    if not usable:
        raise ZeroFlowError(f"no pair of {logs[0].parent} has labels to validate by ({why}); leave it out")
    if len(usable) < len(pairs):
        _log.warning("%d of %d pairs are not validated by: %s", len(pairs) - len(usable), len(pairs), why)
    return usable


def _student(name: str) -> tuple[FastFlow3DConfig, dict[str, torch.Tensor] | None]:
    """The grid of a student, and the weights to start from."""
    if name in SIZES:
        return SIZES[name], None
    if not name.endswith((".ckpt", ".safetensors")) and name not in NAMES:
        raise ZeroFlowError(
            f"student '{name}' is neither a size ({', '.join(SIZES)}), nor a .ckpt or .safetensors file, nor one of: "
            f"{', '.join(NAMES)}"
        )
    model, _ = load_model(name)
    return model.config, model.state_dict()


def _metadata(settings: TrainSettings, sources: Sequence[PreparedPairs]) -> dict[str, Any]:
    grounds = sorted({source.source.ground for source in sources})
    if len(grounds) > 1:
        raise ZeroFlowError(
            f"the sources have different ground rules ({', '.join(grounds)}), and a student knows one; give --ground"
        )
    intervals = [abs(source[k].dt) for source in sources for k in evenly(range(len(source)), 9)]
    return {
        "name": settings.name,
        "ground": grounds[0],
        "interval_s": round(float(torch.tensor(intervals).median()), 3),
        "ground_z": GROUND_Z,
        "recipe": settings.recipe.to_dict(),
        "verify": settings.recipe.refine,  # what it is taught was borne out by both sweeps
        "teacher": "; ".join(sorted({source.source.teacher for source in sources} - {""})),
        **(settings.about or {}),
    }


def _workers(settings: TrainSettings, world: int) -> int:
    if settings.workers is not None:
        return settings.workers
    return max(min((cores() - world) // world, _USUAL_WORKERS), 1)


def _export(out: Path, task: SceneFlow) -> None:
    if not (out / BEST).exists():
        raise ZeroFlowError(f"{out / BEST} is gone; remove {out / LAST}, too, to train again")
    model, _ = load_model(out / BEST)
    if task.needs_fp32(model.state_dict()):
        task.metadata["precision"] = "fp32"
    save_model(out / STUDENT, model, task.metadata)
