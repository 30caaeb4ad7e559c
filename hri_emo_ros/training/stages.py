# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""All stages of a training file in a row, and the runs that leave people or a corpus out, each in a folder of
its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
_OF_THE_RUN = (
    "data.fold",
    "data.leave_corpus_out",
    "calibrate_on",
    "left_out",
    "pretrained.unheard_runs",
)
"""Settings that differ between runs of one recipe."""


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
    found: dict[str, str] = {}
    for part in ("audio", "text"):
        value: str = getattr(recipe.pretrained, part)
        if not value.startswith(_REFERENCE):
            continue
        stage = value.removeprefix(_REFERENCE)
        if stage not in folders:
            raise HriEmoError(
                f"'{value}': there is no such stage, must be one of: " + ", ".join(folders)
            )
        if not (folders[stage] / BUNDLE).is_dir():
            raise HriEmoError(
                f"'{value}': there is no bundle in '{folders[stage] / BUNDLE}'; train that stage first"
            )
        found[part] = str(folders[stage] / BUNDLE)
    return recipe.model_copy(update={"pretrained": recipe.pretrained.model_copy(update=found)})


def plan(
    recipes: Sequence[Recipe], stage: str | None, out: Path
) -> list[tuple[Recipe, list[Recipe]]]:
    """Runs in the order in which they must be trained, each with the stages of its file as they are for it.

    First those that leave something out (`Recipe.left_out`), with what they build on, then the stages
    themselves, calibrated on the former. Where the recipes say already what is left out, only they are
    trained, and what `PretrainedSection.unheard` asks of.
    """
    chosen = pick_stages(recipes, stage)
    if any(r.data.fold is not None or r.data.leave_corpus_out for r in recipes):
        asked = [(recipe, list(recipes)) for recipe in chosen]
        return asked if stage else [*_asked_of(chosen, recipes), *asked]
    runs, last = [], []
    for recipe in chosen:
        without: list[Recipe] = []
        for variant in _variants(recipe, recipes):
            without.append(next(r for r in variant if r.stage == recipe.stage))
            runs += [(r, variant) for r in variant if r.stage in _needed(recipe, recipes)]
        if recipe.pretrained.freeze_heads:
            # The voice's answer is its stage's own: so are the people and corpora that calibrate it.
            voice = recipe.pretrained.audio.removeprefix(_REFERENCE)
            for heard in (r for r in recipes if r.stage == voice):
                without += [
                    next(r for r in variant if r.stage == voice)
                    for variant in _variants(heard, recipes)
                ]
        folders = [str(run_folder(r, out)) for r in without]
        own = recipe.model_copy(update={"calibrate_on": folders or recipe.calibrate_on})
        last.append((own, list(recipes)))
    return [*runs, *last]


def _unheard(recipe: Recipe, out: Path, stages: Sequence[Recipe]) -> Recipe:
    """The recipe with the folders of the runs that `PretrainedSection.unheard` names."""
    folders = [str(run_folder(asked, out)) for asked, _ in _asked_of([recipe], stages)]
    update = {"pretrained": recipe.pretrained.model_copy(update={"unheard_runs": folders})}
    return recipe.model_copy(update=update)


def _asked_of(
    recipes: Sequence[Recipe], stages: Sequence[Recipe]
) -> list[tuple[Recipe, list[Recipe]]]:
    """Runs of one stage, each without a fold of people, that `PretrainedSection.unheard` asks of those people."""
    names = {recipe.pretrained.unheard.removeprefix(_REFERENCE) for recipe in recipes} - {""}
    found = []
    for stage in stages:
        for fold in stage.left_out.folds if stage.stage in names else ():
            update = {"fold": fold, "leave_corpus_out": None}
            found.append((_with(stage, update), [_with(r, update) for r in stages]))
    return found


def _variants(recipe: Recipe, recipes: Sequence[Recipe]) -> Iterator[list[Recipe]]:
    for fold in recipe.left_out.folds:
        yield [_with(r, {"fold": fold}) for r in recipes]
    for corpus in recipe.left_out.corpora:
        yield [_with(r, {"leave_corpus_out": corpus}) for r in recipes]


