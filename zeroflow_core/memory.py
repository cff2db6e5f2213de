"""What a process does with memory that it has freed."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_memory(spare: int = 256 << 20) -> None:
    """Let glibc keep blocks for the next ones of their size, from here to the end of the process.

    Those of clouds and feature maps it would give back at once, and then be given others, page by page: that takes
    longer than to decode a cloud, and is a twentieth of a training step. Elsewhere than with glibc this does nothing.

    spare: bytes at the end of the heap that are kept at most; below 2 GiB
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes
    mallopt(_M_TRIM_THRESHOLD, spare)
