# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""How the C library hands out memory to a training process."""

from __future__ import annotations

import ctypes


def tune_allocator() -> None:
    """Keep freed memory in the process where the C library is glibc.

    By default every large activation is a fresh mapping whose pages the kernel must clear; on the
    CPU that made a training step of the compact encoder 1.6 times slower.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
    mallopt(m_top_pad, 2**28)
