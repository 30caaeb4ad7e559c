# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo bench --part gpu``: one utterance at a time on a CUDA device, against torch's eager mode, against this
machine's CPU and against what the device could do at best."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hri_emo_ros.engine import EmotionEngine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.bundle import Bundle, load_bundle
from hri_emo_ros.model.torch_runtime import TorchRuntime
from hri_emo_ros.types import SAMPLE_RATE, SignalQuality, Transcript

LENGTHS = (1.0, 3.0, 5.0, 10.0)
"""Seconds of speech."""
ROUNDS, CALLS = 5, 20
"""Rounds alternate between what is compared; each is so many estimates."""
WORDS_PER_SECOND = 2.5
_MATRIX, _COPY = 4096, 1 << 28
"""Size of the products and bytes of the copies that measure the device."""


@dataclass
class GpuRow:
    """One length of utterance; times in milliseconds, medians over all rounds."""

    seconds: float
    ours: float
    eager: float
    floor_bytes: float
    """Reading every weight once at the device's measured rate of copying."""
    floor_operations: float
    """The encoders' multiplications and additions at the measured rate of TF32 products."""


@dataclass
class GpuReport:
    """What `measure` found."""

    device: str
    rows: list[GpuRow]
    load_seconds: float
    """Making the runtime, with all its recordings."""
    weights_mb: float
    allocated_mb: float
    """Of tensors at the peak: weights, recordings, activations."""
    used_mb: float
    """Of the device's memory, with what torch keeps beside it; CUDA's own context, some 500 MB, was there before."""

    def describe(self) -> str:
        """Text for the console."""
        lines = [
            f"{self.device}: loaded in {self.load_seconds:.1f} s; weights {self.weights_mb:.0f} MB, all "
            f"tensors at the peak {self.allocated_mb:.0f} MB, kept from the device {self.used_mb:.0f} MB",
            "speech  p50     eager   ratio  floor: bytes  operations",
        ]
        lines += [
            f"{r.seconds:4.0f} s  {r.ours:5.2f} ms {r.eager:5.2f} ms {r.eager / r.ours:5.1f}  "
            f"{r.floor_bytes:9.3f} ms {r.floor_operations:8.3f} ms"
            for r in self.rows
        ]
        return "\n".join(lines)


def measure(bundle: str | Bundle = "") -> GpuReport:
    """Compare recorded kernels with eager ones.

    Args:
        bundle: see `load_bundle`.

    Raises:
        HriEmoError: there is no CUDA device, or the bundle cannot be loaded.
    """
    if not torch.cuda.is_available():
        raise HriEmoError("torch finds no CUDA device: `hri-emo bench --part gpu` needs one")
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    twin = replace(loaded, model=copy.deepcopy(loaded.model))
    rate_of_copies, rate_of_products = _device_rates()
    torch.cuda.empty_cache()
    before, weights = _used(), sum(p.numel() * p.element_size() for p in twin.model.parameters())
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    ours = EmotionEngine(loaded, "cuda")
    load_seconds = time.perf_counter() - started
    _once(ours, loaded.config.max_audio_seconds, 0)
    peak, used = torch.cuda.max_memory_allocated(), _used() - before
    eager = EmotionEngine(twin, "cpu")
    eager.runtime = TorchRuntime(twin.model, "cuda", 1, record=False)
    rows = []
    for seconds in LENGTHS:
        times: dict[str, list[float]] = {"eager": [], "ours": []}
        for engine in (eager, ours):
            _once(engine, seconds, 0)
        for number in range(ROUNDS):
            for name, engine in (("eager", eager), ("ours", ours)):
                times[name] += [_once(engine, seconds, number * CALLS + k) for k in range(CALLS)]
        with FlopCounterMode(display=False) as counter:
            _once(eager, seconds, 0)
        rows.append(
            GpuRow(
                seconds,
                1e3 * statistics.median(times["ours"]),
                1e3 * statistics.median(times["eager"]),
                1e3 * weights / rate_of_copies,
                1e3 * counter.get_total_flops() / rate_of_products,
            )
        )
    name = torch.cuda.get_device_name()
    return GpuReport(name, rows, load_seconds, weights / 1e6, peak / 1e6, used / 1e6)


def _used() -> float:
    free, total = torch.cuda.mem_get_info()
    return float(total - free)


def _once(engine: EmotionEngine, seconds: float, seed: int) -> float:
    """Seconds that one estimate takes, from samples in memory to the answer in memory."""
    rng = np.random.default_rng(seed)
    samples = (0.1 * rng.standard_normal(int(seconds * SAMPLE_RATE))).astype(np.float32)
    words = Transcript(" ".join(["word"] * max(1, round(WORDS_PER_SECOND * seconds))))
    quality = SignalQuality(20.0, -26.0, 0.0, 0.9)
    started = time.perf_counter()
    engine.estimate(samples, words, quality)
    return time.perf_counter() - started


def _device_rates() -> tuple[float, float]:
    """Bytes a second that a copy reads, and operations a second of TF32 matrix products."""
    source = torch.empty(_COPY, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    a = torch.randn(_MATRIX, _MATRIX, device="cuda")
    copies = _device_seconds(lambda: target.copy_(source))
    products = _device_seconds(lambda: a @ a)
    return _COPY / copies, 2 * _MATRIX**3 / products


def _device_seconds(call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(10):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e4
