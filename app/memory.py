"""
Memory that a process holds and no longer needs, given back to the system. What a system can't do is left undone.
"""

import contextlib
import ctypes
from pathlib import Path

MADV_DONTNEED = 4


def give_back_heap() -> None:
    """What is free and kept by the C library (glibc): some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def give_back_code(library: str) -> None:
    """Pages with code of a library whose file is called so. They are read from the file again where they are needed;
    code isn't written to, so nothing is lost (madvise(2), Linux)."""
    with contextlib.suppress(OSError):
        advise = ctypes.CDLL(None).madvise
        for mapping in Path("/proc/self/maps").read_text().splitlines():
            if mapping.split()[1] == "r-xp" and Path(mapping).name == library:
                first, last = (int(address, 16) for address in mapping.split()[0].split("-"))
                advise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), MADV_DONTNEED)
