"""The folders that other commands leave: what they say of the method and the logs of a run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroflow_core.datasets.av2 import find_split
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.methods import digest
from zeroflow_core.fastflow3d.checkpoint import checkpoint_file
from zeroflow_core.nsfp.config import CONFIGS, METHODS, teacher_config

_EVALUATION, _METRICS = "run.json", "metrics.json"
_DISTILLATION, _STUDENT = "config.json", "student.safetensors"
_OF_STUDENTS = ("engine", "precision", "streaming")


@dataclass(frozen=True)
class Run:
    """
    what:    the run in a word or two, for messages
    logs:    the folders of its logs, those to show first in front
    method:  settings of evaluation.methods.Settings by name
    """

    what: str
    logs: list[Path]
    method: dict[str, Any]


def read_run(folder: Path) -> Run | None:
    """What was run in that folder, or None where neither `zeroflow evaluate` nor `zeroflow distill` has.

    Raises:
        ZeroFlowError: a run that is not finished, is damaged, or whose logs are gone.
    """
    if (folder / _EVALUATION).is_file():
        return _evaluation(folder)
    if (folder / _DISTILLATION).is_file() and (folder / "labels").is_dir():
        return _distillation(folder)
    return None


def _evaluation(folder: Path) -> Run:
    if not (folder / _METRICS).is_file():
        raise ZeroFlowError(f"{folder} has no {_METRICS} yet; run the same `zeroflow evaluate` to its end")
    here, metrics = _Content(folder / _EVALUATION), _Content(folder / _METRICS)
    logs = metrics.get(dict, "per_log")
    errors = {log: metrics.get(float, "per_log", log, "av2-2023", "fd", default=0.0) for log in logs}
    method: dict[str, Any] = {"method": here.get(str, "method"), "ground": here.get(str, "ground", default=None)}
    if method["method"] == "student":
        method["checkpoint"] = metrics.get(str, "run", "checkpoint", default="default")
        _check_digest(folder, method["checkpoint"], here.get(str, "checkpoint's sha256", default=""))
        method |= {name: here.get(str, name, default=None) for name in _OF_STUDENTS}
        method["verify"] = here.get(str, "verify", default="never")  # as of runs from before there was such a thing
    elif method["method"] in METHODS:
        method["seed"] = here.get(int, "seed", default=None)
        method["teacher_config"] = _teacher_config(method["method"], here)
    elif (labels := here.get(str, "labels", default=None)) is not None:
        method["labels"] = Path(labels)
    there = {log.name: log for log in _logs("evaluation", folder, here.get(str, "data"), here.get(str, "split"))}
    worst_first = sorted(errors, key=lambda log: -errors[log])
    return Run(
        "the evaluation",
        [there[log] for log in worst_first if log in there],
        {name: word for name, word in method.items() if word is not None},
    )


def _check_digest(folder: Path, checkpoint: str, sha256: str) -> None:
    path = checkpoint_file(checkpoint)
    if sha256 and path.is_file() and digest(path) != sha256:
        raise ZeroFlowError(
            f"checkpoint {checkpoint} has changed since the evaluation in {folder}; evaluate it again, or give a log "
            "or a bag itself"
        )


def _teacher_config(teacher: str, here: _Content) -> str | None:
    """The name of the configuration that is written down `here`, if it has one."""
    for name in CONFIGS:
        config = json.loads(json.dumps(teacher_config(teacher, name).to_dict()))  # as a file gives it back
        del config["precision"]  # depends on the machine
        if all(here.get(object, word, default=None) == value for word, value in config.items()):
            return name
    return None


def _distillation(folder: Path) -> Run:
    if not (folder / _STUDENT).is_file():
        raise ZeroFlowError(f"{folder} has no {_STUDENT} yet; run the same `zeroflow distill` to its end")
    config = _Content(folder / _DISTILLATION)
    data = config.get(str, "settings", "data", default=str(folder / "data"))
    logs = _logs("distillation", folder, data, config.get(str, "settings", "split", default="train"))
    names = config.get(list, "settings", "names", default=[]) or [log.name for log in logs]
    chosen = [log for log in logs if log.name in names]
    return Run("the distillation", chosen, {"method": "student", "checkpoint": str(folder / _STUDENT)})


def _logs(what: str, folder: Path, data: str, split: str) -> list[Path]:
    if not os.path.isdir(data):  # which, unlike a Path's, takes any text
        raise ZeroFlowError(
            f"the logs of the {what} in {folder} have moved: there is no folder {data} any more; give a log or a bag "
            "itself"
        )
    return find_split(data, split)


_REQUIRED: Any = object()


class _Content:
    """What a JSON file says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._content = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ZeroFlowError(f"{path} is damaged ({error}); run its command again") from error

    def get(self, kind: type, *names: str, default: Any = _REQUIRED) -> Any:
        """What stands there under these names, one in the other.

        default: in place of null, or of what is not there
        """
        found = self._content
        for name in names:
            if not isinstance(found, dict):
                break
            found = found.get(name)
        else:
            if found is None and default is not _REQUIRED:
                return default
            if isinstance(found, kind):
                return found
        raise ZeroFlowError(f"{self._path} is damaged ({'.'.join(names)} is wrong); run its command again")
