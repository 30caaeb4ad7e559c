"""One training run: from a validated configuration to a bundle with its figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.batches import BatchMaker
from hri_emo_ros.training.checkpoints import load_checkpoint, save_checkpoint
from hri_emo_ros.training.conditions import clean_states
from hri_emo_ros.training.config import CONFIG_FILE, TrainConfig
from hri_emo_ros.training.cross_fit import cross_fit
from hri_emo_ros.training.data import Sampler, load_data, validation_examples
from hri_emo_ros.training.finish import finish
from hri_emo_ros.training.imitate import imitate
from hri_emo_ros.training.imitate_words import imitate_words
from hri_emo_ros.training.log import TensorBoard
from hri_emo_ros.training.module import TrainingModule
from hri_emo_ros.training.optim import (
    Average,
    make_optimizer,
    schedule,
    tune_allocator,
)
from hri_emo_ros.training.prune_text_encoder import whole_text_encoder
from hri_emo_ros.training.setup import (
    compact_encoder,
    lengths_of,
    make_augmenters,
    make_network,
    make_sources,
    teach,
)
from hri_emo_ros.training.validation import Predictions, mean_over_corpora, predict, score_by_corpus
from hri_emo_ros.training.whisper_weights import whole_encoder

CHECKPOINT, BEST = "checkpoint", "best"


class Trainer:
    """Trains one stage.

    Args:
        config: of the stage; ``stage:`` references already replaced by folders.
        root: data root.
        folder: of the run; made if need be.
        console: for progress; None is silent.
    """

    def __init__(
        self, config: TrainConfig, root: Path, folder: Path, console: Console | None = None
    ) -> None:
        self.config, self.root, self.folder, self.console = config, root, folder, console
        tune_allocator()
        fusion = config.model.head in ("hri_emo", "late_fusion")
        # No dispatching by accelerate: batches are functions of their number, so each process
        # makes its own share.
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            cpu=not torch.cuda.is_available(),
            # A batch without any words leaves the words' parameters without a gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=fusion)],
        )
        self.data = load_data(config, root)
        self._say(
            f"{len(self.data.train)} items to train on, {len(self.data.validation)} to validate"
        )
        for corpus, reasons in self.data.left_out.items():
            for reason, count in reasons.items():
                self._say(f"  {corpus}: left out {count} x {reason}")
        folder.mkdir(parents=True, exist_ok=True)
        with self.accelerator.main_process_first():  # a pruned encoder is written once
            self.network = make_network(config, self.data, folder)
        with self._progress() as bars:
            self.sources = make_sources(config, self.network, self.data, root, bars)
            if config.distill.teacher:
                self.sources.teacher = teach(
                    config, [*self.data.train, *self.data.validation], self.sources, bars
                )
        self.lengths = lengths_of([*self.data.train, *self.data.validation], self.sources)
        model_config = self.network.model.config
        augmenters = make_augmenters(config, self.sources, self.data, root, fusion)
        self.maker = BatchMaker(config, model_config, self.sources, augmenters)
        self.sampler = Sampler(config, self.data.train, self.lengths)
        self.examples = validation_examples(config, self.data.validation)
        self.states = clean_states(self, self.examples) if fusion else None
        self.module = TrainingModule(self.network.model, config, len(self.sources.words))
        optimizer = make_optimizer(self.module, self.network.pretrained, config.optim)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.module, optimizer)
        self.average = Average(self.module, config.optim.ema) if config.optim.ema else None
        world = self.accelerator.num_processes
        self.batches_per_epoch = max(1, self.sampler.batches // world)
        self.steps_per_epoch = max(1, self.batches_per_epoch // config.optim.accumulate)
        self.total_steps = max(1, round(config.optim.epochs * self.steps_per_epoch))
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best = -1e30
        self.stale = 0

    # The run

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
        self._write_config()
        if resume:
            self._restore(self.folder / CHECKPOINT)
        else:
            self._imitate()
            self._cross_fit()
            torch.manual_seed(self.config.seed)
        board = TensorBoard(self.folder / "tensorboard") if self._logs() else None
        started = time.perf_counter()
        finished = self._loop(board, stop_after)
        seconds = time.perf_counter() - started
        if not finished:
            if self.accelerator.is_main_process:
                self._checkpoint(CHECKPOINT)
            return {}
        self.accelerator.wait_for_everyone()
        if self.config.select == "best" and (self.folder / BEST).is_dir():
            load_checkpoint(self.folder / BEST, self.module, self.average, self.optimizer)
        if self.average is not None:
            self.average.swap()
        predictions = self.validate() if self.examples else None
        result = {}
        if self.accelerator.is_main_process:
            result = finish(self, predictions, seconds)
        if board is not None:
            board.close()
        return result

    def _imitate(self) -> None:
        """Let pruned encoders learn from the whole ones."""
        self._imitate_words()
        self._imitate_voice()
        if self.average is not None:  # it began with the encoders' weights from before
            self.average = Average(self.module, self.config.optim.ema)

    def _imitate_words(self) -> None:
        section = self.config.text_to_prune()
        if section is None or section.imitate is None:
            return
        with self._progress() as bars:
            error = imitate_words(
                self.network.model, whole_text_encoder(section.source), self.sampler, self.maker,
                section.imitate, bars,
            )  # fmt: skip
        self._say(f"imitation leaves {error:.3f} of the whole network's sentences unexplained")

    def _imitate_voice(self) -> None:
        section, augment = self.config.audio_to_prune(), self.maker.augment.mel
        if section is None or section.imitate is None:
            return
        if self.sources.mel is None or augment is None:
            raise HriEmoError("'prune_audio.imitate' needs 'augment.mel.enabled: true'")
        voices = [item for item in self.data.train if item.audio is not None]
        with self._progress() as bars:
            error = imitate(
                compact_encoder(self.network.model), whole_encoder(section.source, section.layers),
                voices, self.sources.mel, augment, section.imitate, self.config.seed, bars,
            )  # fmt: skip
        self._say(f"imitation leaves {error:.3f} of the whole network's variance unexplained")

    def _cross_fit(self) -> None:
        if self.module.cross_fitted is not None:
            with self._progress() as bars:
                cross_fit(self.module, self.sampler, self.maker, self.config, bars)

    def _loop(self, board: TensorBoard | None, stop_after: int | None) -> bool:
        """Steps until the end; False when it stopped at `stop_after`."""
        validate_every = max(1, round(self.config.validate_every * self.steps_per_epoch))
        losses: dict[str, float] = {}
        counted = 0
        batches = self.sampler.epoch(self.step // self.steps_per_epoch)
        self.module.train()
        with self._progress() as bars:
            bar = bars.steps(f"training {self.folder.name}", self.total_steps, self.step)
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
                                  f"{self.config.monitor}")  # fmt: skip
                        break
        return True

    def _train_step(self, batches: list[Any], epoch: int, within: int) -> dict[str, float]:
        config = self.config.optim
        schedule(self.optimizer, self.step, self.total_steps, config)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        sums: dict[str, float] = {}
        for part in range(config.accumulate):
            number = (within * config.accumulate + part) * world + rank
            batch = self.maker.train(batches[number % len(batches)], epoch, number)
            with self.accelerator.autocast():
                result = self.wrapped(batch.to(self.accelerator.device))
            self.accelerator.backward(result.losses["total"] / config.accumulate)
            for name, value in result.losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / config.accumulate
        self.accelerator.clip_grad_norm_(self.module.parameters(), config.clip_norm)
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
        predictions = self.validate() if self.examples else None
        if self.average is not None:
            self.average.swap()
        scores = self.scores(predictions) if predictions is not None else {}
        watched = mean_over_corpora(scores, self.config.monitor) if scores else -losses["total"]
        if scores and self.config.monitor == "loss":
            watched = -watched
        self.history.append({"epoch": epoch, "step": self.step, "train": losses, "validation": scores,
                             "watched": watched})  # fmt: skip
        figures = "  ".join(
            f"{name} UA {value['ua']:.3f} F1 {value['macro_f1']:.3f}"
            for name, value in scores.items()
            if "ua" in value and (name != "all" or len(scores) == 1)
        )
        bars.say(f"epoch {epoch:5.1f}  loss {losses['total']:.3f}  {figures}")
        if board is not None:
            rates = self.optimizer.param_groups[0]["lr"]
            board.write(self.step, losses, scores, predictions, rates, self.config.model.labels)
        better = watched > self.best
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = watched
        if self.accelerator.is_main_process:
            self._checkpoint(CHECKPOINT)
            if better and self.config.select == "best":
                self._checkpoint(BEST)
        return bool(self.config.early_stopping and self.stale >= self.config.early_stopping)

    # Parts

    def validate(self) -> Predictions:
        """Score the validation examples with the weights as they are."""
        return predict(
            self.module,
            self.maker,
            self.examples,
            self.accelerator.device,
            self.states,
            self.lengths,
        )

    def scores(self, predictions: Predictions) -> dict[str, dict[str, float]]:
        """Figures by corpus."""
        multi = self.config.model.objective == "multi_label"
        return score_by_corpus(
            predictions, multi, self.sources.words, self.config.auxiliary.words_of
        )

    def _checkpoint(self, name: str) -> None:
        state = {"step": self.step, "history": self.history, "best": self.best, "stale": self.stale}
        save_checkpoint(self.folder / name, self.module, self.average, self.optimizer, state)

    def _restore(self, folder: Path) -> None:
        state = load_checkpoint(folder, self.module, self.average, self.optimizer)
        self.step, self.history = int(state["step"]), list(state["history"])
        self.best, self.stale = float(state["best"]), int(state["stale"])
        self._say(f"resumed at step {self.step} of {self.total_steps}")

    def _write_config(self) -> None:
        if self.accelerator.is_main_process:
            text = yaml.safe_dump(json.loads(self.config.model_dump_json()), sort_keys=False)
            (self.folder / CONFIG_FILE).write_text(text, encoding="utf-8")

    def _logs(self) -> bool:
        return self.config.tensorboard and self.accelerator.is_main_process

    def _say(self, text: str) -> None:
        if self.console is not None and self.accelerator.is_main_process:
            self.console.print(text, highlight=False)

    def _progress(self) -> Bars:
        return Bars(self.console if self.accelerator.is_main_process else None)


class Bars:
    """Progress bars with the time left; silent without a console."""

    def __init__(self, console: Console | None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=console or Console(quiet=True),
            disable=console is None, transient=True,
        )  # fmt: skip

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, count: int) -> Callable[[], None]:
        """A bar for `count` things; call the result after each."""
        return self.steps(what, count, 0)

    def steps(self, what: str, count: int, done: int) -> Callable[[], None]:
        """As above, with some done already."""
        task = self._progress.add_task(what, total=count, completed=done)
        return lambda: self._progress.advance(task)

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(text, highlight=False)
