# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What executes a bundle's network, and the one place that chooses it.

ONNX Runtime reads what `hri_emo_ros.model.export` wrote into the bundle; torch builds the network from its
configuration. The engine sees neither: arrays go in, arrays come out, and what lies between the calls stays
the runtime's own.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.answer import Answer
from hri_emo_ros.model.bundle import GRAPH_FILES, BundleConfig
from hri_emo_ros.model.items import Batch
from hri_emo_ros.types import FloatArray


@dataclass
class Encoded:
    """One modality after its encoder: the runtime's own states [B, N, D] and mask [B, N]."""

    states: Any
    mask: Any
    statistics: FloatArray | None = None
    """[B, 2 D] of a voice (`model.baseline.voice_statistics`); None where the network has no baselines or
    there is no voice."""


class Runtime(Protocol):
    """The network of one bundle, ready to compute."""

    name: str
    device: str
    population: FloatArray
    """[2 D]: `Encoded.statistics` of an average voice; empty for a network without baselines."""

    def prepare(self, batch: Batch[np.ndarray]) -> Any:
        """The batch as the other calls take it."""

    def voice(self, batch: Any) -> Encoded:
        """The voices' states."""

    def words(self, batch: Any) -> Encoded:
        """The words' states."""

    def fuse(self, voice: Encoded, words: Encoded, batch: Any) -> Answer[np.ndarray]:
        """What the network says."""


def choose(wanted: str, device: str, exported: bool) -> Literal["onnx", "torch"]:
    """ONNX Runtime on the CPU where the bundle was exported, else torch.

    Args:
        device: cpu or cuda, already found out.

    Raises:
        HriEmoError: what is wanted cannot be had.
    """
    if wanted not in ("auto", "onnx", "torch"):
        raise HriEmoError(
            f"runtime is '{wanted}', must be auto, onnx or torch (parameter 'model.runtime')"
        )
    if wanted == "onnx" and not exported:
        raise HriEmoError(
            "runtime is 'onnx', but the bundle holds no graphs: run `hri-emo export BUNDLE`, or use "
            "auto or torch (parameter 'model.runtime')"
        )
    if wanted == "onnx" and device != "cpu":
        raise HriEmoError(
            f"runtime is 'onnx' and device '{device}': use cpu (parameter 'model.device') or auto or "
            "torch (parameter 'model.runtime')"
        )
    if wanted == "onnx" or (wanted == "auto" and exported and device == "cpu"):
        return "onnx"
    if importlib.util.find_spec("torch") is None:
        raise HriEmoError(
            "this bundle, or its device, needs torch, which is not installed: run `pip install -r "
            "requirements/train.txt`, or `hri-emo export BUNDLE` where it is and copy what that writes "
            "(parameter 'model.runtime')"
        )
    return "torch"


def graph_files(document: BundleConfig) -> dict[str, str]:
    """`GRAPH_FILES` of the parts that the network has."""
    used = {"voice": document.model.uses_audio, "words": document.model.uses_text, "head": True}
    return {part: file for part, file in GRAPH_FILES.items() if used[part]}
