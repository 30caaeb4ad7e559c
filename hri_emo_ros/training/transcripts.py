"""What the robot's recogniser makes of recorded pairs: recognised once, kept beside the runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.training.voices import identity, samples_of


def transcripts(
    items: Iterable[Item], file: Path, progress: Callable[[], None]
) -> dict[str, tuple[str, float]]:
    """Words (empty where nothing was recognised) and confidence by item id.

    Args:
        items: with audio.
        file: where they are kept; a clip that has changed is recognised anew.
        progress: called after each clip.

    Raises:
        HriEmoError: the recogniser cannot be loaded or a clip not be read.
    """
    kept: dict[str, tuple[str, float]] = (
        json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    )
    recogniser, found = None, {}
    for item in items:
        key = identity(item)
        if item.heard is not None:
            found[item.id] = (item.heard, item.confidence)
        elif key not in kept:
            if recogniser is None:
                from hri_emo_ros.asr import make_recogniser

                recogniser = make_recogniser({})
            assert recogniser is not None  # asr.backend is not "none" by default
            said = recogniser.transcribe(samples_of(item))
            kept[key] = (said.text, float(said.confidence))
        if item.heard is None:
            found[item.id] = (kept[key][0], kept[key][1])
        progress()
    if recogniser is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, file)
    return found
