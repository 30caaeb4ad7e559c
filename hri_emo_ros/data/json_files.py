# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Figures as a file."""

from __future__ import annotations

import json
import math
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros.errors import HriEmoError


def write_json(path: Path, content: Any) -> None:
    """Write plain values and arrays, NaN as null; ``-`` is standard output.

    Raises:
        HriEmoError: the file cannot be written.
    """
    # Piece by piece: what hours of recording give is some 100 MB in one.
    pieces = json.JSONEncoder(indent=1, ensure_ascii=False, allow_nan=False).iterencode(
        plain(content)
    )
    if str(path) == "-":
        sys.stdout.writelines(chain(pieces, "\n"))
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.writelines(chain(pieces, "\n"))
    except OSError as error:
        raise HriEmoError(f"cannot write '{path}': {error.strerror}") from error


def plain(value: Any) -> Any:
    """What JSON can hold of `value`."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
