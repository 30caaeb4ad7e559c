"""All stages of a training file in a row, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.config import TrainConfig
from hri_emo_ros.training.finish import BUNDLE

_REFERENCE = "stage:"


def run_folder(config: TrainConfig, out: Path) -> Path:
    """Where a stage's run lies: out/name[_foldK][_without_CORPUS][/stage]."""
    name = config.name
    if config.data.fold is not None:
        name += f"_fold{config.data.fold}"
    if config.data.leave_corpus_out:
        name += f"_without_{config.data.leave_corpus_out}"
    return out / name / config.stage if config.stage else out / name


def resolve(config: TrainConfig, out: Path) -> TrainConfig:
    """Replace ``stage:NAME`` by that stage's bundle.

    Raises:
        HriEmoError: the stage was not trained.
    """

    def replaced(value: str) -> str:
        if not value.startswith(_REFERENCE):
            return value
        stage = value.removeprefix(_REFERENCE)
        bundle = run_folder(config.model_copy(update={"stage": stage}), out) / BUNDLE
        if not bundle.is_dir():
            raise HriEmoError(
                f"'{value}': there is no bundle in '{bundle}'; train that stage first"
            )
        return str(bundle)

    pretrained = config.pretrained.model_copy(
        update={k: replaced(getattr(config.pretrained, k)) for k in ("bundle", "audio", "text")}
    )
    distill = config.distill.model_copy(update={"teacher": replaced(config.distill.teacher)})
    return config.model_copy(update={"pretrained": pretrained, "distill": distill})


def train(
    configs: Sequence[TrainConfig],
    root: Path,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Train every stage in order.

    Args:
        configs: from `load_config`.
        root: data root.
        out: folder of runs.
        resume: go on where a run was interrupted: finished stages are left alone, the one with a
            checkpoint resumes, the rest start.
        console: for progress; None is silent.

    Returns:
        Each stage's metrics.
    """
    from hri_emo_ros.training.trainer import CHECKPOINT, Trainer

    results = []
    for config in configs:
        folder = run_folder(config, out)
        if resume and len(configs) > 1 and (folder / BUNDLE).is_dir():
            continue
        if console is not None and config.stage:
            console.rule(f"stage {config.stage}", align="left")
        trainer = Trainer(resolve(config, out), root, folder, console)
        again = resume and ((folder / CHECKPOINT).is_dir() or len(configs) == 1)
        results.append(trainer.run(resume=again))
    return results
