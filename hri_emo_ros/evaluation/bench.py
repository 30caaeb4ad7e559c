# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo bench``: how fast a replay runs, what each stage costs, and that memory stays flat."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.audio.vad import SileroVad
from hri_emo_ros.data.clips import read_clip
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag, spoken
from hri_emo_ros.evaluation.bags import AudioBag, Sound
from hri_emo_ros.evaluation.replay import Parameters, Replayer
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import FloatArray
from hri_emo_ros.voices.memory import VoiceMemory

_FRAME = 512
TARGET_SPEED = 60.0
"""x real time on two cores, without a recogniser."""
TARGET_MEMORY = 600.0
"""MB, whatever the length of the bag."""
_REPEATS = 3
LENGTHS = (1.0, 3.0, 10.0, 30.0, 60.0)
"""Seconds of the utterances whose cost is listed."""


def bench(
    parameters: Parameters,
    manifest: Path,
    hours: float,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure; nothing is played, no node is started.

    Args:
        parameters: of every node; replays are without the recogniser whatever they say.
        manifest: clips that the synthetic recordings are made of.
        hours: length of the long recording.
        folder: where recordings are made; None takes a temporary one.
        say: called with each finding as a line of text.

    Returns:
        JSON: ``machine``, ``stages`` (medians of three), ``speed``, ``memory``.

    Raises:
        HriEmoError: a clip or the model cannot be loaded.
    """
    values: dict[str, dict[str, Value]] = {n: dict(own) for n, own in parameters.items()}
    values["asr_node"]["asr.backend"] = "none"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        recipe = BagRecipe(manifest, gap=(0.9, 1.5), noise="pink", snr_db=30.0, level_dbfs=-26.0)
        short = Path(name) / "short"
        once = make_bag(recipe, short)[-1].end
        replayer = Replayer(values)
        result: dict[str, Any] = {
            "model": replayer.engine.model_id,
            "runtime": replayer.engine.runtime.name,
            "stages": stages(replayer, short),
            "speed": speed(replayer, short),
            "by_length": by_length(replayer, make_recogniser(parameters["asr_node"]), short),
        }
        for stage, cost in result["stages"].items():
            say(f"{stage:<34} {cost['median']:>10.3f} {cost['unit']}")
        for cost in result["by_length"]:
            say(f"{'utterance of ' + format(cost['seconds'], 'g') + ' s':<34} "
                f"{cost['recogniser_ms']:>10.0f} ms recogniser, {cost['model_ms']:.0f} ms model")  # fmt: skip
        say(f"{'replay, ' + format(once, '.0f') + ' s':<34} {result['speed']['median']:>10.1f} x "
            f"real time (target {TARGET_SPEED:g})")  # fmt: skip
        say(f"{'the same per second of processor':<34} "
            f"{result['speed']['per_processor_second']:>10.1f} s of audio")  # fmt: skip
        repeats = max(1, round(hours * 3600 / once))
        say(f"making a recording of {repeats * once / 3600:.2f} h ...")
        long = Path(name) / "long"
        make_bag(replace(recipe, repeat=repeats, shuffle=True), long)
        result["memory"] = memory(replayer, long)
        for point in result["memory"]["points"]:
            say(f"{point['hours']:>10.2f} h {point['rss_mb']:>10.0f} MB")
        say(
            f"long replay: {result['memory']['hours']:.2f} h at {result['memory']['speed']:.0f} x real "
            f"time, {result['memory']['utterances']} utterances, peak "
            f"{result['memory']['peak_mb']:.0f} MB (target < {TARGET_MEMORY:g}), growth "
            f"{result['memory']['growth_mb_per_hour']:.1f} MB per hour"
        )
    return result


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "load": [round(value, 2) for value in psutil.getloadavg()],
        "python": platform.python_version(),
    }


def speed(replayer: Replayer, bag: Path) -> dict[str, Any]:
    """Whole replays of one bag, x real time."""
    found, busy = [], []
    for _ in range(_REPEATS):
        before = time.process_time()
        run = replayer.run(bag)
        busy.append(run.duration / (time.process_time() - before))
        found.append(run.duration / run.wall_time)
    return {
        "median": round(statistics.median(found), 2),
        "all": [round(v, 2) for v in found],
        # Seconds of sound for a second of processor time: what other programs do counts for less.
        "per_processor_second": round(statistics.median(busy), 2),
    }


def stages(replayer: Replayer, bag: Path) -> dict[str, dict[str, Any]]:
    """Cost of each stage by itself."""
    with AudioBag(bag) as audio:
        pcm = audio.format or PcmFormat(16_000)
        sounds = [sound for sound in audio.sounds() if isinstance(sound, Sound)]
    messages = [sound.message.data for sound in sounds]
    samples = np.concatenate([sound.frames[:, 0] for sound in sounds])
    seconds = len(samples) / pcm.sample_rate
    clips: list[FloatArray] = [
        samples[start : start + 48_000] for start in range(0, 480_000, 48_000)
    ]
    values = dict(replayer.parameters["speech_node"])

    def read() -> None:
        with AudioBag(bag) as audio:
            for _ in audio.messages():
                pass

    def detect() -> None:
        detector = SileroVad()
        for start in range(0, len(samples) - _FRAME + 1, _FRAME):
            detector.probability(samples[start : start + _FRAME])

    def hear(batch: int) -> None:
        front_end = AudioFrontEnd(values, batch=batch)
        front_end.set_format(pcm)
        for data in messages:
            front_end.push(data, None)
        front_end.flush()

    per_second = {
        "reading the bag": read,
        "voice detector alone, frame by frame": detect,
        "front end, frame by frame (live)": lambda: hear(1),
        "front end, 32 frames (replay)": lambda: hear(32),
    }
    result = {
        name: {**_timed(action, seconds), "unit": "ms per s of audio"}
        for name, action in per_second.items()
    }
    spoken = [clip for clip in clips if len(clip) == 48_000]

    def estimate() -> None:
        for clip in spoken:
            replayer.engine.estimate(clip)

    result["model, voice of 3 s"] = {**_timed(estimate, len(spoken)), "unit": "ms per utterance"}
    memory = VoiceMemory()
    for number in range(64):  # as many as are compared with one by one
        memory.identify(spoken[number % len(spoken)])

    def tell() -> None:
        for clip in spoken:
            memory.identify(clip)

    result["whose voice, of 3 s"] = {**_timed(tell, len(spoken)), "unit": "ms per utterance"}
    return result


def by_length(
    replayer: Replayer, recogniser: Recogniser | None, bag: Path
) -> list[dict[str, float]]:
    """What one utterance costs recogniser and model, by its length, ms; the words are not told."""
    with AudioBag(bag) as audio:
        pcm = audio.format or PcmFormat(16_000)
        sounds = [sound for sound in audio.sounds() if isinstance(sound, Sound)]
    heard = np.concatenate([sound.frames[:, 0] for sound in sounds])
    result = []
    for seconds in LENGTHS:
        samples = np.resize(heard, round(seconds * pcm.sample_rate))

        def recognise(samples: FloatArray = samples) -> None:
            if recogniser is not None:
                recogniser.transcribe(samples)

        def estimate(samples: FloatArray = samples) -> None:
            replayer.engine.estimate(
                samples.copy()
            )  # A copy: the engine knows what it has just heard.

        result.append(
            {
                "seconds": seconds,
                "recogniser_ms": _timed(recognise, 1.0)["median"],
                "model_ms": _timed(estimate, 1.0)["median"],
            }
        )
    return result


def _timed(action: Callable[[], None], units: float) -> dict[str, Any]:
    """Milliseconds per unit: median of three."""
    found = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        action()
        found.append((time.perf_counter() - started) * 1e3 / units)
    return {"median": round(statistics.median(found), 4), "all": [round(v, 4) for v in found]}


def memory(replayer: Replayer, bag: Path) -> dict[str, Any]:
    """Resident memory along a long replay; growth is fitted to its second half."""
    process = psutil.Process()
    points: list[dict[str, float]] = []
    last = 0.0

    def watch(done: float, total: float) -> None:
        nonlocal last
        if done >= last:
            last += total / 20
            rss = process.memory_info().rss / 2**20
            points.append({"hours": round(done / 3600, 4), "rss_mb": round(rss, 1)})

    run = replayer.run(bag, progress=watch)
    late = points[len(points) // 2 :]
    slope = 0.0
    if len(late) > 1:
        slope = float(np.polyfit([p["hours"] for p in late], [p["rss_mb"] for p in late], 1)[0])
    return {
        "hours": round(run.duration / 3600, 3),
        "speed": round(run.duration / run.wall_time, 2),
        "utterances": len(run.utterances),
        "peak_mb": max(p["rss_mb"] for p in points),
        "growth_mb_per_hour": round(slope, 2),
        "points": points,
    }


def check_clips(manifest: Path) -> None:
    """Raises HriEmoError now for a clip that would stop the bench later."""
    for clip in spoken(manifest):
        assert clip.path is not None
        read_clip(clip.path, 16_000, clip.start, clip.end)
