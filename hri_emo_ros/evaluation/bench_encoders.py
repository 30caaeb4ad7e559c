# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The encoders' part of ``hri-emo bench``: encoders of a real size, exported, against the structure that came before.

Their weights are random: what a pass costs does not depend on them, and what 8-bit integers cost in accuracy cannot
be told. The reference is that of `bench_live`, executed by torch as it was: after the pause it recognises the
utterance padded to 10 s, encodes the voice, encodes the words and classifies. The nodes recognise and encode the
voice as it is, in two processes, from `segment.endpoint` on; words and fusion follow, and when the pause is over
the answer stands if that was enough. Each part is timed by itself, in turn, clip by clip, and the answer's time
reckoned from the parts: with a core for each process, and no provisional state under way when speech ends
(`provisional.period` as long as the utterances).
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros.asr import make_recogniser
from hri_emo_ros.data.clips import read_clip
from hri_emo_ros.engine import EmotionEngine
from hri_emo_ros.evaluation.bag_make import spoken
from hri_emo_ros.evaluation.replay import Parameters
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, Transcript

PADDED_SECONDS = 10.0
"""To which the reference pads every utterance."""
LENGTHS = (1.0, 3.0, 5.0, 10.0)
"""Seconds of the voices whose cost is listed."""
_GOOD = SignalQuality(snr_db=20.0, level_dbfs=-25.0, clipped_fraction=0.0, speech_fraction=1.0)


def bench_encoders(
    config: ModelConfig,
    parameters: Parameters,
    manifest: Path,
    rounds: int = 3,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Make a bundle of random weights, export it with and without 8-bit integers, and measure.

    Args:
        config: the network; its encoders name no folder (`cli.dry_run.random_encoder`).
        parameters: of every node; model.bundle and model.runtime are not read.
        manifest: clips that are estimated.
        rounds: how often each part of each clip is timed; medians count.
        folder: where the bundle is made; None takes a temporary one.
        say: called with each finding as a line of text.

    Returns:
        JSON: ``bundle_mb``, ``by_length`` (ms of the voice encoder), and ``answer`` (seconds from the end of speech,
        medians over the clips, and how many times the reference takes as long).

    Raises:
        HriEmoError: a clip or the recogniser cannot be read.
    """
    clips = [
        (read_clip(row.path, SAMPLE_RATE, row.start, row.end), Transcript(row.text))
        for row in spoken(manifest)
        if row.path is not None
    ]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        plain, int8 = _bundles(config, [words.text for _, words in clips], Path(name))
        size = sum(file.stat().st_size for file in plain.iterdir()) / 1e6
        say(f"random weights: {size:.0f} MB on disk, half precision")
        threads = int(parameters["emotion_node"]["model.threads"])
        engines = {
            "torch": EmotionEngine(plain, threads=threads, runtime="torch"),
            "onnx": EmotionEngine(plain, threads=threads, runtime="onnx"),
            "onnx, int8": EmotionEngine(int8, threads=threads, runtime="onnx"),
        }
        for engine in engines.values():
            engine.warm_up(passes=1)
        result: dict[str, Any] = {"bundle_mb": round(size, 1)}
        result["by_length"] = _by_length(engines, np.concatenate([c for c, _ in clips]), rounds)
        for row in result["by_length"]:
            costs = ", ".join(f"{name} {row[name]:.0f} ms" for name in engines)
            say(f"voice of {row['seconds']:g} s: {costs}")
        result["answer"] = _answer(engines, parameters, clips, rounds)
        for name, found in result["answer"].items():
            say(
                f"{name}: end of speech to the answer {found['after_speech_s']:.2f} s, pause over to the answer "
                f"{found['after_pause_s']:.2f} s; the reference takes {found['ratio']:.1f} times as long"
            )
    return result


def _bundles(config: ModelConfig, texts: list[str], folder: Path) -> tuple[Path, Path]:
    """The same random weights with exact and with 8-bit graphs."""
    from hri_emo_ros.model.bundle import Bundle, save_bundle
    from hri_emo_ros.model.calibration import Calibration
    from hri_emo_ros.model.export import export_bundle
    from hri_emo_ros.model.network import EmotionModel
    from hri_emo_ros.model.tokenizer import train_tokenizer

    bundle = Bundle(
        model=EmotionModel(config, seed=0).eval(),
        tokenizer=train_tokenizer(texts, 300),
        calibration=Calibration.identity(len(config.labels)),
        name="random",
    )
    plain, int8 = save_bundle(bundle, folder / "plain"), folder / "int8"
    int8.mkdir()
    for file in plain.iterdir():  # The weights are half a gigabyte.
        (os.link if file.suffix == ".safetensors" else shutil.copy)(file, int8 / file.name)
    export_bundle(plain)
    export_bundle(int8, int8=True)
    return plain, int8


def _by_length(
    engines: dict[str, EmotionEngine], heard: FloatArray, rounds: int
) -> list[dict[str, float]]:
    """Milliseconds of the voice encoder."""
    rows = []
    for seconds in LENGTHS:
        samples = np.resize(heard, round(seconds * SAMPLE_RATE))
        found: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(rounds):
            for name, engine in engines.items():
                found[name].append(_seconds(engine, samples.copy()))
        medians = {name: round(statistics.median(v) * 1e3, 1) for name, v in found.items()}
        rows.append({"seconds": seconds, **medians})
    return rows


def _answer(
    engines: dict[str, EmotionEngine],
    parameters: Parameters,
    clips: list[tuple[FloatArray, Transcript]],
    rounds: int,
) -> dict[str, dict[str, float]]:
    speech = parameters["speech_node"]
    pause, endpoint = float(speech["segment.pause"]), float(speech["segment.endpoint"])
    recogniser = make_recogniser(parameters["asr_node"])

    def recognise(samples: FloatArray) -> float:
        started = time.perf_counter()
        if recogniser is not None:
            recogniser.transcribe(samples)
        return time.perf_counter() - started

    ours = [name for name in engines if name != "torch"]
    found: dict[str, list[float]] = {name: [] for name in engines}
    for samples, words in clips:
        padded = np.zeros(max(len(samples), round(PADDED_SECONDS * SAMPLE_RATE)), np.float32)
        padded[: len(samples)] = samples
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(rounds):
            after = recognise(padded) + _seconds(engines["torch"], padded.copy(), words)
            times["torch"].append(pause + after)
            for name in ours:
                heard = samples.copy()
                both = max(recognise(heard), _seconds(engines[name], heard))
                rest = _seconds(engines[name], heard, words)
                times[name].append(max(pause, endpoint + both + rest))
        for name, values in times.items():
            found[name].append(statistics.median(values))
    reference = statistics.median(found["torch"])
    result = {"reference, torch": _row(reference, reference, pause)}
    for name in ours:
        result[name] = _row(statistics.median(found[name]), reference, pause)
    return result


def _row(seconds: float, reference: float, pause: float) -> dict[str, float]:
    return {
        "after_speech_s": round(seconds, 3),
        "after_pause_s": round(seconds - pause, 3),
        "ratio": round(reference / seconds, 2),
    }


def _seconds(engine: EmotionEngine, samples: FloatArray, words: Transcript | None = None) -> float:
    """What an estimate takes: of the array that was estimated last, words and fusion alone; of a copy, all."""
    started = time.perf_counter()
    engine.estimate(samples, words, _GOOD)
    return time.perf_counter() - started
