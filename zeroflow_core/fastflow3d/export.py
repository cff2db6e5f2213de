"""The student as a file for robots without Python: ONNX (onnxruntime, TensorRT) or TorchScript (libtorch).

ONNX is opset 20, the oldest with Gelu: onnxruntime ≥ 1.17, TensorRT ≥ 10. Inputs `pc0` and `pc1` are (capacity,3)
float32, padded with rows of NaN; output `flow` is (capacity,3) float32, metres per interval, NaN where there is none.
TorchScript takes (N0,3) and (N1,3) and gives (N0,3). It is what C++ loads as it is, with torch::jit::load, on any
processor and GPU: a program of torch.export must first be compiled on a machine like the one that will run it.

Both files carry the same metadata: metadata_props in ONNX, extra files in TorchScript.

TensorRT, by its documentation, untried: ONNX-TensorRT 10.0 lists opset 20 and every operator in the file. Sums over
pillars are ScatterElements with reduction `add`, a plugin of libnvinfer_plugin: trtexec loads it, a program calls
initLibNvInferPlugins. TF32 has to be off (trtexec --noTF32): it rounds positions' products to 10 bits.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.exportable import Exportable
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import Student
from zeroflow_core.files import new_file
from zeroflow_core.version import VERSION

OPSET = 20
TOLERANCE = 1e-4  # metres
_OLDEST_TORCH = "2.9"  # that writes ONNX as here; setup.cfg's extra says it, too
_POINTS_TO_CHECK = 20_000

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def export_onnx(
    out: Path, model: FastFlow3D, metadata: dict[str, Any], capacity: int, check: bool = True
) -> float | None:
    """Write the model as ONNX, complete or not at all.

    metadata: of the checkpoint, as load_model gives it
    capacity: rows of both clouds; whoever calls the network pads to it, and leaves points out where there are more
    check:    compare with the reference in onnxruntime, before anything is written

    Returns the largest difference from the reference's flow, metres; None without `check`.

    Raises:
        ZeroFlowError: a package is missing or too old, the check fails, or the file system refuses.
    """
    _need("onnx", "onnxscript", *(["onnxruntime"] if check else []))
    import onnx

    with _quiet():
        program = torch.onnx.export(
            Exportable(model),
            (torch.zeros(capacity, 3), torch.zeros(capacity, 3)),  # two: one tensor would become one input
            dynamo=True,
            opset_version=OPSET,
            input_names=["pc0", "pc1"],
            output_names=["flow"],
            verbose=False,
        )
    graph = program.model_proto
    for node in graph.graph.node:
        del node.metadata_props[:]  # where in whose source code it comes from
    onnx.helper.set_model_props(graph, describe(model.config, metadata) | {"capacity": str(capacity)})
    content = graph.SerializeToString()
    error = None
    if check:
        onnx.checker.check_model(content, full_check=True)
        error = _compare(_onnx_flow(content, capacity), model, min(capacity, _POINTS_TO_CHECK), f"{out} as ONNX")
    _write(out, content)
    return error


def export_torch(out: Path, model: FastFlow3D, metadata: dict[str, Any], check: bool = True) -> float | None:
    """Write the model as TorchScript, complete or not at all.

    metadata, check, returns, raises: as of `export_onnx`
    """
    file = io.BytesIO()
    with _quiet():
        traced = torch.jit.trace(Exportable(model), (torch.zeros(8, 3), torch.zeros(8, 3)), check_trace=False)
        torch.jit.save(traced, file, _extra_files=describe(model.config, metadata))
    content = file.getvalue()
    error = _compare(_torch_flow(content), model, _POINTS_TO_CHECK, f"{out} as TorchScript") if check else None
    _write(out, content)
    return error


def describe(config: FastFlow3DConfig, metadata: dict[str, Any]) -> dict[str, str]:
    """What a program needs to know of the network it loads: of lists and numbers, their JSON.

    name:        of the weights
    ground:      the ground rule they were trained with
    interval_s:  seconds between the sweeps they were trained with; the flow is per interval
    verify:      whether they are made for a check of what they say moves, which the file does not hold: true or false
    minimum, maximum, pillar_size: the grid, metres
    zeroflow:    the version that wrote the file
    """
    grid = {key: json.dumps(config.to_dict()[key]) for key in ("minimum", "maximum", "pillar_size")}
    weights = {"name": str(metadata["name"]), "ground": str(metadata["ground"])}
    weights |= {key: json.dumps(metadata.get(key, False)) for key in ("interval_s", "verify")}
    return {"zeroflow": VERSION, **weights, **grid}


def _onnx_flow(content: bytes, capacity: int) -> Flow:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def padded(cloud: np.ndarray) -> np.ndarray:
        rows = np.full((capacity, 3), np.nan, dtype=np.float32)
        rows[: len(cloud)] = cloud
        return rows

    def flow(pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        (rows,) = session.run(["flow"], {"pc0": padded(pc0), "pc1": padded(pc1)})
        return rows[: len(pc0)]

    return flow


def _torch_flow(content: bytes) -> Flow:
    with _quiet():
        loaded = torch.jit.load(io.BytesIO(content), map_location="cpu")

    def flow(pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        return loaded(torch.from_numpy(pc0), torch.from_numpy(pc1)).numpy()

    return flow


def _compare(flow: Flow, model: FastFlow3D, points: int, what: str) -> float:
    """The largest difference from the reference's flow on a made-up pair, metres."""
    pair = _pair(model.config, points)
    expected = Student(model, {}, "cpu").flow(*pair)
    found = flow(*pair)
    same = np.array_equal(np.isnan(found), np.isnan(expected))
    error = float(np.nanmax(np.abs(found - expected), initial=0.0))
    if not same or not error <= TOLERANCE:
        problem = f"flow differs by {error:.2g} m" if same else "other points have flow"
        raise ZeroFlowError(
            f"{what} does not do what the reference does ({problem}), so it was not written; this is a fault of "
            f"zeroflow {VERSION} with torch {torch.__version__} or of the runtime: please report it"
        )
    return error


def _pair(config: FastFlow3DConfig, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds, the first of `points` points: some at the pillars' very edges, outside, and not finite."""
    rng = np.random.default_rng(0)
    lower, upper = np.float32(config.minimum), np.float32(config.maximum)
    first = rng.uniform(1.05 * lower, 1.05 * upper, (points, 3)).astype(np.float32)
    second = first[::2] + rng.normal(0, config.pillar_size, (len(first[::2]), 3)).astype(np.float32)
    edges = first[1::3, :2]
    edges[:] = lower[:2] + np.round((edges - lower[:2]) / config.pillar_size) * np.float32(config.pillar_size)
    special = [lower, upper, [np.nan, 0, 0], [0, np.inf, 0], [-np.inf, 0, np.nan], 3 * upper]
    first[: len(special)] = np.float32(special)[:points]
    return first, second


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's advice to its own developers, which would hide what a command says."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _need(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    advice = "pip install 'zeroflow_ros[onnx]'"
    if missing:
        raise ZeroFlowError(f"writing ONNX needs packages that are not installed here ({', '.join(missing)}): {advice}")
    if torch.__version__ < f"{_OLDEST_TORCH}.dev0":  # NVIDIA's builds of 2.9 say 2.9.0a0
        raise ZeroFlowError(f"writing ONNX needs torch {_OLDEST_TORCH}, and here is {torch.__version__}: {advice}")


def _write(out: Path, content: bytes) -> None:
    with new_file(out, "wb") as file:
        file.write(content)
