# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""One training run: from a recipe to a bundle with its figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hri_emo_ros.data.clip_facts import ClipFacts, survey, transcripts
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.data.noise import NoiseBank
from hri_emo_ros.model.encoders import AudioEncoder
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.training.augment import Conditions, Listener, WaveformAugment
from hri_emo_ros.training.batches import BatchMaker, Sources
from hri_emo_ros.training.checkpoints import load_checkpoint, save_checkpoint
from hri_emo_ros.training.conditions import stated
from hri_emo_ros.training.finish import Trained, finish
from hri_emo_ros.training.items import (
    Data,
    balance_weights,
    labels_of_corpora,
    load_data,
    voices_and_words,
)
from hri_emo_ros.training.known import Known
from hri_emo_ros.training.module import TrainingModule
from hri_emo_ros.training.network import Network, make_network
from hri_emo_ros.training.optim import Average, make_optimizer, schedule
from hri_emo_ros.training.pairs import Example, Sampler, recorded_pairs, validation_examples
from hri_emo_ros.training.predictions import (
    Predictions,
    Scorer,
    mean_over_corpora,
    scores_by_corpus,
)
from hri_emo_ros.training.recipe import RECIPE_FILE, Recipe, WaveformSection
from hri_emo_ros.training.speech import fit_speech
from hri_emo_ros.training.tensorboard import TensorBoard
from hri_emo_ros.training.unheard import UnheardVoices
from hri_emo_ros.training.voices import Rooms, VoiceStates, babble_beside
from hri_emo_ros.types import SAMPLE_RATE

CHECKPOINT, BEST = "checkpoint", "best"


@dataclass
class Parts:
    """What a run works with, made before its first step."""

    data: Data
    network: Network
    maker: BatchMaker
    truthful: Conditions
    """Of the validation side."""
    lengths: dict[str, float]
    """An item's cost by id."""


def prepare(
    recipe: Recipe, root: Path, folder: Path, kept: Path, say: Callable[[str], None], bars: Bars
) -> Parts:
    """Read the data, make the network, and hear every clip once.

    Args:
        recipe: of the stage; ``stage:`` references already replaced by folders.
        root: data root.
        folder: of the run.
        kept: where what is heard of clips is kept for other runs.

    Raises:
        HriEmoError: data or weights are missing or do not fit.
    """
    data = load_data(recipe, root)
    say(f"{len(data.train)} items to train on, {len(data.validation)} to validate")
    for corpus, reasons in data.left_out.items():
        for reason, count in reasons.items():
            say(f"  {corpus}: left out {count} x {reason}")
    network = make_network(recipe, folder)
    model = network.model.config
    everything = [*data.train, *data.validation]
    clips = [i for i in everything if i.audio is not None]
    fusion = model.uses_audio and model.uses_text
    facts: dict[str, ClipFacts] = {}
    if clips:
        bar = bars.bar("hearing clips", len(clips))
        facts = survey(clips, kept / "clips.json", fusion, bar)
    voices = [i for i in data.train if i.audio is not None]
    bank = _noises(recipe, root, voices, clips, fusion)
    section, kinds = recipe.augment, bank.kinds if bank is not None else ()
    rooms = root / section.rooms if section.rooms else None
    # A stage of words alone needs none.
    waveform = section.waveform if voices else WaveformSection()
    most = int(recipe.model.max_audio_seconds * SAMPLE_RATE)
    listener = Listener(WaveformAugment(waveform, rooms), bank, most)
    texts = [i.text for i in data.train if i.text]
    levels = {name: fact.snr_db for name, fact in facts.items()}
    drawn = Conditions(section, texts, _other_words(data.train), levels, kinds)
    truthful = Conditions(
        section, [i.text for i in everything if i.text], _other_words(data.validation), levels, kinds,
        jitter=False,
    )  # fmt: skip
    weights = balance_weights(data.train, recipe.optim.balance)
    labels = labels_of_corpora(everything)
    sources = Sources(listener, network.tokenizer, facts, weights=weights, labels=labels)
    maker = BatchMaker(model, sources, drawn, recipe.seed)
    if section.words.heard and fusion:
        pairs = recorded_pairs(data.train)
        bar = bars.bar("recognising", len(pairs))
        sources.heard = transcripts(pairs, kept / "transcripts.json", bar)
    if section.versions and model.uses_audio:
        settings = section.model_dump(include={"waveform", "rooms", "noise"})
        changes = json.dumps([recipe.seed, most, settings], sort_keys=True)
        encoder = network.model.audio_encoder
        assert isinstance(encoder, AudioEncoder)  # the recipe has no other with versions
        together = Rooms(clips, recipe.seed)  # the same for every fold
        keep = kept / "states"
        states = VoiceStates(keep, encoder, listener, drawn, together, changes, section.versions)
        bar = bars.bar("voice encoder", len(clips))
        states.load(voices, True, bar)
        heard = [i for i in data.validation if i.audio is not None]
        states.load(heard, False, bar)
        sources.states = states
        if model.baseline is not None:
            _know(recipe, network.model, sources, voices, heard)
    lengths = {item.id: _length(item, facts) for item in everything}
    return Parts(data, network, maker, truthful, lengths)


