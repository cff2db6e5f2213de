"""Weights on disk: published Lightning checkpoints and our own safetensors, both read as plain data only."""

from __future__ import annotations

import json
import pickle
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroflow_core.errors import ZeroFlowError, some
from zeroflow_core.fastflow3d.config import ONE_X, XL, FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.published import PUBLISHED, downloaded_file
from zeroflow_core.files import new_file

FORMAT_VERSION = 1
DEFAULT_CHECKPOINT = Path(__file__).parent.parent / "weights" / "default.safetensors"
_COMES_ALONG = "default"
NAMES = (_COMES_ALONG, *PUBLISHED)  # of checkpoints, for whoever takes a path or a name
_PREFIX = "model."  # of every network key in a Lightning checkpoint


def load_model(path: str | Path) -> tuple[FastFlow3D, dict[str, Any]]:
    """The network stored at `path`, in fp32 on the CPU, and its metadata.

    path: a Lightning ``.ckpt`` in the published layout, a ``.safetensors`` of ours, or a name (see `checkpoint_file`).
    The metadata holds at least ``name``, ``ground`` (the ground rule it was trained with) and
    ``interval_s`` (seconds between its sweeps); where ``verify`` is true, it is made for verification.flows.

    Raises:
        ZeroFlowError: no such file, damaged, foreign, or keys that do not fit the network.
    """
    path = checkpoint_file(path)
    state, metadata = _read(path)
    config = _config_of(state, metadata, path)
    model = FastFlow3D(config)
    _check_keys(model, state, path)
    model.load_state_dict({key: value.to(model.state_dict()[key].dtype) for key, value in state.items()})
    defaults = {"name": path.stem, "ground": "map", "interval_s": 0.1}  # those of the published weights
    return model.eval(), {**defaults, **metadata}


def checkpoint_file(path: str | Path) -> Path:
    """The file that `path` means: ``default`` is the one that comes along, and the name of a published checkpoint
    is the one downloaded, which is never done here. Anything else is a path.

    Raises:
        ZeroFlowError: a published checkpoint that is not downloaded yet, or was altered since.
    """
    name = str(path)
    if name == _COMES_ALONG:
        return DEFAULT_CHECKPOINT
    return downloaded_file(name) if name in PUBLISHED else Path(path).expanduser()


def save_model(path: str | Path, model: FastFlow3D, metadata: dict[str, Any], half: bool = False) -> None:
    """Write the weights (fp16 when `half`) with their plain-data ``zeroflow`` entry, complete or not at all.

    Raises:
        ZeroFlowError: the file system refuses.
    """
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    entry = {"format": FORMAT_VERSION, "grid": model.config.to_dict(), **metadata}
    with new_file(Path(path), "wb") as file:
        file.write(save(state, metadata={"zeroflow": json.dumps(entry)}))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict without prefix, and the ``zeroflow`` entry ({} where there is none)."""
    if not path.is_file():
        named = "" if path.suffix in (".ckpt", ".safetensors") else f", or one of: {', '.join(NAMES)}"
        raise ZeroFlowError(f"checkpoint {path}: no such file; give the path of a .ckpt or .safetensors file{named}")
    try:
        state, metadata = _read_safetensors(path) if path.suffix == ".safetensors" else _read_lightning(path)
    except ZeroFlowError:
        raise
    except Exception as error:  # torch and safetensors raise a dozen types for a damaged file
        raise ZeroFlowError(
            f"checkpoint {path}: cannot be read, it is truncated or not a checkpoint ({_first_line(error)})"
        ) from error
    if metadata.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise ZeroFlowError(
            f"checkpoint {path}: format {metadata['format']}, this version reads {FORMAT_VERSION}; update zeroflow"
        )
    return state, metadata


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        entry = json.loads((file.metadata() or {}).get("zeroflow", "{}"))
        state = {key.removeprefix(_PREFIX): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return state, entry


def _read_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Lightning files may carry callbacks and hyper-parameters of classes unknown here.
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_InertPickle)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ZeroFlowError(f"checkpoint {path}: not a Lightning checkpoint, it has no 'state_dict'")
    state = content["state_dict"]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise ZeroFlowError(f"checkpoint {path}: its 'state_dict' does not map names to tensors")
    entry = content.get("zeroflow", {})
    return {key.removeprefix(_PREFIX): value for key, value in state.items()}, entry


def _config_of(state: dict[str, Tensor], metadata: dict[str, Any], path: Path) -> FastFlow3DConfig:
    if "grid" in metadata:
        try:
            return FastFlow3DConfig(**metadata["grid"])
        except (TypeError, ValueError) as error:
            raise ZeroFlowError(f"checkpoint {path}: its 'zeroflow' entry is not usable ({error})") from error
    weight = state.get("embedder.feature_net.pfn_layers.0.0.weight")
    sizes = {(32, 9): ONE_X, (64, 9): XL}
    if weight is None or tuple(weight.shape) not in sizes:
        found = "is missing" if weight is None else f"has shape {tuple(weight.shape)}, not (32, 9) or (64, 9)"
        raise ZeroFlowError(
            f"checkpoint {path}: not FastFlow3D 1x or XL: 'embedder.feature_net.pfn_layers.0.0.weight' {found}"
        )
    return sizes[tuple(weight.shape)]


def _check_keys(model: FastFlow3D, state: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    problems = []
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    wrong = [key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape]
    if missing:
        problems.append(f"{len(missing)} keys are missing ({some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} keys are unknown ({some(unexpected)})")
    if wrong:
        shapes = [f"{k} is {tuple(state[k].shape)}, not {tuple(expected[k].shape)}" for k in sorted(wrong)]
        problems.append(f"{len(wrong)} have another shape ({some(shapes)})")
    if problems:
        raise ZeroFlowError(f"checkpoint {path}: does not fit FastFlow3D: " + "; ".join(problems))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


class _Inert:
    """Stands in for every class and function a checkpoint names beyond tensors; does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class _InertUnpickler(pickle.Unpickler):
    """Rebuilds tensors and plain containers and nothing else, so that no code of the file can run."""

    _ALLOWED = {
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._ALLOWED or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        return _Inert


_InertPickle = types.SimpleNamespace(
    __name__="pickle", Unpickler=_InertUnpickler, load=pickle.load, UnpicklingError=pickle.UnpicklingError
)
