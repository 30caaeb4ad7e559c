# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""CMU-MOSEI: precomputed sequences with emotion intensities (Zadeh et al. 2018, ACL P18-1208).

The released features come as HDF5 (.csd) or pickled objects; unpickling runs whatever is in the
file and HDF5 would be one more dependency, so this reader takes NumPy archives without pickled
objects, one per official split. Variable lengths are stored end to end with their boundaries:

    audio           [frames in all, 74] float   COVAREP
    audio_offsets   [segments + 1] int          segment i is audio[audio_offsets[i]:audio_offsets[i + 1]]
    text            [words in all, 300] float   GloVe
    text_offsets    [segments + 1] int
    labels          [segments, 7] float         sentiment -3..3, then happy, sad, anger, surprise,
                                                disgust, fear with intensities 0..3, as in the
                                                released "All Labels"
    ids             [segments] str              "video[segment]"

Widths other than 74 and 300 are taken as they are. `write_split` makes such a file from the arrays
that the CMU Multimodal SDK returns.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hri_emo_ros.data.corpus import Corpus, CorpusData, Item
from hri_emo_ros.data.labels import table
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import LABELS, FloatArray

_COLUMNS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
_ARRAYS = ("audio", "audio_offsets", "text", "text_offsets", "labels", "ids")
_FILES = {"train": "train.npz", "dev": "valid.npz", "test": "test.npz"}


class Mosei(Corpus):
    """Multi-label: a target is 1 where an emotion's intensity is above 0, as the literature scores them;
    neutral where none is present. The speaker is the video: most show one speaker, who is not named.
    """

    name = "mosei"
    folder = "mosei"
    tree = """
mosei/
    train.npz                       arrays: audio, audio_offsets, text, text_offsets, labels, ids
    valid.npz
    test.npz                        (optional)
"""
    labels = table(" ".join(_COLUMNS))

    def read(self, root: Path) -> CorpusData:
        if not (root / "train.npz").is_file():
            raise self.refuse(root, "no train.npz")
        items: list[Item] = []
        for split, name in _FILES.items():
            if (root / name).is_file():
                items += self._read_split(root, root / name, split)
        return CorpusData(items)

    def _read_split(self, root: Path, path: Path, split: str) -> list[Item]:
        try:
            with np.load(path, allow_pickle=False) as archive:
                missing = [name for name in _ARRAYS if name not in archive.files]
                if missing:
                    raise self.refuse(root, f"{path.name} lacks the array {missing[0]!r}")
                arrays = {name: archive[name] for name in _ARRAYS}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise self.refuse(root, f"{path.name} cannot be read ({error})") from error
        audio, text = (np.nan_to_num(arrays[k].astype(np.float32)) for k in ("audio", "text"))
        order = [
            _COLUMNS.index(word)
            for label in LABELS
            for word, mapped in self.labels.items()
            if mapped == label
        ]
        items = []
        for i, identifier in enumerate(arrays["ids"].tolist()):
            strength = (arrays["labels"][i, 1:] > 0.0).astype(np.float64)
            present = [w for w, s in zip(_COLUMNS, strength, strict=True) if s > 0.0]
            neutral = 0.0 if present else 1.0
            a, t = arrays["audio_offsets"][i : i + 2], arrays["text_offsets"][i : i + 2]
            items.append(
                Item(
                    id=f"mosei/{identifier}",
                    corpus=self.name,
                    label=",".join(present) or "none",
                    target=(neutral, *(float(strength[k]) for k in order)),
                    speaker=f"mosei_{identifier.split('[')[0]}",
                    split=split,
                    language="en",
                    audio_features=audio[a[0] : a[1]],
                    text_features=text[t[0] : t[1]],
                )
            )
        return items


def write_split(
    path: Path,
    audio: Sequence[FloatArray],
    text: Sequence[FloatArray],
    labels: FloatArray,
    ids: Sequence[str],
) -> None:
    """Write one split.

    Args:
        path: train.npz, valid.npz or test.npz.
        audio: [frames, width] for each segment.
        text: [words, width] for each segment.
        labels: [segments, 7] as in the module's docstring.
        ids: "video[segment]" for each segment.

    Raises:
        HriEmoError: the numbers of segments differ.
    """
    if not len(audio) == len(text) == len(labels) == len(ids):
        raise HriEmoError(
            f"mosei: {len(audio)} audio, {len(text)} text, {len(labels)} label rows and {len(ids)} "
            "ids were given, must be as many of each"
        )
    np.savez(
        path,
        audio=np.concatenate(audio),
        audio_offsets=np.cumsum([0] + [len(a) for a in audio]),
        text=np.concatenate(text),
        text_offsets=np.cumsum([0] + [len(t) for t in text]),
        labels=np.asarray(labels),
        ids=np.asarray(ids, dtype=np.str_),
    )
