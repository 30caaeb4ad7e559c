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

_STATE, _WEIGHTS, _AVERAGE, _OPTIMIZER, _RANDOM = (
    "state.json", "weights.safetensors", "average.safetensors", "optimizer.safetensors",
    "random.safetensors",
)  # fmt: skip


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    average: Average | None,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write everything that `load_checkpoint` needs; the folder is replaced in one step.

    Args:
        folder: is made or replaced.
        module: its parameters and buffers.
        average: averaged weights, or None.
        optimizer: its moments.
        state: JSON values (step, best figure, history, ...).
    """
    temporary = folder.with_name(folder.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _save(module.state_dict(), temporary / _WEIGHTS)
    if average is not None:
        _save(average.values, temporary / _AVERAGE)
    moments = {
        f"{index}.{name}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }
    _save(moments, temporary / _OPTIMIZER)
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    _save(random, temporary / _RANDOM)
    (temporary / _STATE).write_text(json.dumps(state), encoding="utf-8")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path,
    module: nn.Module,
    average: Average | None,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote, in place.

    Returns:
        The JSON values.

    Raises:
        HriEmoError: there is no checkpoint or it belongs to another configuration.
    """
    if not (folder / _STATE).is_file():
        raise HriEmoError(f"there is no checkpoint in '{folder}'; train without --resume")
    try:
        module.load_state_dict(load_file(folder / _WEIGHTS))
        if average is not None:
            values = load_file(folder / _AVERAGE)
            for name, value in average.values.items():
                value.copy_(values[name])
        _restore_optimizer(folder, optimizer)
    except (RuntimeError, LookupError, ValueError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HriEmoError(
            f"the checkpoint in '{folder}' does not fit this configuration: {reason}; train "
            "without --resume or with the configuration it was written with"
        ) from error
    random = load_file(folder / _RANDOM)
    torch.set_rng_state(random["cpu"])
    for name, value in random.items():
        if name != "cpu" and torch.cuda.is_available():
            torch.cuda.set_rng_state(value, int(name.removeprefix("cuda")))
    state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    return state


def _restore_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / _OPTIMIZER).items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    # Groups (rates, decay) follow from the configuration; only the moments are history.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # safetensors refuses tensors that share memory (tied weights): each gets its own copy.
    save_file({n: v.detach().cpu().contiguous().clone() for n, v in tensors.items()}, str(path))