def _know(
    recipe: Recipe, model: EmotionModel, sources: Sources, voices: Sequence[Item],
    heard: Sequence[Item],
) -> None:  # fmt: skip
    """Give the network what it judges voices against, and draw what is known of each."""
    states, config, bank = sources.states, recipe.model.baseline, sources.listener.bank
    assert states is not None and config is not None
    if not recipe.pretrained.audio:
        rows = torch.from_numpy(np.stack([states.statistics(item, 0) for item in voices]))
        model.baseline.fit(rows, [i.speaker or i.id for i in voices], [i.corpus for i in voices])
        if bank is not None:
            fit_speech(model, voices, states, bank, recipe.seed)
    population = model.baseline.population.numpy()
    sources.known = Known(config, states, voices, states.versions, population)
    if recipe.pretrained.unheard_runs:
        sources.unheard = UnheardVoices([Path(run) for run in recipe.pretrained.unheard_runs])
    everybody = [*voices, *heard]
    sources.known_validation = Known(config, states, everybody, 0, population)


def _other_words(items: Sequence[Item]) -> list[Item]:
    return voices_and_words(items)[1] or [item for item in items if item.text]


def _noises(
    recipe: Recipe, root: Path, voices: Sequence[Item], clips: Sequence[Item], fusion: bool
) -> NoiseBank | None:
    """Noise for training, and for the conditions in which fusion is reported: babble of training voices, and
    that of `babble_beside` each of the clips."""
    section = recipe.augment.noise
    if not voices or not (section.p or fusion):
        return None
    files = sorted({item.audio for item in voices if item.audio is not None})
    babbles: dict[str, list[Path]] = {}
    for item in clips:
        if item.audio is not None:
            babbles.setdefault(babble_beside(item), []).append(item.audio)
    folder = root / section.folder if section.folder else None
    return NoiseBank(files, folder, recipe.seed, {k: sorted(v) for k, v in babbles.items()})


def _length(item: Item, facts: dict[str, ClipFacts]) -> float:
    if item.audio_features is not None:
        return float(len(item.audio_features))
    return facts[item.id].seconds if item.id in facts else float(len(item.text or ""))


