"""`zeroflow export`: the student as a file that runs without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroflow_core.cli.options import check_file
from zeroflow_core.errors import ZeroFlowError

_CAPACITY = 120_000  # above what one sweep of Argoverse 2 or KITTI has
_NAMES = {"onnx": "ONNX", "torch": "TorchScript"}


def export(
    checkpoint: Annotated[str, typer.Argument(help="A .ckpt or .safetensors file, 'default', or a published name.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[str, typer.Option(help="onnx (onnxruntime, TensorRT) or torch (TorchScript).")] = "onnx",
    points: Annotated[
        int | None,
        typer.Option(min=1, help=f"For onnx: rows of each cloud; else {_CAPACITY}.", show_default=False),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Before writing, run what is to be written and compare it with the reference.")
    ] = True,
) -> None:
    """Write the student as one file for robots that run without Python: two clouds in, flow out.

    ONNX has a fixed number of points: pad both clouds with rows of NaN up to
    it, and leave points out of larger ones. TorchScript takes any number.

    Example: zeroflow export default --format onnx --out student.onnx --points 100000
    """
    from zeroflow_core.fastflow3d.checkpoint import load_model
    from zeroflow_core.fastflow3d.export import export_onnx, export_torch

    if format not in _NAMES:
        raise ZeroFlowError(f"--format {format} is unknown; choose one of: {', '.join(_NAMES)}")
    if points is not None and format == "torch":
        raise ZeroFlowError("--points is for --format onnx; TorchScript takes any number of points")
    check_file(out, "student.onnx" if format == "onnx" else "student.pt")
    model, metadata = load_model(checkpoint)
    if format == "onnx":
        capacity = points or _CAPACITY
        error = export_onnx(out, model, metadata, capacity, check)
        rows = f"clouds of {capacity} rows"
    else:
        error = export_torch(out, model, metadata, check)
        rows = "clouds of any size"
    said = "not checked" if error is None else f"within {error:.1g} m of the reference"
    size = out.stat().st_size / 1e6
    print(f"{out}: {metadata['name']} as {_NAMES[format]}, {size:.1f} MB, {rows}, {said}")
