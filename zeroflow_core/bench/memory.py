"""How much memory a piece of work takes, on the CPU or a GPU."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class PeakMemory:
    """How much more memory is taken than when this was made, at the worst moment: by the process, or on a GPU by its
    tensors there.

    Not by getrusage: its maximum begins with that of the process that started this one.
    """

    def __init__(self, device: str) -> None:
        """device: cpu, cuda or cuda:n"""
        self._device = device
        if device != "cpu":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
            return
        with suppress(OSError):  # else the maximum is that since the process began
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _resident("VmRSS")

    def taken(self) -> int | None:
        """Bytes; None where the system does not tell."""
        if self._device != "cpu":
            import torch

            return torch.cuda.max_memory_allocated(self._device) - self._before
        peak = _resident("VmHWM")
        return None if peak is None or self._before is None else max(0, peak - self._before)


def _resident(name: str) -> int | None:
    """Bytes of memory of this process, by the kernel's name for them."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), None)
