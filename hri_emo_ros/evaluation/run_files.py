"""Figures of a run as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hri_emo_ros.errors import HriEmoError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a run's figures; ``-`` is standard output.

    Raises:
        HriEmoError: the file cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if str(path) == "-":
        print(text, end="")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HriEmoError(f"cannot write '{path}': {error.strerror}") from error
