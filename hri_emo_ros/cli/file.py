# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo file``: the emotion of audio files, by the same pipeline as on the robot."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from hri_emo_ros import messages
from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.audio.files import float_format, read_audio, read_samples
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.quality import measure_quality
from hri_emo_ros.engine import make_engine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import ASR_BACKENDS, load_parameters
from hri_emo_ros.pipeline import AudioMessage, Outcome, UtteranceJoiner, run_offline, run_whole
from hri_emo_ros.types import Fault, FloatArray, Transcript, TranscriptStatus
from hri_emo_ros.view.shown import from_outcome
from hri_emo_ros.view.terminal import history_table, now_panel

BLOCK = 0.1
"""Seconds fed at a time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP", help="WAV or FLAC")
    parser.add_argument(
        "--text", default=None, help="what was said; the whole clip is then one utterance"
    )
    parser.add_argument(
        "--whole", action="store_true", help="take the whole clip as one utterance, do not segment"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_pipeline_arguments(parser)


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that runs the pipeline without ROS."""
    parser.add_argument(
        "--asr", choices=ASR_BACKENDS, default=None, help="recogniser (default: as in --params)"
    )
    parser.add_argument("--whisper-model", default="", metavar="DIR", help="faster-whisper folder")
    parser.add_argument("--bundle", default="", help="model bundle; empty is the shipped one")
    parser.add_argument(
        "--params", type=Path, default=None, metavar="FILE.yaml", help="parameters of the nodes"
    )


def pipeline_parameters(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Values by node, arguments on top of the file."""
    values = {node: dict(given) for node, given in load_parameters(args.params).items()}
    if args.asr is not None:
        values["asr_node"]["asr.backend"] = args.asr
    if args.whisper_model:
        values["asr_node"]["whisper.model"] = args.whisper_model
    if args.bundle:
        values["emotion_node"]["model.bundle"] = args.bundle
    if values["asr_node"]["asr.backend"] == "none":
        values["emotion_node"]["transcript.source"] = "none"
    return values


def run(args: argparse.Namespace) -> int:
    """Estimate every clip and print."""
    values = pipeline_parameters(args)
    channel = int(values["speech_node"]["audio.channel"])
    clips = [(path, *read_samples(path)) for path in args.clips]
    engine = make_engine(values["emotion_node"])
    recogniser = None if args.text is not None else make_recogniser(values["asr_node"])
    if args.text is not None:
        values["emotion_node"]["transcript.source"] = "transcript"
    # One for all clips: a voice that was in one is known in the next.
    joiner = UtteranceJoiner(engine, values["emotion_node"], lambda outcome: None, live=False)
    results = []
    for path, samples, rate in clips:
        if args.whole or args.text is not None:
            mono = read_audio(path, channel)
            outcomes = [estimate_whole(mono, args.text, joiner, recogniser)]
        else:
            front_end = AudioFrontEnd(values["speech_node"])
            front_end.set_format(float_format(rate, samples.shape[1]))
            inputs = file_blocks(samples, rate)
            outcomes = list(estimate_utterances(inputs, front_end, joiner, recogniser))
            for fault in front_end.faults.values():
                print(f"{path}: {fault}", file=sys.stderr)
        results.append((path, outcomes))
    if args.json:
        print(json.dumps([_file_json(p, o) for p, o in results], indent=2, ensure_ascii=False))
        return 0
    console = Console()
    for path, outcomes in results:
        if not outcomes:
            console.print(f"{path}: no speech found", markup=False, highlight=False, soft_wrap=True)
        elif len(outcomes) == 1:
            console.print(now_panel(from_outcome(outcomes[0]), str(path)))
        else:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)
            console.print(history_table([from_outcome(outcome) for outcome in outcomes]))
    return 0


def estimate_whole(
    samples: FloatArray, text: str | None, joiner: UtteranceJoiner, recogniser: Recogniser | None
) -> Outcome:
    """A clip as one utterance."""
    transcript = Transcript(text) if text is not None else None
    if transcript is None and recogniser is not None:
        transcript = recogniser.transcribe(samples, measure_quality(samples))
    return _checked(run_whole(samples, transcript, joiner))


def file_blocks(samples: FloatArray, rate: int) -> Iterator[AudioMessage]:
    """A file's samples [n, channels] as the messages of a robot that records them."""
    length = max(1, round(BLOCK * rate))
    for start in range(0, len(samples), length):
        yield AudioMessage(samples[start : start + length], start * 1_000_000_000 // rate)


def estimate_utterances(
    inputs: Iterator[AudioMessage],
    front_end: AudioFrontEnd,
    joiner: UtteranceJoiner,
    recogniser: Recogniser | None,
) -> Iterator[Outcome]:
    """The final outcome of every utterance that the segmenter finds in a clip."""
    for record in run_offline(inputs, front_end, recogniser, joiner):
        if isinstance(record, Outcome) and record.stage == "final":
            yield _checked(record)


def _checked(outcome: Outcome) -> Outcome:
    if outcome.error:
        raise HriEmoError(f"the estimate failed: {outcome.error}")
    return outcome


def _file_json(path: Path, outcomes: list[Outcome]) -> dict[str, Any]:
    return {"file": str(path), "utterances": [outcome_json(outcome) for outcome in outcomes]}


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON: EmotionState's fields under the same names, enumerations as words.

    Seconds throughout; NaN is null; `start` stands for the header.
    """
    fields = messages.state(outcome, "", "")
    estimate = outcome.estimate
    status = estimate.transcript.status if estimate.transcript else TranscriptStatus.NONE
    fault = estimate.quality.fault if estimate.quality else Fault.NONE
    fields |= {
        "stage": outcome.stage,
        "abstain_reason": estimate.abstain_reason.name.lower(),
        "transcript_status": status.name.lower(),
    }
    fields["quality"]["fault"] = fault.name.lower()
    del fields["header"], fields["stream_id"]
    plain: dict[str, Any] = _plain(fields)
    return {"start": round(outcome.stamp_ns * 1e-9, 3), **plain}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
