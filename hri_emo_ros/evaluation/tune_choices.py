# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Which parameters a search may change, and within which ends."""

from __future__ import annotations

from dataclasses import dataclass

import optuna

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import NODES, Parameter, Value

_TUNABLE = ("speech_node", "asr_node", "emotion_node")
_LOADED_ONCE = ("model.", "audio.", "transcript.", "utterance.")
"""Parameters that say what runs and on what, not how well."""
_LOGARITHMIC = 20.0
"""Ranges whose ends differ by more than this factor are searched on a logarithmic scale."""


@dataclass(frozen=True)
class Choice:
    """A parameter to search and where."""

    node: str
    parameter: Parameter
    low: float | None = None
    high: float | None = None

    def suggest(self, trial: optuna.Trial) -> Value:
        """A value of the parameter's type within its range."""
        name, default = self.parameter.name, self.parameter.default
        if isinstance(default, bool):
            return bool(trial.suggest_categorical(name, [False, True]))
        if self.parameter.choices:
            return str(trial.suggest_categorical(name, self.parameter.choices))
        low, high = self.low, self.high
        assert low is not None
        assert high is not None
        log = low > 0 and high / low > _LOGARITHMIC
        if isinstance(default, int):
            return trial.suggest_int(name, int(low), int(high), log=log)
        return round(trial.suggest_float(name, low, high, log=log), 5)


def parse_choices(text: str) -> list[Choice]:
    """``vad.threshold,final.hold=0.2:3`` as what to search; ranges default to the declared bounds.

    Raises:
        HriEmoError: a name is not declared or cannot be searched, or a range is refused.
    """
    choices = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, ends = entry.partition("=")
        node, parameter = declared(name)
        if parameter.read_only and not name.startswith("asr."):
            raise HriEmoError(f"'{name}' is read-only and cannot be tuned")
        if name.startswith(_LOADED_ONCE) or isinstance(parameter.default, (str, list)):
            if not parameter.choices:
                raise HriEmoError(f"'{name}' is {parameter.default!r} by default and has no range")
        low, high = parameter.minimum, parameter.maximum
        if ends:
            low, high = _ends(name, ends, parameter)
        numeric = isinstance(parameter.default, (int, float)) and not isinstance(
            parameter.default, bool
        )
        if numeric and (low is None or high is None):
            raise HriEmoError(f"'{name}' has no bounds; give its range: {name}=LOW:HIGH")
        choices.append(Choice(node, parameter, low, high))
    if not choices:
        raise HriEmoError(
            "--parameters is empty: name parameters, e.g. vad.threshold,segment.pause"
        )
    return choices


def declared(name: str) -> tuple[str, Parameter]:
    """Node and declaration of a parameter.

    Raises:
        HriEmoError: there is none of that name.
    """
    for node in _TUNABLE:
        for parameter in NODES[node]:
            if parameter.name == name:
                return node, parameter
    known = [p.name for node in _TUNABLE for p in NODES[node] if not p.read_only]
    raise HriEmoError(f"there is no parameter '{name}' to tune; there are: {', '.join(known)}")


def _ends(name: str, text: str, parameter: Parameter) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise HriEmoError(f"the range of '{name}' is '{text}', must be LOW:HIGH") from error
    for end in (low, high):
        parameter.check(int(end) if isinstance(parameter.default, int) else end, "--parameters")
    if not low < high:
        raise HriEmoError(f"the range of '{name}' is '{text}': LOW must be below HIGH")
    return low, high
