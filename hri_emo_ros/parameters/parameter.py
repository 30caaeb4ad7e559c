# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a parameter is: name, default, meaning, bounds, and the check of a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from hri_emo_ros.errors import HriEmoError

Value: TypeAlias = Any
"""A bool, int, float, str or list of str: which one, the parameter's declaration says and `check` has
seen to, so that whoever looks a value up by its name need not look again."""


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
