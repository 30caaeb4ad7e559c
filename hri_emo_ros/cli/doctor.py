# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo doctor``: whether the nodes would start here, and with what."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

import hri_emo_ros
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import load_parameters

LIBRARIES = ("numpy", "onnxruntime", "torch", "faster-whisper", "ctranslate2", "moonshine-voice")
"""Whose versions decide what works."""


@dataclass(frozen=True)
class Finding:
    """One row."""

    part: str
    found: str = ""
    problem: str = ""
    """With its remedy; empty where all is well."""
    needed: bool = True
    """The nodes do not start without it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--params", type=Path, metavar="FILE.yaml", help="parameters of the nodes, as for launch"
    )


def run(args: argparse.Namespace) -> int:
    """Print what is found; 0 exactly if the nodes would start."""
    findings = examine(args.params)
    table = Table(title_justify="left", show_header=False, pad_edge=False, box=None)
    table.add_column(width=2)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        style = "red" if finding.needed else "yellow"
        mark = Text("!", style=style) if finding.problem else Text("✓", style="green")
        table.add_row(
            mark,
            finding.part,
            Text(finding.problem, style) if finding.problem else Text(finding.found),
        )
    console = Console()
    console.print(table)
    missing = [f.part for f in findings if f.problem and f.needed]
    console.print(
        Text(f"The nodes would not start: {', '.join(missing)}", "red")
        if missing
        else Text("The nodes would start.", "green")
    )
    return 1 if missing else 0


def examine(params: Path | None) -> list[Finding]:
    """Make everything that the nodes make when they are configured.

    Args:
        params: ROS parameter file; None takes the defaults.

    Raises:
        HriEmoError: the file cannot be read, or a name or value in it is refused.
    """
    values = load_parameters(params)
    speech, asr, emotion = (values[f"{node}_node"] for node in ("speech", "asr", "emotion"))
    return [
        Finding("hri-emo", f"{hri_emo_ros.__version__}, Python {platform.python_version()}"),
        Finding("libraries", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)),
        Finding("parameters", str(params) if params else "the defaults"),
        _look("ROS 2", _ros),
        _look("hri_emo_msgs", _messages),
        _look("audio messages", lambda: _audio_messages(str(speech["audio.message_type"]))),
        _look("voice detector", lambda: _detector(speech)),
        _look("recogniser", lambda: _recogniser(asr, emotion)),
        _look("model", lambda: _model(emotion)),
        _look("microphone", _microphone, needed=False),
    ]


def _look(part: str, look: Callable[[], str], needed: bool = True) -> Finding:
    try:
        return Finding(part, look())
    except HriEmoError as error:
        return Finding(part, problem=str(error), needed=needed)
    except Exception as error:  # whatever an import or a driver may raise: it is what is looked for
        text = " ".join(str(error).split())
        return Finding(part, problem=f"{type(error).__name__}: {text}", needed=needed)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _ros() -> str:
    try:
        import rclpy
    except ImportError as error:
        raise HriEmoError(
            f"rclpy cannot be imported ({error}): source ROS 2's setup.bash"
        ) from error
    context = rclpy.Context()
    rclpy.init(context=context)
    domain = context.get_domain_id()
    rclpy.shutdown(context=context)
    distro = os.environ.get("ROS_DISTRO", "unnamed distribution")
    return f"{distro}, {rclpy.get_rmw_implementation_identifier()}, domain {domain}"


def _messages() -> str:
    remedy = "colcon build --base-paths src src/*/hri_emo_msgs, and source install/setup.bash"
    try:
        from hri_emo_ros.nodes import conversions
    except ImportError as error:
        raise HriEmoError(f"not built ({error}): {remedy}") from error
    import numpy as np

    from hri_emo_ros.types import SignalQuality, SpeechChunk, Transcript

    quality = SignalQuality(0.0, 0.0, 0.0, 0.0)
    chunk = SpeechChunk(1, 0, 0, 0, 0, np.zeros(1, np.float32), quality, last=True)
    try:
        conversions.chunk_message(chunk, "", "")
        conversions.transcript_message(
            Transcript(""), chunk, "", "", recogniser="", duration=0.0, queueing=0.0
        )
    except (AttributeError, AssertionError) as error:
        raise HriEmoError(f"built from other definitions ({error}): {remedy}") from error
    return "built"


def _audio_messages(wanted: str) -> str:
    from hri_emo_ros.nodes.audio_messages import audio_types

    return ", ".join(name.rpartition("/")[2] for name in audio_types(wanted))


def _detector(values: dict[str, Any]) -> str:
    from hri_emo_ros.audio.frontend import AudioFrontEnd
    from hri_emo_ros.audio.vad import MODEL_NAME

    AudioFrontEnd(values)
    return f"{MODEL_NAME}, threshold {values['vad.threshold']:g}"


def _recogniser(values: dict[str, Any], emotion: dict[str, Any]) -> str:
    from hri_emo_ros.asr import make_recogniser
    from hri_emo_ros.asr.whisper import cuda_devices, installed_models

    recogniser = make_recogniser(values)
    if recogniser is None:
        return f"none (asr.backend); words: {emotion['transcript.source']} (transcript.source)"
    recogniser.warm_up()
    others = [f"faster-whisper:{size}" for size in installed_models()]
    others = [name for name in others if name != recogniser.name]
    device = getattr(recogniser, "device", "cpu")
    also = f"; also installed: {', '.join(others)}" if others else ""
    return f"{recogniser.name} on {device}{also}; CUDA devices: {cuda_devices()}"


def _model(values: dict[str, Any]) -> str:
    from hri_emo_ros.engine import make_engine

    engine = make_engine(values)
    engine.warm_up(1)
    return f"{engine.model_id} on {engine.device}: {', '.join(engine.labels)}"


def _microphone() -> str:
    from hri_emo_ros.audio.sources import import_sounddevice

    devices = import_sounddevice().query_devices()
    inputs = sum(d["max_input_channels"] > 0 for d in devices)
    return f"PortAudio, {inputs} inputs (for hri-emo listen and player.microphone only)"