def _with(recipe: Recipe, update: dict[str, Any]) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=update)})


def _needed(recipe: Recipe, recipes: Sequence[Recipe]) -> set[str]:
    """Names of the stage and of those that it builds on."""
    names, by_name = {recipe.stage}, {r.stage: r for r in recipes}
    for value in (recipe.pretrained.audio, recipe.pretrained.text):
        name = value.removeprefix(_REFERENCE)
        if value.startswith(_REFERENCE) and name in by_name:
            names |= _needed(by_name[name], recipes)
    return names


def train(
    recipes: Sequence[Recipe],
    root: Path,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
    stage: str | None = None,
) -> list[dict[str, Any]]:
    """Train every run of the `plan`.

    Args:
        recipes: from `load_recipes`.
        root: data root.
        out: folder of runs.
        resume: go on where training was interrupted: finished runs are left alone, the one with a
            checkpoint resumes, the rest start. Where the file has changed since a run was
            finished, the settings that differ are printed.
        console: for progress; None is silent.
        stage: train this one only.

    Returns:
        Each trained run's metrics.

    Raises:
        HriEmoError: see `resolve`, `Trainer` and ``data.leave_corpus_out``.
    """
    from hri_emo_ros.training.loop import CHECKPOINT, Trainer  # loads torch and more

    _check_left_out(recipes)
    results: list[dict[str, Any]] = []
    runs, done = plan(recipes, stage, out), set[Path]()
    for recipe, stages in runs:
        folder = run_folder(recipe, out)
        if folder in done:
            continue
        done.add(folder)
        if resume and len(runs) > 1 and (folder / BUNDLE).is_dir():
            if console is not None:
                console.print(_left_alone(recipe, folder), highlight=False, soft_wrap=True)
            continue
        if console is not None and len(runs) > 1:
            console.rule(str(folder.relative_to(out)), align="left")
        trainer = Trainer(_prepared(recipe, out, stages), root, folder, console, out / KEPT)
        again = resume and ((folder / CHECKPOINT).is_dir() or len(runs) == 1)
        results.append(trainer.run(resume=again))
    return results


def _left_alone(recipe: Recipe, folder: Path) -> str:
    """What to say of a finished run: which settings it was trained with that differ from today's."""
    said = f"{recipe.stage or recipe.name}: finished in '{folder}', left alone"
    file = folder / RECIPE_FILE
    if not file.is_file():
        return said
    then = _flat(yaml.safe_load(file.read_text(encoding="utf-8")))
    now = _flat(json.loads(recipe.model_dump_json()))
    changed = [
        f"{key} {then.get(key)} (now {now.get(key)})"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not key.startswith(_OF_THE_RUN)
        and not str(now.get(key)).startswith(_REFERENCE)
    ]  # fmt: skip
    if not changed:
        return said
    return f"{said}; it was trained with {', '.join(changed)}: move it away to train it again"


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key; a list, or an unset section, is one leaf."""
    if not isinstance(value, dict):
        return {key.rstrip("."): value}
    return {k: v for name, part in value.items() for k, v in _flat(part, f"{key}{name}.").items()}


def _prepared(recipe: Recipe, out: Path, stages: Sequence[Recipe]) -> Recipe:
    recipe = _unheard(resolve(recipe, out, stages), out, stages)
    names = [corpus.name for corpus in recipe.data.corpora]
    return (
        recipe
        if recipe.data.leave_corpus_out in names
        else _with(recipe, {"leave_corpus_out": None})
    )


def _check_left_out(recipes: Sequence[Recipe]) -> None:
    known = {corpus.name for recipe in recipes for corpus in recipe.data.corpora}
    for recipe in recipes:
        for name in (recipe.data.leave_corpus_out, *recipe.left_out.corpora):
            if name is not None and name not in known:
                raise HriEmoError(
                    f"'data.leave_corpus_out' is '{name}', must be one of: {', '.join(sorted(known))}"
                )
