"""How far a distillation is: a bar for each of its stages, one after the other."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.progress

_TITLES = {
    "import": "Importing",
    "label": "Labelling",
    "train": "Training",
    "evaluate": "Evaluating",
    "report": "Reporting",
}


class Stages:
    """Shows the stages of distillation.run on a bar, see cli.progress."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._stage = ""
        self._task: Any = None

    def show(self, stage: str, progress: Any) -> None:
        """progress: what distill tells of the stage"""
        done, total, note = _told(stage, progress)
        if stage != self._stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._stage, self._start = stage, monotonic()
            self._task = self._bar.add_task(_TITLES[stage], total=None, note="")
            self._bar.reset(self._task, total=total, completed=done)  # what was done before is not counted as fast work
        self._bar.update(self._task, total=total, completed=done, note=note)


def _told(stage: str, progress: Any) -> tuple[int, int | None, str]:
    """How much is done, of how much, and what else there is to say."""
    if stage == "import":
        bags = f" ({progress.number} of {progress.bags})" if progress.bags > 1 else ""
        return progress.done, progress.total, progress.bag.name + bags
    if stage == "label":
        from zeroflow_core.cli.distill.label import note_of

        return progress.done, progress.total, note_of(progress) if progress.done > progress.kept else ""
    if stage == "train":
        loss = [] if progress.loss is None else [f"loss {progress.loss:.4f}"]
        epoch = f"epoch {min(progress.epoch + 1, progress.epochs)} of {progress.epochs}"
        note = [progress.note or f"data wait {progress.wait_share:.0%}"]
        return progress.step, progress.steps, ", ".join([epoch, *loss, *note])
    if stage == "evaluate":
        errors = [] if progress.three_way_epe is None else [f"three-way {progress.three_way_epe:.4f} m"]
        return progress.done, progress.total, ", ".join(errors)
    return 0, None, "the last pictures"
