"""Every parameter of every node, declared once.

The ROS layer declares them from here (descriptor, bounds, read-only flag), ``hri-emo replay`` and
``hri-emo tune`` read the same YAML through `load_parameters`, and ``hri-emo parameters`` prints the
README's tables. A parameter whose value is used anywhere is looked up by the name given here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hri_emo_ros.errors import HriEmoError

Value = bool | int | float | str | list[str]


@dataclass(frozen=True)
class Parameter:
    """One entry: its name, default (which fixes its type), meaning and bounds."""

    name: str
    default: Value
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False
    """Fixed once the node exists; others may change while it is inactive or active."""

    def check(self, value: Any, where: str = "") -> Value:
        """Return `value` in this parameter's type.

        Raises:
            HriEmoError: the value has another type, is out of bounds or is none of the choices.
        """
        place = f"{where}: " if where else ""
        kind = type(self.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is list and isinstance(value, (list, tuple)):
            value = [str(item) for item in value]
        if type(value) is not kind:
            raise HriEmoError(
                f"{place}parameter '{self.name}' is {value!r} ({type(value).__name__}), "
                f"must be {_TYPE_NAMES[kind]}"
            )
        if self.choices and value not in self.choices:
            raise HriEmoError(
                f"{place}parameter '{self.name}' is {value!r}, must be one of: "
                + ", ".join(repr(choice) for choice in self.choices)
            )
        low, high = self.minimum, self.maximum
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # `not (low <= value)` also refuses NaN.
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                raise HriEmoError(
                    f"{place}parameter '{self.name}' is {value!r}, must be {self.bounds()}"
                )
        return value

    def bounds(self) -> str:
        """The allowed values in words, or an empty string where anything of the type goes."""
        if self.choices:
            return ", ".join(self.choices)
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f">= {self.minimum:g}"
        if self.maximum is not None:
            return f"<= {self.maximum:g}"
        return ""


_TYPE_NAMES = {
    bool: "a bool",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list of strings",
}

P = Parameter
SAMPLE_FORMATS = (
    "U8",
    "S8",
    "S16LE",
    "S16BE",
    "S24LE",
    "S24BE",
    "S32LE",
    "S32BE",
    "F32LE",
    "F32BE",
    "F64LE",
    "F64BE",
)

SPEECH_NODE: tuple[Parameter, ...] = (
    P(
        "audio.message_type",
        "auto",
        "Type on the audio topic; auto asks the graph.",
        choices=("auto", "AudioData", "AudioDataStamped", "AudioStamped"),
        read_only=True,
    ),
    P(
        "audio.use_info",
        True,
        "Let AudioInfo on the audio_info topic override rate, channels and format.",
    ),
    P(
        "audio.sample_rate",
        16000,
        "Rate of the PCM when no AudioInfo says otherwise, Hz.",
        4000,
        192000,
    ),
    P("audio.channels", 1, "Interleaved channels when no AudioInfo says otherwise.", 1, 32),
    P(
        "audio.sample_format",
        "S16LE",
        "PCM encoding when no AudioInfo says otherwise.",
        choices=SAMPLE_FORMATS,
    ),
    P(
        "audio.channel",
        -1,
        "Channel to listen to, counted from 0; -1 takes the mean of all.",
        -1,
        31,
    ),
    P("audio.frame_id", "microphone", "Frame of unstamped audio."),
    P(
        "audio.timeout",
        3.0,
        "Silence of the topic after which diagnostics turn to ERROR, s.",
        0.1,
        3600.0,
    ),
    P(
        "audio.queue",
        10.0,
        "Audio held while the worker is busy, s; what exceeds it is dropped and counted.",
        0.5,
        120.0,
        read_only=True,
    ),
    P("vad.threshold", 0.5, "Speech probability at which an utterance starts.", 0.01, 0.99),
    P(
        "vad.release_threshold",
        0.35,
        "Speech probability below which a frame counts as pause.",
        0.01,
        0.99,
    ),
    P("segment.min_speech", 0.25, "Speech needed before an utterance starts, s.", 0.03, 5.0),
    P("segment.pause", 0.6, "Pause that ends an utterance, s.", 0.1, 5.0),
    P(
        "segment.max_length",
        15.0,
        "Longest utterance, s; longer speech is cut and marked truncated.",
        1.0,
        120.0,
    ),
    P("segment.pre_roll", 0.3, "Audio kept before the first speech frame, s.", 0.0, 2.0),
    P(
        "segment.hang_over",
        0.2,
        "Audio kept after the last speech frame, s (at most segment.pause).",
        0.0,
        5.0,
    ),
    P(
        "segment.chunk",
        0.25,
        "Length of the Speech chunks published while the person speaks, s.",
        0.032,
        5.0,
    ),
    P("robot_speaking.mute", True, "Discard what is heard while robot_speaking is true."),
    P(
        "robot_speaking.tail",
        0.3,
        "Time after the robot stops in which its echo is still discarded, s.",
        0.0,
        5.0,
    ),
)

ASR_NODE: tuple[Parameter, ...] = (
    P(
        "asr.backend",
        "auto",
        "Recogniser; auto takes whisper when whisper.model is set, else pocketsphinx.",
        choices=("auto", "whisper", "pocketsphinx", "none"),
        read_only=True,
    ),
    P("asr.min_confidence", 0.0, "Words below this confidence are left out.", 0.0, 1.0),
    P(
        "asr.min_speech_fraction",
        0.1,
        "Utterances with a smaller share of VAD speech frames are not recognised "
        "(recognisers invent words for silence).",
        0.0,
        1.0,
    ),
    P(
        "asr.queue",
        8,
        "Utterances waiting for the recogniser; the oldest beyond it is dropped and counted.",
        1,
        1000,
        read_only=True,
    ),
    P(
        "asr.threads",
        0,
        "CPU threads of the recogniser; 0 takes all cores but one.",
        0,
        256,
        read_only=True,
    ),
    P(
        "whisper.model",
        "",
        "faster-whisper model folder, or size name (only with whisper.allow_download).",
        read_only=True,
    ),
    P(
        "whisper.allow_download",
        False,
        "Allow fetching a model by size name from the model hub.",
        read_only=True,
    ),
    P(
        "whisper.device",
        "auto",
        "Device of Whisper.",
        choices=("auto", "cpu", "cuda"),
        read_only=True,
    ),
    P(
        "whisper.compute_type",
        "default",
        "Arithmetic of Whisper.",
        choices=(
            "default",
            "auto",
            "int8",
            "int8_float16",
            "int8_float32",
            "int16",
            "float16",
            "bfloat16",
            "float32",
        ),
        read_only=True,
    ),
    P("whisper.language", "", "ISO 639-1 language; empty detects it for each utterance."),
    P("whisper.beam_size", 1, "Beams; 1 is greedy and fastest.", 1, 20),
    P(
        "whisper.no_speech_threshold",
        0.6,
        "Segments with a higher no-speech probability are left out.",
        0.0,
        1.0,
    ),
    P(
        "pocketsphinx.model",
        "",
        "Folder of an acoustic and language model; empty takes the en-us model it carries.",
        read_only=True,
    ),
)

EMOTION_NODE: tuple[Parameter, ...] = (
    P(
        "model.bundle",
        "",
        "Model bundle: a folder, or a name under the package's models; empty is the shipped "
        "compact model.",
        read_only=True,
    ),
    P(
        "model.device",
        "cpu",
        "Device of the model.",
        choices=("auto", "cpu", "cuda"),
        read_only=True,
    ),
    P(
        "model.threads",
        0,
        "CPU threads of the model; 0 takes all cores but one.",
        0,
        256,
        read_only=True,
    ),
    P(
        "transcript.source",
        "transcript",
        "Where words come from: the Transcript topic, a std_msgs/String topic, or nowhere.",
        choices=("transcript", "string", "none"),
        read_only=True,
    ),
    P(
        "final.hold",
        1.5,
        "Longest wait for the words after the end of speech, s; then voice alone speaks.",
        0.0,
        30.0,
    ),
    P("provisional.enabled", True, "Publish provisional states while the person still speaks."),
    P("provisional.period", 1.0, "Speech between provisional states, s.", 0.1, 30.0),
    P("abstain.min_speech", 0.3, "Shorter utterances abstain (too short), s.", 0.0, 10.0),
    P(
        "abstain.max_clipped",
        0.1,
        "A larger share of clipped samples abstains (clipped).",
        0.0,
        1.0,
    ),
    P(
        "abstain.min_snr",
        -10.0,
        "A lower signal-to-noise ratio abstains (too noisy) when there are no words, dB.",
        -100.0,
        60.0,
    ),
    P(
        "abstain.min_confidence",
        0.0,
        "A lower top probability abstains (low confidence); 0 takes the bundle's own.",
        0.0,
        1.0,
    ),
    P("explanation.enabled", False, "Publish an EmotionExplanation with every final state."),
    P(
        "utterance.queue",
        16,
        "Utterances in work; the oldest beyond it is finished without words.",
        1,
        1000,
        read_only=True,
    ),
)

AUDIO_PLAYER: tuple[Parameter, ...] = (
    P("player.files", [""], "WAV or FLAC files to play, in order.", read_only=True),
    P(
        "player.microphone",
        "",
        "Sound device (name or number) to play instead of files; 'default' is the system's.",
        read_only=True,
    ),
    P(
        "player.speed",
        1.0,
        "Playback speed as a multiple of real time; 0 is as fast as possible.",
        0.0,
        1000.0,
    ),
    P("player.chunk_ms", 20, "Length of a published chunk, ms.", 1, 1000, read_only=True),
    P(
        "player.message_type",
        "AudioDataStamped",
        "Type to publish.",
        choices=("AudioData", "AudioDataStamped"),
        read_only=True,
    ),
    P(
        "player.sample_rate",
        0,
        "Rate to publish, Hz; 0 keeps the file's.",
        0,
        192000,
        read_only=True,
    ),
    P("player.channels", 0, "Channels to publish; 0 keeps the file's.", 0, 32, read_only=True),
    P("player.gap", 1.0, "Silence between files and at the end, s.", 0.0, 60.0),
    P("player.loop", False, "Start again at the end."),
    P(
        "player.wait_for_subscribers",
        10.0,
        "Longest wait for a subscriber before playing, s.",
        0.0,
        600.0,
    ),
    P("player.frame_id", "microphone", "Frame of the published audio."),
)

NODES: dict[str, tuple[Parameter, ...]] = {
    "speech_node": SPEECH_NODE,
    "asr_node": ASR_NODE,
    "emotion_node": EMOTION_NODE,
    "audio_player": AUDIO_PLAYER,
}


def defaults(node: str) -> dict[str, Value]:
    """The declared defaults of one node, by parameter name."""
    return {parameter.name: parameter.default for parameter in NODES[node]}


def check(node: str, values: Mapping[str, Any], where: str = "") -> dict[str, Value]:
    """The node's defaults overlaid with `values`, every one of them checked.

    Raises:
        HriEmoError: a name is not declared (the nearest ones are listed) or a value is refused.
    """
    declared = {parameter.name: parameter for parameter in NODES[node]}
    result = defaults(node)
    for name, value in values.items():
        if name not in declared:
            prefix = f"{where}: " if where else ""
            raise HriEmoError(
                f"{prefix}{node} has no parameter '{name}'; it has: {', '.join(declared)}"
            )
        result[name] = declared[name].check(value, where)
    return result


def load_parameters(
    path: Path | None, overrides: Iterable[str] = ()
) -> dict[str, dict[str, Value]]:
    """Read a ROS parameter file without ROS.

    Args:
        path: YAML whose top keys are node names, optionally behind wildcards or a namespace
            (``/**/speech_node``, ``speech_node``), or ``/**`` for parameters of every node that
            declares them; None takes the defaults.
        overrides: ``name:=value`` pairs, each applied to every node that declares the name.

    Returns:
        Node name -> parameter name -> value, complete with defaults.

    Raises:
        HriEmoError: the file cannot be read, or a name or value in it is refused.
    """
    values: dict[str, dict[str, Any]] = {node: {} for node in NODES}
    where = str(path) if path else ""
    if path is not None:
        for key, section in _read_yaml(path).items():
            if not isinstance(section, Mapping) or not isinstance(
                section.get("ros__parameters"), Mapping
            ):
                raise HriEmoError(f"{where}: section '{key}' must hold 'ros__parameters:'")
            flat = _flatten(section["ros__parameters"])
            node = str(key).rsplit("/", 1)[-1]
            if node in NODES:
                values[node].update(flat)
            elif node in ("*", "**"):
                _spread(flat, values, where)
            # Other nodes' sections are legal in a shared parameter file.
    for override in overrides:
        name, separator, text = override.partition(":=")
        if not separator:
            raise HriEmoError(f"'{override}' must be NAME:=VALUE")
        _spread({name: yaml.safe_load(text)}, values, "command line")
    return {node: check(node, values[node], where) for node in NODES}


def _spread(flat: Mapping[str, Any], values: dict[str, dict[str, Any]], where: str) -> None:
    """Give each value to every node that declares its name."""
    for name, value in flat.items():
        takers = [node for node in NODES if name in defaults(node)]
        if not takers:
            if name == "use_sim_time":
                continue
            raise HriEmoError(f"{where}: no node has a parameter '{name}'")
        for node in takers:
            values[node][name] = value


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HriEmoError(f"cannot read parameter file '{path}': {error}") from error
    if not isinstance(content, Mapping):
        raise HriEmoError(f"parameter file '{path}' must be a mapping of node names")
    return content


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'vad': {'threshold': 0.5}} -> {'vad.threshold': 0.5}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        elif f"{prefix}{key}" != "use_sim_time":
            flat[f"{prefix}{key}"] = value
    return flat


def markdown(node: str) -> str:
    """The node's parameters as a Markdown table."""
    lines = ["| Parameter | Default | Allowed | Meaning |", "|---|---|---|---|"]
    for parameter in NODES[node]:
        default = "''" if parameter.default == "" else str(parameter.default)
        fixed = " *(read-only)*" if parameter.read_only else ""
        lines.append(
            f"| `{parameter.name}` | `{default}` | {parameter.bounds()} | {parameter.description}{fixed} |"
        )
    return "\n".join(lines)
