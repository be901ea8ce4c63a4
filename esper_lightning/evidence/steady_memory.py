"""Making equal programs take equal time: memory that is freed stays with the process."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST_MMAP_THRESHOLD = 32 * 1024**2
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library to hand nothing back to the system, and to keep one heap for all threads.

    Otherwise it depends on the order of allocations whether a tensor of a megabyte is new pages
    each time or the last one's place, and two equal loops in two threads differ by a tenth.
    Holds for the rest of the process; call it before the first large tensor. For benchmarks only.

    Returns:
        Whether the C library is glibc and took it; with any other nothing is done.

    Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        _ARENA_MAX: 1,
        _MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD,
        _TRIM_THRESHOLD: _NEVER,
    }
    return all(mallopt(name, value) == 1 for name, value in settings.items())
