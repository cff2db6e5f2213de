"""Folders of labels as sources for a training: with the logs they are of, and the ground they were made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zeroflow_core.datasets.av2 import Log, find_split
from zeroflow_core.datasets.pseudo_labels import PseudoLabels, find_pseudo_labels
from zeroflow_core.distillation.labelling.manifest import MANIFEST
from zeroflow_core.distillation.training.prepared import Source
from zeroflow_core.errors import ZeroFlowError

_PUBLISHED_GROUND = "map"


def source_of(
    folder: Path, weight: float = 1.0, *, data: Path | None = None, split: str = "train", ground: str | None = None
) -> Source:
    """The labels in `folder` with their logs: those its manifest names, or a split of AV2's.

    data, split: where the logs are, for labels whose manifest does not say it, or names logs that are gone
    ground:      rule for what the student is not to see; None for the one the labels were made with

    Raises:
        ZeroFlowError: no labels there, no manifest and no `data`, or logs that are gone.
    """
    labels = find_pseudo_labels(folder)
    manifest = _manifest(folder, labels)
    logs = () if manifest is None else tuple(Path(log["path"]) for log in manifest["logs"].values())
    gone = [log for log in logs if not log.is_dir()]
    if data is None and manifest is None:
        raise ZeroFlowError(f"{folder} does not say which logs its labels are of; give their root as --data")
    if data is None and gone:
        raise ZeroFlowError(
            f"{gone[0]}, which the labels in {folder} are of, is not there any more; give the logs' root as --data"
        )
    if gone or manifest is None:
        logs = tuple(find_split(data, split))
    if ground is None:
        ground = _PUBLISHED_GROUND if manifest is None else manifest["configuration"]["ground"]
    if ground == "auto":  # the map, where there is one
        ground = "map" if all(Log(log).has_map_ground for log in logs) else "patchwork"
    return Source(logs, labels, ground, weight, "" if manifest is None else str(manifest.get("teacher", "")))


def _manifest(folder: Path, labels: PseudoLabels) -> dict[str, Any] | None:
    """What `zeroflow distill label` says of the labels, in `folder` or beside them; None where it says nothing."""
    path = next((place / MANIFEST for place in (folder, labels.forward.parent) if (place / MANIFEST).is_file()), None)
    if path is None:
        return None
    try:
        manifest = json.loads(path.read_text())
        if isinstance(manifest["configuration"]["ground"], str):
            _ = [Path(log["path"]) for log in manifest["logs"].values()]
            return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ZeroFlowError(f"{path} is damaged; give the root of the logs as --data, and remove it")


def split_at(text: str | None, usual: str = "val") -> tuple[Path, ...]:
    """Logs of ``ROOT`` or ``ROOT:SPLIT``; none for None.

    Raises:
        ZeroFlowError: no such folder or split.
    """
    if text is None:
        return ()
    root, sign, split = text.rpartition(":")
    if not sign or Path(text).is_dir():
        root, split = text, usual
    return tuple(find_split(Path(root), split))
