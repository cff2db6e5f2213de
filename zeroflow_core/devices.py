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
    if parsed.type == "cpu":
        return "cpu"
    if not torch.cuda.is_available() or (parsed.index or 0) >= torch.cuda.device_count():
        raise ZeroFlowError(
            f"device '{device}' was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices; use device cpu or install a CUDA build of torch (zeroflow doctor shows what is there)"
        )
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what an exception tells.

    Torch has a class for its own memory on a GPU; for the CPU's, and for what libraries want, only sentences.
    """
    signs = "can't allocate memory", "out of memory", "ALLOC_FAILED"
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in str(error) for sign in signs)


PRECISIONS = ("auto", "fp32", "bf16")


def choose_precision(precision: str, device: str) -> str:
    """``auto`` resolved to ``bf16`` where the device multiplies matrices of it, else to ``fp32``; others checked.

    It does on GPUs since Ampere, and on x86 processors with AVX-512 BF16 or AMX. On Arm ``auto`` is ``fp32``. Asked for
    by name on a CPU without such instructions, ``bf16`` works, but more slowly than ``fp32``.

    Raises:
        ZeroFlowError: an unknown name.
    """
    if precision not in PRECISIONS:
        raise ZeroFlowError(f"precision '{precision}' is unknown; choose one of: {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, name, lambda: False)() for name in known) else "fp32"
