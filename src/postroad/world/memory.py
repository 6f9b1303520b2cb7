"""Sets glibc's malloc up for a process that reads into buffers of 256 KiB (mallopt(3)).

glibc maps an allocation above M_MMAP_THRESHOLD on its own and unmaps it when it is freed, and gives the top of the heap
back above M_TRIM_THRESHOLD: with the default of 128 KiB each read of a socket then costs a mapping, its page faults and
an unmapping. Setting either of the two also ends glibc's own adjustment of both, hence both are set.

Call it once, early in the life of a worker. If the C library has no mallopt (musl, macOS), it does nothing, and says
so. It never fails.
"""

from __future__ import annotations

import ctypes
from typing import Annotated, Final

import msgspec
from msgspec import Meta

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
MMAP_THRESHOLD_MAX: Final = 32 * 1024 * 1024  # HEAP_MAX / 2 on 64 bits; glibc refuses more


class MemoryOptions(msgspec.Struct, frozen=True):
    """What is freed above `trim_threshold` goes back to the system."""

    mmap_threshold: Annotated[
        int,
        Meta(
            ge=0,
            le=MMAP_THRESHOLD_MAX,
            description="M_MMAP_THRESHOLD of mallopt(3). 0: glibc's default.",
        ),
    ] = 4 * 1024 * 1024
    trim_threshold: Annotated[
        int,
        Meta(
            ge=0,
            description="M_TRIM_THRESHOLD of mallopt(3). 0: glibc's default.",
        ),
    ] = 32 * 1024 * 1024


def tune_malloc(options: MemoryOptions) -> bool:
    """Set both thresholds for this process. Whether the C library took them."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    mmap_threshold = min(options.mmap_threshold, MMAP_THRESHOLD_MAX)
    mapped = not mmap_threshold or mallopt(_M_MMAP_THRESHOLD, mmap_threshold) == 1
    trimmed = not options.trim_threshold or mallopt(_M_TRIM_THRESHOLD, options.trim_threshold) == 1
    return mapped and trimmed
