"""The student as everybody calls it: two clouds in, flow out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zeroflow_core.devices import choose_device, choose_precision
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.checkpoint import load_model
from zeroflow_core.fastflow3d.engine import Engine
from zeroflow_core.fastflow3d.engine.fold import dense_macs
from zeroflow_core.fastflow3d.model import FastFlow3D

ENGINES = ("fast", "reference")


class Student:
    """A FastFlow3D ready for inference on one device.

    device:    'cpu' or 'cuda[:n]'
    precision: 'fp32' or 'bf16'
    engine:    'fast' (zeroflow_core.fastflow3d.engine) or 'reference': the modules as they are
    metadata:  plain data of the checkpoint: name, ground rule, interval_s, …
    network:   what computes. A fast one has weights of its own, taken from the model now, and can't be copied or
               pickled; the reference computes with the model itself, which is put on the device and in eval mode.

    Raises:
        ValueError: an unknown engine or precision.
        ZeroFlowError: the fast engine needs something that is not there.
    """

    def __init__(
        self,
        model: FastFlow3D,
        metadata: dict[str, Any],
        device: str,
        precision: str = "fp32",
        engine: str = "reference",
    ) -> None:
        if engine not in ENGINES or precision not in ("fp32", "bf16"):
            raise ValueError(f"engine '{engine}' and precision '{precision}': one of {ENGINES}, and fp32 or bf16")
        self.model = model.eval().to(device) if engine == "reference" else model
        self.metadata = metadata
        self.device = device
        self.precision = precision
        self.engine = engine
        self.network: Engine = _engine(engine, device)(self.model, precision, device)

    def flow(self, pc0: np.ndarray | torch.Tensor, pc1: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """Residual flow of pc0's points towards pc1, both clouds in one frame and without ground.

        pc0, pc1: (N0,3) and (N1,3), metres. No limit on the number of points.
        Returns (N0,3) float32 in metres per sweep interval, NaN for points outside the grid or not finite;
        an array for an array, a tensor (on the student's device) for a tensor.

        Raises:
            ValueError: a cloud that is not (N,3).
        """
        for cloud, name in ((pc0, "pc0"), (pc1, "pc1")):
            if cloud.ndim != 2 or cloud.shape[1] != 3:
                raise ValueError(f"{name} must be (N, 3), got {tuple(cloud.shape)}")
        return self.network.flow(pc0, pc1)


class Reference:
    """The modules as they are, which are the ones that train."""

    keeps_clouds = False
    bytes_moved = None

    def __init__(self, model: FastFlow3D, precision: str, device: str) -> None:
        """precision: 'fp32', or 'bf16': convolutions in bfloat16, or, where the device lacks that, rounded to it"""
        by_rounding = precision == "bf16" and choose_precision("auto", device) != "bf16"
        self._model = rounding_products(model) if by_rounding else model
        self._bf16 = precision == "bf16" and not by_rounding
        self._device = device

    def flow(self, pc0: np.ndarray | torch.Tensor, pc1: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """As Student.flow."""
        clouds = [self._to_device(pc0), self._to_device(pc1)]
        flow = torch.full((len(clouds[0]), 3), torch.nan, device=self._device)
        # cuDNN otherwise rounds fp32 convolutions to tf32, and parity is lost.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            ((estimate, index),) = self._model([clouds[0]], [clouds[1]], bf16=self._bf16)
            flow[index] = estimate
        return flow if isinstance(pc0, torch.Tensor) else flow.cpu().numpy()

    def _to_device(self, cloud: np.ndarray | torch.Tensor) -> torch.Tensor:
        if isinstance(cloud, np.ndarray):
            cloud = torch.from_numpy(np.ascontiguousarray(cloud, dtype=np.float32))
        return cloud.to(self._device, torch.float32)

    @property
    def flops(self) -> int:
        """Floating-point operations of a call's convolutions."""
        return 2 * dense_macs(self._model.config)


def load_student(
    path: str | Path = "default", device: str = "auto", engine: str = "fast", precision: str = "auto"
) -> Student:
    """The student stored at `path` (a ``.ckpt``, a ``.safetensors`` or ``default``), ready on `device`.

    device:    ``auto`` (CUDA where there is a GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:n``
    engine:    ``fast``, or ``reference``: plain modules, the ones that train
    precision: ``fp32``, ``bf16`` (factors of products in bfloat16) or ``auto``: what the checkpoint's metadata names as
               ``precision``, else for the fast engine bf16 where the device multiplies it, else fp32

    Raises:
        ZeroFlowError: a checkpoint that cannot be used (see load_model), or a device that is not there.
    """
    if engine not in ENGINES:
        raise ZeroFlowError(f"engine '{engine}' is unknown; choose one of: {', '.join(ENGINES)}")
    device = choose_device(device)
    choose_precision(precision, device)  # an unknown one shows before the work
    model, metadata = load_model(path)
    if precision == "auto":
        precision = "fp32" if engine == "reference" else metadata.get("precision", "auto")
    return Student(model, metadata, device, choose_precision(precision, device), engine)


def rounding_products(model: FastFlow3D) -> FastFlow3D:
    """The same in float32 with what convolutions multiply, and what comes out, rounded to bfloat16. Products are as in
    bfloat16 then; a CPU that lacks it takes minutes for those, as torch does them one by one."""

    def rounded(values: torch.Tensor) -> torch.Tensor:
        return values.bfloat16().float()

    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            with torch.no_grad():
                module.weight.copy_(rounded(module.weight))
            module.register_forward_pre_hook(lambda _, inputs: tuple(map(rounded, inputs)))
            module.register_forward_hook(lambda _, inputs, output: rounded(output))
    return model


def _engine(engine: str, device: str) -> type[Engine]:
    # numba and triton take a second to import: only where they are used.
    if engine == "reference":
        return Reference
    if torch.device(device).type == "cuda":
        from zeroflow_core.fastflow3d.engine.cuda.engine import CudaEngine

        return CudaEngine
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise ZeroFlowError(
            f"the fast engine needs numba on a CPU, which can't be loaded ({error}); pip install --upgrade numba, or "
            "take engine reference"
        ) from error
    from zeroflow_core.fastflow3d.engine.cpu.engine import CpuEngine

    return CpuEngine
