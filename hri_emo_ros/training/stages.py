"""All stages of a training file in a row, each in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.finish import BUNDLE
from hri_emo_ros.training.recipe import RECIPE_FILE, Recipe, pick_stages

KEPT = "kept"
"""Folder of what is heard of clips, beside the runs that share it."""
_REFERENCE = "stage:"
_OF_THE_RUN = ("data.fold", "data.leave_corpus_out")
"""Settings that a stage's folder names where they matter to it (`run_folder`)."""


def run_folder(recipe: Recipe, out: Path) -> Path:
    """Where a stage's run lies: out/name[_foldK][_without_CORPUS][/stage].

    A stage whose corpora have no folds is the same for every fold, so its folder does not name one.
    """
    name = recipe.name
    data = recipe.data
    if data.fold is not None and any(c.split.method == "folds" for c in data.corpora):
        name += f"_fold{data.fold}"
    if data.leave_corpus_out in [corpus.name for corpus in data.corpora]:
        name += f"_without_{data.leave_corpus_out}"
    return out / name / recipe.stage if recipe.stage else out / name


def resolve(recipe: Recipe, out: Path, stages: Sequence[Recipe] = ()) -> Recipe:
    """Replace ``stage:NAME`` by that stage's bundle.

    Args:
        stages: of the same file.

    Raises:
        HriEmoError: there is no such stage or it was not trained.
    """
    folders = {stage.stage: run_folder(stage, out) for stage in stages}

    def replaced(value: str) -> str:
        if not value.startswith(_REFERENCE):
            return value
        stage = value.removeprefix(_REFERENCE)
        if stage not in folders:
            raise HriEmoError(
                f"'{value}': there is no such stage, must be one of: " + ", ".join(folders)
            )
        bundle = folders[stage] / BUNDLE
        if not bundle.is_dir():
            raise HriEmoError(
                f"'{value}': there is no bundle in '{bundle}'; train that stage first"
            )
        return str(bundle)

    pretrained = recipe.pretrained.model_copy(
        update={k: replaced(getattr(recipe.pretrained, k)) for k in ("audio", "text")}
    )
    return recipe.model_copy(update={"pretrained": pretrained})


def train(
    recipes: Sequence[Recipe],
    root: Path,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
    stage: str | None = None,
) -> list[dict[str, Any]]:
    """Train every stage in order.

    Args:
        recipes: from `load_recipes`.
        root: data root.
        out: folder of runs.
        resume: go on where a run was interrupted: finished stages are left alone, the one with a
            checkpoint resumes, the rest start. Where the file has changed since a stage was
            finished, the settings that differ are printed.
        console: for progress; None is silent.
        stage: train this one only.

    Returns:
        Each trained stage's metrics.

    Raises:
        HriEmoError: see `resolve`, `Trainer` and ``data.leave_corpus_out``.
    """
    from hri_emo_ros.training.loop import CHECKPOINT, Trainer  # loads torch and more

    results = []
    _check_left_out(recipes)
    for recipe in pick_stages(recipes, stage):
        folder = run_folder(recipe, out)
        if resume and len(recipes) > 1 and (folder / BUNDLE).is_dir():
            if console is not None:
                console.print(_left_alone(recipe, folder), highlight=False, soft_wrap=True)
            continue
        if console is not None and recipe.stage:
            console.rule(f"stage {recipe.stage}", align="left")
        trainer = Trainer(_prepared(recipe, out, recipes), root, folder, console, out / KEPT)
        again = resume and ((folder / CHECKPOINT).is_dir() or len(recipes) == 1)
        results.append(trainer.run(resume=again))
    return results


def _left_alone(recipe: Recipe, folder: Path) -> str:
    """What to say of a finished stage: which settings it was trained with that differ from today's."""
    said = f"stage {recipe.stage}: finished in '{folder}', left alone"
    file = folder / RECIPE_FILE
    if not file.is_file():
        return said
    then = _flat(yaml.safe_load(file.read_text(encoding="utf-8")))
    now = _flat(json.loads(recipe.model_dump_json()))
    changed = [
        f"{key} {then.get(key)} (now {now.get(key)})"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and key not in _OF_THE_RUN
        and not str(now.get(key)).startswith(_REFERENCE)
    ]  # fmt: skip
    if not changed:
        return said
    return f"{said}; it was trained with {', '.join(changed)}: move it away to train it again"


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Leaves of nested mappings and lists, by dotted key; an unset section is one leaf."""
    if isinstance(value, dict):
        pairs = [(f"{key}.{k}" if key else str(k), v) for k, v in value.items()]
    elif isinstance(value, list):
        pairs = [(f"{key}.{k}", v) for k, v in enumerate(value)]
    else:
        return {key: value}
    return {k: v for name, inner in pairs for k, v in _flat(inner, name).items()}


def _prepared(recipe: Recipe, out: Path, recipes: Sequence[Recipe]) -> Recipe:
    recipe = resolve(recipe, out, recipes)
    if recipe.data.leave_corpus_out in [corpus.name for corpus in recipe.data.corpora]:
        return recipe
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"leave_corpus_out": None})}
    )


def _check_left_out(recipes: Sequence[Recipe]) -> None:
    known = {corpus.name for recipe in recipes for corpus in recipe.data.corpora}
    for recipe in recipes:
        name = recipe.data.leave_corpus_out
        if name is not None and name not in known:
            raise HriEmoError(
                f"'data.leave_corpus_out' is '{name}', must be one of: {', '.join(sorted(known))}"
            )
