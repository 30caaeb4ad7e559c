# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The computer: its processors, its GPU, its memory, and sessions of ONNX Runtime on it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

_SILENT = 4
"""ONNX Runtime's level of what it writes to the console: what it logs of a broken file is in the exception too."""
_DRIVERS = ("/proc/driver/nvidia", "/dev/nvhost-gpu", "/dev/dxg")
"""What NVIDIA's driver leaves on a desktop, on a Jetson and under Windows' Linux."""


def nvidia_driver() -> bool:
    """Whether a library that could use the GPU is worth importing."""
    return any(Path(file).exists() for file in _DRIVERS)


def threads(wanted: int) -> int:
    """`wanted`; for 0 what OMP_NUM_THREADS says (Dask sets it for each of its workers), or all cores but one, at
    least one: with as many as cores a busy machine stalls the pool."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if not wanted and told.isdecimal() and int(told):
        return int(told)
    return wanted or max(1, (os.cpu_count() or 2) - 1)


def open_session(
    model: str | bytes, intra_op_threads: int = 1, arena: bool = True
) -> onnxruntime.InferenceSession:
    """A session on the CPU whose threads do not spin: between utterances that would cost a core.

    Args:
        model: path of the network, or what is in the file.
        arena: keep freed activations for the next run; without, memory is less and time a few percent more.

    Raises:
        Exception: one of ONNX Runtime's dozen, which share no other base.
    """
    import onnxruntime  # 20 MB, which asr_node with Whisper does not need

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def return_freed_memory() -> None:
    """Give the system what glibc keeps of it: loading a network converts its weights through temporaries, a third
    of what is resident then."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library
