"""
How the C library gives memory back while training runs.
"""

import ctypes
import platform
import sys


def keep_freed() -> None:
    """Ask glibc to keep freed memory: by default it returns large blocks to the kernel and page-faults them back in,
    every step anew. Nothing happens where the C library is another one."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
