"""The student as everybody calls it: two clouds in, flow out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from zeroflow_core.devices import choose_device
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.checkpoint import load_model
from zeroflow_core.fastflow3d.model import FastFlow3D

ENGINES = ("reference",)
PRECISIONS = ("auto", "fp32", "bf16")


class Student:
    """A FastFlow3D ready for inference on one device.

    device:    'cpu' or 'cuda[:n]'
    precision: 'fp32' or 'bf16'
    metadata:  plain data of the checkpoint: name, ground rule, interval_s, …
    """

    def __init__(self, model: FastFlow3D, metadata: dict[str, Any], device: str, precision: str = "fp32") -> None:
        self.model = model.eval().to(device)
        self.metadata = metadata
        self.device = device
        self.precision = precision

    def flow(self, pc0: np.ndarray | torch.Tensor, pc1: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """Residual flow of pc0's points towards pc1, both clouds in one frame and without ground.

        pc0, pc1: (N0,3) and (N1,3), metres. No limit on the number of points.
        Returns (N0,3) float32 in metres per sweep interval, NaN for points outside the grid or not finite;
        an array for an array, a tensor (on the student's device) for a tensor.

        Raises:
            ValueError: a cloud that is not (N,3).
        """
        clouds = [self._to_device(pc0, "pc0"), self._to_device(pc1, "pc1")]
        flow = torch.full((len(clouds[0]), 3), torch.nan, device=self.device)
        # cuDNN otherwise rounds fp32 convolutions to tf32, and parity is lost.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            ((estimate, index),) = self.model([clouds[0]], [clouds[1]], bf16=self.precision == "bf16")
            flow[index] = estimate
        return flow if isinstance(pc0, torch.Tensor) else flow.cpu().numpy()

    def _to_device(self, cloud: np.ndarray | torch.Tensor, name: str) -> torch.Tensor:
        if cloud.ndim != 2 or cloud.shape[1] != 3:
            raise ValueError(f"{name} must be (N, 3), got {tuple(cloud.shape)}")
        if isinstance(cloud, np.ndarray):
            cloud = torch.from_numpy(np.ascontiguousarray(cloud, dtype=np.float32))
        return cloud.to(self.device, torch.float32)


def load_student(
    path: str | Path = "default", device: str = "auto", engine: str = "reference", precision: str = "auto"
) -> Student:
    """The student stored at `path` (a ``.ckpt``, a ``.safetensors`` or ``default``), ready on `device`.

    device:    ``auto`` (CUDA where there is a GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:n``
    engine:    ``reference``: plain modules, the ones that train
    precision: ``fp32``, ``bf16`` (convolutions in bfloat16) or ``auto`` (fp32)

    Raises:
        ZeroFlowError: a checkpoint that cannot be used (see load_model), or a device that is not there.
    """
    if engine not in ENGINES:
        raise ZeroFlowError(f"engine '{engine}' does not exist yet; choose one of: {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise ZeroFlowError(f"precision '{precision}' is unknown; choose one of: {', '.join(PRECISIONS)}")
    device = choose_device(device)
    model, metadata = load_model(path)
    return Student(model, metadata, device, "fp32" if precision == "auto" else precision)
