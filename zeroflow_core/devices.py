"""The device that torch computes on, from what a user asked for."""

from __future__ import annotations

import torch

from zeroflow_core.errors import ZeroFlowError


def choose_device(device: str) -> str:
    """``auto`` resolved to a device of this machine, any other name checked.

    Raises:
        ZeroFlowError: an unknown name, or CUDA asked for where torch sees none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise ZeroFlowError(f"device '{device}' is unknown; choose auto, cpu, cuda or cuda:n") from error
    if parsed.type not in ("cpu", "cuda"):
        raise ZeroFlowError(f"device '{device}' is not supported; choose auto, cpu, cuda or cuda:n")
    if parsed.type == "cuda" and (not torch.cuda.is_available() or (parsed.index or 0) >= torch.cuda.device_count()):
        raise ZeroFlowError(
            f"device '{device}' was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices; use device cpu or install a CUDA build of torch (zeroflow doctor shows what is there)"
        )
    return device
