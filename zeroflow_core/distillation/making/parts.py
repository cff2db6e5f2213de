"""A training on its way from one machine to another: what it takes to go on, in files of at most 16 MiB.

A FastFlow3D 1x with Adam's moments takes 110 MB as the training keeps it, too much for some ways between machines. So
the parts have 16 bits a number, 55 MB: fp16 for weights and their moving average, bfloat16, which has fp32's range, for
the moments. The average is ``student.safetensors``, a student as it would be used; the rest is ``state.000`` and on.
Joined again they are what they were to the bit; a training that goes on from them goes on from rounded numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroflow_core.distillation.training.fitting import LAST
from zeroflow_core.distillation.training.state import Progress, save_state
from zeroflow_core.errors import ZeroFlowError, differences
from zeroflow_core.fastflow3d.checkpoint import load_model, save_model
from zeroflow_core.fastflow3d.config import SIZES, FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.files import new_file

MANIFEST, STUDENT, STATE = "manifest.json", "student.safetensors", "state"
MOST_BYTES = 16 << 20  # of a file
_HEADER = 64 << 10  # bytes of names and metadata in a student's file, more than enough
_EDITION = 1
_PREFIX = "model."  # of the student's keys in a training's checkpoint


@dataclass(frozen=True)
class Parts:
    """Parts that are whole and fit: folder, and how many steps were made."""

    folder: Path
    step: int
    state: bytes


def check_size(student: str) -> None:
    """
    Raises:
        ZeroFlowError: a student of this size, which is one of the files, is larger than they may be.
    """
    with torch.device("meta"):
        count = sum(weight.numel() for weight in FastFlow3D(SIZES[student]).parameters())
    if 2 * count > MOST_BYTES - _HEADER:
        raise ZeroFlowError(
            f"a student of size {student} takes {2 * count / 1e6:.0f} MB, and a part has {MOST_BYTES / 1e6:.1f} at "
            "most; take the --out folder along instead"
        )


def write_parts(training: Path, folder: Path, about: dict[str, Any]) -> list[Path]:
    """Write what it takes to go on with the training in the folder `training`; the manifest last.

    about: plain data that tells this training from others, but for its labels' files

    Raises:
        ZeroFlowError: no training there that could be gone on with, or the file system refuses.
    """
    path = training / LAST
    if not path.is_file():
        raise ZeroFlowError(f"{training} holds no training yet, so there are no parts to take along")
    content = torch.load(path, map_location="cpu", weights_only=True)
    going = content["zeroflow_training"]
    metadata = {key: value for key, value in content["zeroflow"].items() if key != "format"}
    state = {
        "metadata": metadata,
        "student": _rounded(going["student"], torch.float16),
        "optimiser": _rounded(content["optimizer_states"][0], torch.bfloat16),
        "identity": going["identity"],
        "progress": going["progress"],
    }
    written = io.BytesIO()
    torch.save(state, written)
    whole = written.getvalue()
    (folder / MANIFEST).unlink(missing_ok=True)  # of other parts
    model = FastFlow3D(FastFlow3DConfig(**metadata["grid"]))
    model.load_state_dict({key.removeprefix(_PREFIX): value for key, value in going["average"].items()})
    save_model(folder / STUDENT, model, {key: metadata[key] for key in metadata if key != "grid"}, half=True)
    paths = [folder / STUDENT]
    for number, start in enumerate(range(0, len(whole), MOST_BYTES)):
        paths.append(folder / f"{STATE}.{number:03d}")
        with new_file(paths[-1], "wb") as file:
            file.write(whole[start : start + MOST_BYTES])
    manifest = {
        "edition": _EDITION,
        "about": about,
        "step": going["progress"]["step"],
        "sha256": {path.name: _sha256(path.read_bytes()) for path in paths},
    }
    with new_file(folder / MANIFEST, "w") as file:
        file.write(json.dumps(manifest, indent=1) + "\n")
    return [*paths, folder / MANIFEST]


def read_parts(folder: Path, about: dict[str, Any]) -> Parts:
    """The parts in `folder`, once they are known to be whole and of this training.

    Raises:
        ZeroFlowError: no parts there, one is missing or altered, or they are of another training.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        edition, there, digests = manifest["edition"], manifest["about"], dict(manifest["sha256"])
        step = int(manifest["step"])
    except OSError as error:
        raise ZeroFlowError(f"cannot read {path}: {error.strerror or error}; give the folder of --parts") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ZeroFlowError(f"{path} is damaged; bring the parts again") from error
    if edition != _EDITION:
        raise ZeroFlowError(f"the parts in {folder} are of edition {edition}, this version reads {_EDITION}")
    unlike = differences(there, json.loads(json.dumps(about)))
    if unlike:
        raise ZeroFlowError(f"the parts in {folder} are of another training ({unlike})")
    contents = {}
    for name, digest in digests.items():
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise ZeroFlowError(f"{folder / name} can't be read ({error.strerror or error}); bring it again") from error
        if _sha256(contents[name]) != digest:
            raise ZeroFlowError(f"{folder / name} is not what it was when it was written; bring it again")
    return Parts(folder, step, b"".join(contents[name] for name in sorted(digests) if name != STUDENT))


def join_parts(parts: Parts, training: Path, pairs: list[str]) -> None:
    """Write the training's checkpoint to the folder `training`, to go on from.

    What the best epoch was so far stays behind: the best of those to come is taken.

    pairs: what tells the pairs learned from here, as in scene_flow.SceneFlow's identity. A GPU doesn't give labels that
           are the same to the bit, so they are others, to the bit, than where the training began

    Raises:
        ZeroFlowError: a number of pairs that is not as it was, or the file system refuses.
    """
    state = torch.load(io.BytesIO(parts.state), map_location="cpu", weights_only=True)
    identity = json.loads(state["identity"])
    before, here = ([one.partition(" ")[0] for one in told] for told in (identity["pairs"], pairs))
    if before != here:
        raise ZeroFlowError(
            f"the training in {parts.folder} learned from {', '.join(before)} pairs, and here are {', '.join(here)}; "
            "label the rest first"
        )
    model, _ = load_model(parts.folder / STUDENT)
    average = {f"{_PREFIX}{key}": value for key, value in model.state_dict().items()}
    progress = Progress(**{**state["progress"], "best": float("inf"), "unimproved": 0, "figures": {}})
    going = {
        "student": _restored(state["student"]),
        "optimiser": _restored(state["optimiser"]),
        "average": average,
        "identity": {**identity, "pairs": pairs},
    }
    save_state(training / LAST, average, state["metadata"], progress, going)


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    """The same with 16 bits a number where there are many; what there is one or a few hundred of stays as it is."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.ndim > 1 and value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _rounded(one, dtype) for key, one in value.items()}
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, dict):
        return {key: _restored(one) for key, one in value.items()}
    return value


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
