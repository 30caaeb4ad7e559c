# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Training state on disk without pickled objects: tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.optim import Average

_STATE, _TENSORS = "state.json", "tensors.safetensors"


def save_checkpoint(
    folder: Path, module: nn.Module, average: Average | None, optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:  # fmt: skip
    """Write everything that `load_checkpoint` needs; the folder is replaced in one step.

    Args:
        folder: is made or replaced.
        module: its parameters and buffers.
        average: averaged weights, or None.
        optimizer: its moments.
        state: JSON values (step, best figure, history, ...).
    """
    tensors = {f"module/{name}": value for name, value in module.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.values.items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in entries.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors |= {f"random/{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    temporary, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # safetensors refuses tensors that share memory (tied weights): each gets its own copy.
    copies = {n: v.detach().cpu().contiguous().clone() for n, v in tensors.items()}
    save_file(copies, str(temporary / _TENSORS))
    (temporary / _STATE).write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path, module: nn.Module, average: Average | None, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote, in place.

    Returns:
        The JSON values.

    Raises:
        HriEmoError: there is no checkpoint or it belongs to another recipe.
    """
    if not (folder / _STATE).is_file():
        raise HriEmoError(f"there is no checkpoint in '{folder}'; train without --resume")
    try:
        parts: dict[str, dict[str, Tensor]] = {"average": {}, "optimizer": {}}
        for key, value in load_file(folder / _TENSORS).items():
            part, name = key.split("/", 1)
            parts.setdefault(part, {})[name] = value
        module.load_state_dict(parts["module"])
        for name, value in average.values.items() if average is not None else ():
            value.copy_(parts["average"][name])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            index, name = key.split("/", 1)
            moments.setdefault(int(index), {})[name] = value
        # Groups (rates, decay) follow from the recipe; only the moments are history.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (RuntimeError, LookupError, ValueError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HriEmoError(
            f"the checkpoint in '{folder}' does not fit this configuration: {reason}; train "
            "without --resume or with the configuration it was written with"
        ) from error
    for name, value in parts["random"].items():
        if name == "cpu":
            torch.set_rng_state(value)
        elif torch.cuda.is_available():
            torch.cuda.set_rng_state(value, int(name))
    state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    return state
