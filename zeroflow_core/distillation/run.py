"""The whole way from raw logs or bags to a student: import → label → train → evaluate → export → report.

Every stage goes on where it was stopped and does nothing when it is complete, so the same call again continues a run.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zeroflow_core.datasets.av2 import Log, find_split
from zeroflow_core.datasets.recording import read_recording
from zeroflow_core.devices import choose_device
from zeroflow_core.distillation.judging import judge_held_back
from zeroflow_core.distillation.labelling.label import Labelled, LabelSettings, check_logs, label
from zeroflow_core.distillation.labelling.work import threads_kept
from zeroflow_core.distillation.launching import launch_command
from zeroflow_core.distillation.pairs import evenly
from zeroflow_core.distillation.pictures import draw_before_after, draw_training
from zeroflow_core.distillation.report import REPORT as REPORT_FILE
from zeroflow_core.distillation.report import Facts, write_report
from zeroflow_core.distillation.sources import IMPORTED, LogSource, find_sources, unlike_bags
from zeroflow_core.distillation.training.label_sources import source_of
from zeroflow_core.distillation.training.prepared import PreparedPairs, Source
from zeroflow_core.distillation.training.recipes import Recipe, recipe
from zeroflow_core.distillation.training.train import Trained, TrainSettings, labelled_pairs, train
from zeroflow_core.errors import ZeroFlowError, differences
from zeroflow_core.evaluation import run as evaluation
from zeroflow_core.evaluation.methods import Settings
from zeroflow_core.evaluation.truth import has_labels, truth_problem
from zeroflow_core.fastflow3d.checkpoint import NAMES, checkpoint_file, load_model
from zeroflow_core.fastflow3d.config import SIZES
from zeroflow_core.files import held, new_file, remove_unfinished, writing_to
from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.verification.flows import prepare as prepare_verification
from zeroflow_core.version import VERSION

STAGES = IMPORT, LABEL, TRAIN, EVALUATE, REPORT = "import", "label", "train", "evaluate", "report"
CONFIG, LOG = "config.json", "log.txt"
TRAINING, EVALUATION = "training", "evaluation"
STUDENT, CURVES, BEFORE_AFTER = "student.safetensors", "curves.png", "before_after.png"

_LOOKED_AT = 8  # pairs of a log with labels, before it is taken for one that can't be judged by
_PATIENCE_S = 15.0  # for what is left of a run that was killed
_BEGAN_WITH = "labels.txt"  # in the training's folder: tells the labels that it began with from others

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillSettings:
    """
    source:     logs or bags to learn from
    out:        the run's folder
    student:    1x, xl, small, a checkpoint to start from, or ``auto``: 1x on a GPU, else small
    recipe:     by its name; epochs, batch, learning_rate: None for what it says
    method, teacher_config, seed: of the teacher; the seed is also the training's
    ground:     what teacher and student are not to see, as LabelSettings has it
    pairs_per_log: to label at most, of each log; None for all
    val:        logs with labels to judge by; without any, those of the split ``val`` of the source's root, where there
                are some and it is not what is learned from
    device:     ``auto``, ``cpu``, ``cuda`` or ``cuda:n``
    held_back, workers, micro_batch: of the training, as TrainSettings has them
    """

    source: LogSource
    out: Path
    student: str = "auto"
    recipe: str = "fast"
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    method: str = "nsfp"
    teacher_config: str | TeacherConfig = "fast"
    ground: str = "auto"
    pairs_per_log: int | None = None
    val: tuple[Path, ...] = ()
    device: str = "auto"
    seed: int = 0
    held_back: float = 0.1
    workers: int | None = None
    micro_batch: int | None = None


@dataclass(frozen=True)
class Distilled:
    """
    student: the file, also in the run's folder: report, a page about all of it
    launch:  the command that starts the node with it
    failed:  pairs that the teacher failed at
    metrics: by method (student, zero) of the labelled logs, as zeroflow evaluate tells them; empty without such logs
    unscored: of these, pairs that failed
    """

    student: Path
    report: Path
    launch: str
    failed: list[dict]
    metrics: dict[str, dict]
    unscored: list[dict]


def resolved(settings: DistillSettings) -> DistillSettings:
    """The settings without ``auto``, where that depends on the machine.

    Raises:
        ZeroFlowError: a device that is not there, or what shows as wrong before the work: of the teacher, its
            configuration, the ground, the recipe or the student.
    """
    device = choose_device(settings.device)
    _label_settings(settings, [])
    if settings.source.bag is not None and settings.ground == "map":
        raise ZeroFlowError("a bag has no map with ground heights; choose --ground patchwork")
    if _recipe(settings).refine:
        prepare_verification()
    if not 0 <= settings.held_back < 1:
        raise ZeroFlowError(f"what is held back is a share from 0 to below 1, not {settings.held_back}")
    student = settings.student
    if student == "auto":
        student = "small" if device == "cpu" else "1x"
    elif student not in SIZES:
        if not checkpoint_file(student).is_file():
            raise ZeroFlowError(
                f"student '{student}' is neither a size ({', '.join(SIZES)}), nor a checkpoint's file, nor one of: "
                f"{', '.join(NAMES)}"
            )
        load_model(student)
    return replace(settings, device=device, student=student)


def distill(
    settings: DistillSettings, on_progress: Callable[[str, Any], None] = lambda stage, progress: None
) -> Distilled:
    """Run all stages, or go on where an earlier call with the same settings stopped.

    on_progress: called with a stage and how far it is: an ImportProgress, LabelProgress, TrainProgress, the
                 evaluation's Progress, or None for the report

    Raises:
        ZeroFlowError: sources or settings that can't be used, `out` holds another run, or the file system refuses.
    """
    settings = resolved(settings)
    validation = _labelled(settings)
    out = settings.out
    with _opened(out, settings):
        _log.info("learning from %s", settings.source.name)
        logs = find_sources(settings.source, out / "data", lambda now: on_progress(IMPORT, now))
        to_label = _label_settings(settings, logs)
        check_logs(to_label)
        _keep(settings)
        with threads_kept():
            labelled = label(to_label, lambda now: on_progress(LABEL, now))
        _log.info("labels: %s", json.dumps(labelled.manifest["counts"]))
        labels = source_of(out / "labels")
        _forget_other_labels(out, labels)
        training = TrainSettings(
            sources=(labels,),
            out=out / TRAINING,
            student=settings.student,
            recipe=_recipe(settings),
            device=settings.device,
            seed=settings.seed,
            workers=settings.workers,
            micro_batch=settings.micro_batch,
            held_back=settings.held_back,
            prepared=out / "prepared",
            validation=validation,
            name=out.resolve().name,
            about={"teacher": labelled.manifest["teacher"]},
        )
        trained = train(training, lambda now: on_progress(TRAIN, now))
        _log.info("training: %d steps in %.0f s, %s", trained.steps, trained.seconds, json.dumps(trained.figures))
        _copy(trained.student, out / STUDENT)
        metrics, unscored = _evaluate(settings, validation, lambda now: on_progress(EVALUATE, now))
        on_progress(REPORT, None)
        return _report(settings, logs, labelled, training, trained, metrics, unscored)


def _label_settings(settings: DistillSettings, logs: list[Path]) -> LabelSettings:
    return LabelSettings(
        logs=tuple(logs),
        split=settings.source.split,
        out=settings.out / "labels",
        method=settings.method,
        teacher_config=settings.teacher_config,
        device=settings.device,
        ground=settings.ground,
        seed=settings.seed,
        per_log=settings.pairs_per_log,
    )


def _recipe(settings: DistillSettings) -> Recipe:
    changes = {"epochs": settings.epochs, "batch": settings.batch, "learning_rate": settings.learning_rate}
    return recipe(settings.recipe, **{name: value for name, value in changes.items() if value is not None})


def _forget_other_labels(out: Path, labels: Source) -> None:
    """Remove training and evaluation of labels that were others, as those are of which failed pairs have come since."""
    here = PreparedPairs(labels, labelled_pairs(labels), SIZES["small"], None).digest
    began_with = out / TRAINING / _BEGAN_WITH
    try:
        if began_with.is_file() and began_with.read_text() == here:
            return
        if began_with.parent.exists():
            _log.warning("%s: there are other labels now than when the training began; it begins afresh", out)
            began_with.unlink(missing_ok=True)  # first, so that what is left, if this is stopped, is not taken for good
        for folder in (out / TRAINING, out / EVALUATION):
            if folder.exists():
                shutil.rmtree(folder)
    except OSError as error:
        raise ZeroFlowError(f"cannot begin afresh in {out / TRAINING}: {error.strerror or error}") from error
    with new_file(began_with, "w") as file:
        file.write(here)


def _labelled(settings: DistillSettings) -> tuple[Path, ...]:
    """The logs to judge by."""
    if settings.val:
        logs = tuple(log for log in settings.val if _tells_truth(Log(log)))
        if not logs:
            raise ZeroFlowError(f"no log in {settings.val[0].parent} has labels to judge by; give another --val")
        return logs
    root = settings.source.data
    if root is None or settings.source.split == "val":
        return ()
    try:
        logs = find_split(root, "val")
    except ZeroFlowError:  # there is none, and nobody asked for one
        return ()
    return tuple(log for log in logs if _tells_truth(Log(log)))


def _tells_truth(log: Log) -> bool:
    """Whether a log can be judged by, as far as some of its pairs tell."""
    some = evenly(range(len(log) - 1), _LOOKED_AT)
    if not some or not has_labels(log):
        return False
    problem = ""
    for i in some:
        problem = truth_problem(log, i)
        if problem is None:
            return True
    _log.warning("%s is not judged by: %s", log.path, problem)
    return False


def _evaluate(
    settings: DistillSettings,
    validation: tuple[Path, ...],
    on_progress: Callable[[evaluation.Progress], None],
) -> tuple[dict[str, dict], list[dict]]:
    """metrics.json of the student and of zero flow, and the pairs that failed."""
    if not validation:
        return {}, []
    folder, names = validation[0].parent, tuple(log.name for log in validation)
    checkpoint, metrics, failed = str(settings.out / STUDENT), {}, []
    for method in ("student", "zero"):
        how = Settings(
            folder.parent, folder.name, method, checkpoint=checkpoint, device=settings.device, logs=names
        )
        outcome = evaluation.evaluate(how, settings.out / EVALUATION / method, on_progress=on_progress)
        metrics[method] = outcome.metrics
        failed += outcome.failed
    return metrics, failed


def _report(
    settings: DistillSettings,
    logs: list[Path],
    labelled: Labelled,
    training: TrainSettings,
    trained: Trained,
    metrics: dict[str, dict],
    unscored: list[dict],
) -> Distilled:
    out, labels = settings.out, labelled.labels
    recording = read_recording(logs[0])
    pictures = {CURVES: draw_training(training.out)}
    held_back: dict[str, dict[str, float | None]] = {}
    if trained.held_back:
        pictures[BEFORE_AFTER] = draw_before_after(
            trained.held_back, labels, settings.student, out / STUDENT, settings.device, settings.seed
        )
        held_back = judge_held_back(trained.held_back, labels, out / STUDENT, settings.device)
    for name, image in pictures.items():
        with new_file(out / name, "wb") as file:
            image.save(file, "PNG")
    launch = launch_command(out / STUDENT, recording)
    facts = Facts(
        name=out.resolve().name,
        source=settings.source,
        logs=logs,
        recording=recording,
        manifest=labelled.manifest,
        failed=labelled.failed,
        student=settings.student,
        recipe=training.recipe,
        trained=trained,
        held_back=held_back,
        metrics=metrics,
        launch=launch,
        pictures=tuple(pictures),
        unlike=unlike_bags(logs),
    )
    report = write_report(facts, out)
    _log.info("%s is done", out / STUDENT)
    return Distilled(out / STUDENT, report, launch, labelled.failed, metrics, unscored)


def _copy(source: Path, target: Path) -> None:
    with new_file(target, "wb") as file, open(source, "rb") as content:
        shutil.copyfileobj(content, file)


@contextmanager
def _opened(out: Path, settings: DistillSettings) -> Iterator[None]:
    """`out` as a folder of this run's own, held against other processes meanwhile, with a log of what happens.

    Nothing is left of a run that fails before it has settled what it learns from.
    """
    made = not out.exists()
    with held(out, "distilling into", _PATIENCE_S), ExitStack() as stack:
        with writing_to(out):
            _check_same(out, settings)
            remove_unfinished(out, [CONFIG, STUDENT, CURVES, BEFORE_AFTER, REPORT_FILE])
            remove_unfinished(out / "prepared")
            logged = (out / LOG).exists()
            stack.enter_context(_logged(out / LOG))
        try:
            yield
        except BaseException as error:
            _log.info("stopped: %s", str(error) or type(error).__name__)
            if not (out / CONFIG).exists():
                _leave(out, made, logged)
            raise


def _leave(out: Path, made: bool, logged: bool) -> None:
    """Remove what a run that came to nothing has made. Imported logs stay: the next run would import them again.

    made, logged: whether it was this run that made the folder, and whether there was a log before
    """
    if not logged:
        (out / LOG).unlink(missing_ok=True)
    folders = [out / "data" / IMPORTED, *(out / "data" / IMPORTED).parents]
    for folder in folders[: folders.index(out) + made]:
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()


def _check_same(out: Path, settings: DistillSettings) -> None:
    path, here = out / CONFIG, _as_plain(settings)
    if not path.exists():
        others = next((name for name in (TRAINING, EVALUATION, STUDENT) if (out / name).exists()), None)
        if others is not None:  # labels and imported logs may be there; this would be replaced
            raise ZeroFlowError(
                f"{out} holds {others} but no {CONFIG}, so it was not made by a run like this; choose another --out"
            )
        return
    try:
        there = dict(json.loads(path.read_text())["settings"])
    except (ValueError, TypeError, KeyError) as error:
        raise ZeroFlowError(f"{path} is damaged; choose another --out, or remove {out}") from error
    device = there.get("device")
    if device != here["device"]:
        raise ZeroFlowError(
            f"the run in {out} was begun on {device}, where labels come out differently than on {here['device']}; go "
            f"on with --device {device}, or choose another --out"
        )
    if there != here:
        labels = f" (its labels can be trained on: zeroflow distill train --labels {out / 'labels'})"
        raise ZeroFlowError(
            f"{out} holds another run ({differences(there, here)}); choose another --out, or remove it"
            f"{labels if (out / 'labels').exists() else ''}"
        )


def _keep(settings: DistillSettings) -> None:
    """Leave the settings in the run's folder."""
    with new_file(settings.out / CONFIG, "w") as file:
        json.dump({"settings": _as_plain(settings), "version": VERSION}, file, indent=2)
        file.write("\n")


def _as_plain(settings: DistillSettings) -> dict[str, Any]:
    """What makes a run another run: not where its folder lies, which of several GPUs it has, or how it shares memory.

    settings: resolved
    """
    told = asdict(settings)
    told = {**told.pop("source"), **told, "val": sorted({str(log.parent.resolve()) for log in settings.val})}
    for name in ("out", "workers", "micro_batch"):
        del told[name]
    told["device"] = settings.device.partition(":")[0]
    return json.loads(json.dumps(told, default=lambda path: str(path.resolve())))  # as a file gives it back


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing: when the disk is full, the next stage says so, and in a sentence."""


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """What this package's parts have to say goes to the file, and warnings to stderr as before."""
    logger = logging.getLogger("zeroflow_core")
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    added = [handler] if logger.hasHandlers() else [handler, logging.lastResort]
    for one in added:
        logger.addHandler(one)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for one in added:
            logger.removeHandler(one)
        logger.setLevel(level)
        handler.close()