class Trainer:
    """Trains one stage.

    Args:
        recipe: of the stage; ``stage:`` references already replaced by folders.
        root: data root.
        folder: of the run; made if need be.
        console: for progress; None is silent.
        kept: folder for what is heard of clips, shared by runs; None is one beside the run's.
    """

    def __init__(
        self, recipe: Recipe, root: Path, folder: Path, console: Console | None = None,
        kept: Path | None = None,
    ) -> None:  # fmt: skip
        self.recipe, self.folder, self.console = recipe, folder, console
        fusion = recipe.model.uses_audio and recipe.model.uses_text
        # No dispatching by accelerate: batches are functions of their number, so each process
        # makes its own share.
        self.accelerator = Accelerator(
            mixed_precision=recipe.mixed_precision,
            cpu=not torch.cuda.is_available(),
            # A batch without any words leaves the words' parameters without a gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=fusion)],
        )
        folder.mkdir(parents=True, exist_ok=True)
        kept = kept or folder.parent / "kept"
        with self.accelerator.main_process_first(), self._progress() as bars:  # files written once
            parts = prepare(recipe, root, folder, kept, self._say, bars)
        self.data, self.network, self.truthful = parts.data, parts.network, parts.truthful
        self.maker, self.lengths = parts.maker, parts.lengths
        self.sampler = Sampler(recipe, self.data.train, self.lengths)
        self.examples = validation_examples(recipe, self.data.validation)
        self.conditions = stated(self.truthful, self.examples)
        self.module = TrainingModule(
            self.network.model, recipe.loss, recipe.pretrained.freeze_heads
        )
        optimizer = make_optimizer(self.module, self.network.pretrained, recipe.optim)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.module, optimizer)
        self.scorer = Scorer(self.module, self.maker, self.accelerator.device, self.lengths)
        self.average = Average(self.module, recipe.optim.ema) if recipe.optim.ema else None
        batches_per_epoch = max(1, self.sampler.batches // self.accelerator.num_processes)
        self.steps_per_epoch = max(1, batches_per_epoch // recipe.optim.accumulate)
        self.total_steps = max(1, round(recipe.optim.epochs * self.steps_per_epoch))
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best = -1e30
        self.stale = 0

    def run(self, resume: bool = False, stop_after: int | None = None) -> dict[str, Any]:
        """Train, validate, calibrate, write the bundle and metrics.json.

        Args:
            resume: go on from the last checkpoint.
            stop_after: leave after this many steps in all, with a checkpoint but without a bundle (for
                machines that are taken away).

        Returns:
            What metrics.json holds; empty when stopped early.

        Raises:
            HriEmoError: there is nothing to resume.
        """
        main = self.accelerator.is_main_process
        if main:
            text = yaml.safe_dump(json.loads(self.recipe.model_dump_json()), sort_keys=False)
            (self.folder / RECIPE_FILE).write_text(text, encoding="utf-8")
        if resume:
            self._restore()
        else:
            torch.manual_seed(self.recipe.seed)
        board = TensorBoard(self.folder / "tensorboard") if main else None
        started = time.perf_counter()
        finished = self._loop(board, stop_after)
        seconds = time.perf_counter() - started
        if not finished:
            if main:
                self._checkpoint(CHECKPOINT)
            return {}
        self.accelerator.wait_for_everyone()
        if self.recipe.select == "best" and (self.folder / BEST).is_dir():
            load_checkpoint(self.folder / BEST, self.module, self.average, self.optimizer)
        if self.average is not None:
            self.average.swap()
        predictions = self._validate()
        result = {}
        if main:
            trained = Trained(
                self.recipe, self.folder, self.data, self.network,
                self.sampler.constructed / max(1, self.sampler.count), self.step, seconds, self.history,
            )  # fmt: skip
            result = finish(trained, self.scorer, predictions, self.truthful)
        if board is not None:
            board.close()
        return result

    def _loop(self, board: TensorBoard | None, stop_after: int | None) -> bool:
        """Steps until the end; False when it stopped at `stop_after`."""
        validate_every = max(1, round(self.recipe.validate_every * self.steps_per_epoch))
        losses: dict[str, float] = {}
        counted = 0
        batches = self.sampler.epoch(self.step // self.steps_per_epoch)
        self.module.train()
        with self._progress() as bars:
            bar = bars.bar(f"training {self.folder.name}", self.total_steps, self.step)
            while self.step < self.total_steps:
                if stop_after is not None and self.step >= stop_after:
                    return False
                epoch, within = divmod(self.step, self.steps_per_epoch)
                if within == 0:
                    batches = self.sampler.epoch(epoch)
                for name, value in self._train_step(batches, epoch, within).items():
                    losses[name] = losses.get(name, 0.0) + value
                counted += 1
                self.step += 1
                bar()
                if self.step % validate_every == 0 or self.step == self.total_steps:
                    means = {name: value / counted for name, value in losses.items()}
                    losses, counted = {}, 0
                    if self._look(means, board, bars):
                        self._say(f"stopped early: {self.stale} validations without a better "
                                  f"{self.recipe.monitor}")  # fmt: skip
                        break
        return True

    def _train_step(
        self, batches: list[list[Example]], epoch: int, within: int
    ) -> dict[str, float]:
        optim = self.recipe.optim
        schedule(self.optimizer, self.step, self.total_steps, optim.warmup)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        sums: dict[str, float] = {}
        for part in range(optim.accumulate):
            number = (within * optim.accumulate + part) * world + rank
            batch = self.maker.train(batches[number % len(batches)], epoch, number)
            with self.accelerator.autocast():
                result = self.wrapped(batch.to(self.accelerator.device))
            self.accelerator.backward(result.losses["total"] / optim.accumulate)
            for name, value in result.losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / optim.accumulate
        self.accelerator.clip_grad_norm_(self.module.parameters(), optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.step)
        return sums

    def _look(self, losses: dict[str, float], board: TensorBoard | None, bars: Bars) -> bool:
        """Validate, log, keep the best; True when training should end."""
        epoch = self.step / self.steps_per_epoch
        if self.average is not None:
            self.average.swap()
        predictions = self._validate()
        if self.average is not None:
            self.average.swap()
        multi_label = self.recipe.model.objective == "multi_label"
        scores = scores_by_corpus(predictions, multi_label) if predictions is not None else {}
        watched = mean_over_corpora(scores, self.recipe.monitor) if scores else -losses["total"]
        self.history.append({"epoch": epoch, "step": self.step, "train": losses, "validation": scores,
                             "watched": watched})  # fmt: skip
        figures = "  ".join(
            f"{name} UA {value['ua']:.3f} F1 {value['macro_f1']:.3f}"
            for name, value in scores.items()
            if "ua" in value and (name != "all" or len(scores) == 1)
        )
        bars.console.print(
            f"epoch {epoch:5.1f}  loss {losses['total']:.3f}  {figures}", highlight=False
        )
        if board is not None:
            rate = self.optimizer.param_groups[0]["lr"]
            board.write(self.step, losses, scores, predictions, rate, self.recipe.model.labels)
        better = watched > self.best
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = watched
        if self.accelerator.is_main_process:
            self._checkpoint(CHECKPOINT)
            if better and self.recipe.select == "best":
                self._checkpoint(BEST)
        return bool(self.recipe.early_stopping and self.stale >= self.recipe.early_stopping)

    def _validate(self) -> Predictions | None:
        """Score the validation examples with the weights as they are; None where there are none."""
        return self.scorer(self.examples, self.conditions) if self.examples else None

    def _checkpoint(self, name: str) -> None:
        state = {"step": self.step, "history": self.history, "best": self.best, "stale": self.stale}
        save_checkpoint(self.folder / name, self.module, self.average, self.optimizer, state)

    def _restore(self) -> None:
        folder = self.folder / CHECKPOINT
        state = load_checkpoint(folder, self.module, self.average, self.optimizer)
        self.step, self.history = int(state["step"]), list(state["history"])
        self.best, self.stale = float(state["best"]), int(state["stale"])
        self._say(f"resumed at step {self.step} of {self.total_steps}")

    def _say(self, text: str) -> None:
        if self.console is not None and self.accelerator.is_main_process:
            self.console.print(text, highlight=False)

    def _progress(self) -> Bars:
        return Bars(self.console if self.accelerator.is_main_process else None)


class Bars(Progress):
    """Progress bars with the time left; silent without a console."""

    def __init__(self, console: Console | None) -> None:
        super().__init__(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=console or Console(quiet=True),
            disable=console is None, transient=True,
        )  # fmt: skip

    def bar(self, what: str, count: int, done: int = 0) -> Callable[[], None]:
        """A bar for `count` things of which some are done; call the result after each."""
        task = self.add_task(what, total=count, completed=done)
        return lambda: self.advance(task)
