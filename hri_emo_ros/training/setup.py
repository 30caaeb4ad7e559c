"""Everything that a run needs before its first step: network, tokenizer, clips, augmenters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.batch import ModelItem
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.model.compact_audio import CompactAudioEncoder
from hri_emo_ros.model.config import EncoderSpec
from hri_emo_ros.model.encoders import AudioEncoder
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.tokenizer import TextTokenizer, load_tokenizer, train_tokenizer
from hri_emo_ros.training.audio_store import AudioStore
from hri_emo_ros.training.augment import WaveformAugment
from hri_emo_ros.training.batches import Augmenters, Sources
from hri_emo_ros.training.config import TrainConfig
from hri_emo_ros.training.data import Data, balance_weights, voices_and_words
from hri_emo_ros.training.mel_augment import MelAugment
from hri_emo_ros.training.mel_store import MelStore, mean_square_weights, mel_centres
from hri_emo_ros.training.noises import noise_bank
from hri_emo_ros.training.pairs import from_item
from hri_emo_ros.training.prune_audio_encoder import prune_audio_encoder, whole_encoder
from hri_emo_ros.training.prune_text_encoder import prune_text_encoder, whole_text_encoder
from hri_emo_ros.training.ruin import Ruin
from hri_emo_ros.training.text_augment import TextAugment, WordErrors
from hri_emo_ros.training.unheard_heads import speaker_folds
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

Progress = Callable[[str, int], Callable[[], None]]
"""Starts a bar: (what, how many) -> function to call after each."""

_VOCABULARY = 4300


@dataclass
class Network:
    """A model and its tokenizer, with the names of parameters that were pretrained."""

    model: EmotionModel
    tokenizer: TextTokenizer | None
    pretrained: set[str]


def make_network(config: TrainConfig, data: Data, folder: Path) -> Network:
    """Build the network and fill in pretrained weights.

    Args:
        config: of the run; ``stage:`` names are already folders.
        data: texts for a vocabulary where the text encoder starts from nothing.
        folder: where a pruned text encoder is put.

    Raises:
        HriEmoError: weights are missing or do not fit.
    """
    torch.manual_seed(config.seed)
    transformers_logging.disable_progress_bar()
    config = _prune_audio(_prune(config, data, folder), data, folder)
    sources = {
        part: load_bundle(getattr(config.pretrained, part))
        for part in ("bundle", "audio", "text")
        if getattr(config.pretrained, part)
    }
    model_config = config.model
    updates: dict[str, EncoderSpec] = {}
    tokenizer: TextTokenizer | None = None
    for part in ("audio", "text"):
        source = sources.get(part) or sources.get("bundle")
        spec: EncoderSpec = getattr(model_config, part)
        if source is None or spec.kind == "features" or not getattr(source.config, f"uses_{part}"):
            continue
        # The bundle's own encoder configuration, with this run's say on what is trained.
        taken = getattr(source.model.portable_config(), part)
        updates[part] = taken.model_copy(
            update={"unfreeze_last_n_layers": spec.unfreeze_last_n_layers}
        )
        if part == "text":
            tokenizer = source.tokenizer
    model_config = model_config.model_copy(update=updates)
    if model_config.uses_text and model_config.text.kind != "features" and tokenizer is None:
        tokenizer = _tokenizer(model_config.text, data)
        if model_config.text.kind == "compact" and not (model_config.text.config or {}).get(
            "vocab_size"
        ):
            size = {"vocab_size": tokenizer.vocabulary_size}
            spec = model_config.text
            spec = spec.model_copy(update={"config": {**(spec.config or {}), **size}})
            model_config = model_config.model_copy(update={"text": spec})
    model = EmotionModel(model_config, seed=config.seed)
    pretrained = {
        f"model.{part}_encoder."
        for part in ("audio", "text")
        if part in updates or getattr(model_config, part).name
    }
    for part, source in sources.items():
        prefixes = ("",) if part == "bundle" else (f"{part}_encoder.", f"{part}_head.")
        _copy_weights(source.model, model, prefixes, getattr(config.pretrained, part))
    return Network(model, tokenizer, pretrained)


def _copy_weights(
    source: EmotionModel, target: EmotionModel, prefixes: tuple[str, ...], name: str
) -> None:
    """Copy what both have; a part that both have must fit whole, but for a bundle's fusion."""
    own = target.state_dict()
    wanted = {k: v for k, v in source.state_dict().items() if k.startswith(prefixes) and k in own}
    for key, value in wanted.items():
        if own[key].shape != value.shape:
            raise HriEmoError(
                f"'pretrained': '{key}' is {list(value.shape)} in bundle '{name}' but "
                f"{list(own[key].shape)} in the model; give 'model' the same sizes (head_hidden, "
                "d_model, ...)"
            )
    of_parts = {prefix for prefix in prefixes if prefix and hasattr(target, prefix.rstrip("."))}
    missing = (
        [k for k in own if k.startswith(tuple(of_parts)) and k not in wanted] if of_parts else []
    )
    if not wanted or missing:
        raise HriEmoError(
            f"'pretrained': bundle '{name}' has no '{missing[0] if missing else 'weight'}' that the "
            "model needs; give 'model' the same head_norm and encoder"
        )
    target.load_state_dict(wanted, strict=False)


def _prune(config: TrainConfig, data: Data, folder: Path) -> TrainConfig:
    section, out = config.text_to_prune(), folder / "pruned_text_encoder"
    if section is None:
        return config
    try:
        prune_text_encoder(
            whole_text_encoder(section.source), [item.text for item in data.train if item.text],
            out, layers=section.layers, vocabulary_size=section.vocabulary_size,
            max_positions=section.max_positions, intermediate_size=section.intermediate_size,
        )  # fmt: skip
    except (ValueError, FileNotFoundError) as error:
        raise HriEmoError(f"'prune': {error}") from error
    spec = config.model.text.model_copy(update={"kind": "transformers", "name": str(out)})
    return config.model_copy(update={"model": config.model.model_copy(update={"text": spec})})


def _prune_audio(config: TrainConfig, data: Data, folder: Path) -> TrainConfig:
    section = config.audio_to_prune()
    if section is None:
        return config
    out = folder / "pruned_audio_encoder"
    whole = whole_encoder(section.source, section.layers)
    encoder = prune_audio_encoder(
        whole, _some_voices(config, data, whole, section.clips),
        conv_channels=section.conv_channels, query_size=section.query_size,
        value_size=section.value_size, intermediate_size=section.intermediate_size,
    )  # fmt: skip
    encoder.save_pretrained(out)
    spec = config.model.audio.model_copy(update={"kind": "compact", "name": str(out)})
    return config.model_copy(update={"model": config.model.model_copy(update={"audio": spec})})


@torch.no_grad()
def _some_voices(
    config: TrainConfig, data: Data, encoder: CompactAudioEncoder, most: int
) -> list[torch.Tensor]:
    """Active frames of training clips, normalised, on which an encoder's parts are solved."""
    voices = [item for item in data.train if item.audio is not None]
    rng = np.random.default_rng(config.seed)
    chosen = [voices[i] for i in rng.choice(len(voices), min(most, len(voices)), replace=False)]
    audio = AudioStore()
    audio.load(chosen)
    clips = []
    for item in chosen:
        log_mel, active = encoder.log_mel(torch.from_numpy(audio.samples(item))[None])
        clips.append(log_mel[0][active[0]])
    return clips


def _tokenizer(spec: EncoderSpec, data: Data) -> TextTokenizer:
    place = spec.tokenizer or (spec.name if spec.kind == "transformers" else "")
    if place:
        return load_tokenizer(place, spec.allow_download)
    texts = [item.text for item in data.train if item.text]
    size = int((spec.config or {}).get("vocab_size", _VOCABULARY))
    return train_tokenizer(texts, size)


def make_sources(
    config: TrainConfig, network: Network, data: Data, root: Path, progress: Progress
) -> Sources:
    """Decode and transform every clip that the model listens to."""
    cache = root / config.data.cache if config.data.cache else None
    sources = Sources(audio=AudioStore(cache), tokenizer=network.tokenizer)
    everything = [*data.train, *data.validation]
    spec = network.model.config
    if spec.uses_audio and spec.audio.kind != "features":
        clips = [item for item in everything if item.audio is not None]
        sources.audio.load(clips, progress("decoding", len(clips)))
        if config.augment.mel.enabled or spec.audio.kind == "compact":
            speeds = config.augment.mel.speeds if config.augment.mel.enabled else (1.0,)
            sources.mel = MelStore(compact_encoder(network.model), sources.audio, speeds)
            bar = progress("mel spectrograms", len(clips))
            sources.mel.load(data.train, config.augment.mel.enabled, bar)
            sources.mel.load(data.validation, False, bar)
        if spec.head in ("hri_emo", "late_fusion"):
            sources.quality = measure(clips, sources.audio, progress("signal quality", len(clips)))
    if config.optim.balance:
        sources.weights = balance_weights(data.train, config.optim.balance)
    if config.pretrained.cross_fit is not None:
        voices = [e.voice for e in map(from_item, data.train) if e.voice is not None]
        sources.folds = speaker_folds(voices, config.pretrained.cross_fit.folds)
    if config.auxiliary.words_weight:
        wanted = config.auxiliary.words_of
        sources.words = sorted({i.label for i in everything if i.corpus == wanted})
    return sources


def compact_encoder(model: EmotionModel) -> CompactAudioEncoder:
    """The compact encoder inside `model`.

    Raises:
        HriEmoError: it has another one, which reads waveforms.
    """
    encoder = model.audio_encoder
    if isinstance(encoder, AudioEncoder) and isinstance(encoder.model, CompactAudioEncoder):
        return encoder.model
    raise HriEmoError(
        "'augment.mel' needs the compact audio encoder; use 'augment.waveform' with any other"
    )


def measure(
    items: Sequence[Item], audio: AudioStore, progress: Callable[[], None]
) -> dict[str, tuple[float, float]]:
    """SNR (dB) and seconds of speech by item id, measured as on the robot."""
    from hri_emo_ros.audio.quality import measure_quality

    measured = {}
    for item in items:
        samples = audio.samples(item)
        quality = measure_quality(samples)
        measured[item.id] = (
            quality.snr_db,
            quality.speech_fraction * len(samples) / SAMPLE_RATE,
        )
        progress()
    return measured


def make_augmenters(
    config: TrainConfig, sources: Sources, data: Data, root: Path, fusion: bool
) -> Augmenters:
    """What happens to training examples only, and the noise of the conditions that validation asks for."""
    section = config.augment
    made = Augmenters()
    texts = [item for item in data.train if item.text]
    errors = WordErrors([item.text for item in texts if item.text])
    hears = config.model.uses_audio and config.model.audio.kind != "features"
    voices = [item for item in data.train if hears and item.audio is not None]
    ruined = fusion and bool(voices) and bool(section.ruin.audio_noise_p)
    if ruined or (sources.mel is not None and section.mel.enabled):
        noise_folder = section.mel.noise_folder
        if sources.mel is None:
            noise_folder = section.waveform.noise.folder
        folder = root / noise_folder if noise_folder else None
        made.noises = noise_bank(sources.audio, voices, folder, config.seed)
    if sources.mel is not None and made.noises:
        store = sources.mel
        noises = {
            kind: [store.power_of(samples) for samples in recordings]
            for kind, recordings in made.noises.items()
        }
        made.mel = MelAugment(
            mel_centres(store.encoder), store.frame_rate, noises, torch.Generator(),
            section.mel.settings, mean_square_weights(store.encoder),
        )  # fmt: skip
    elif sources.mel is None:
        waveform = WaveformAugment(section.waveform, root)
        made.waveform = waveform if waveform.active else None
    if section.text.lower_p or section.text.errors_p:
        made.text = TextAugment(section.text, errors)
    if fusion:
        strangers = voices_and_words(data.train)[1] or texts
        kinds = tuple(made.noises)
        made.ruin = Ruin(section.ruin, errors, strangers, sources.quality or {}, kinds)
    return made


def lengths_of(items: Sequence[Item], sources: Sources) -> dict[str, float]:
    """What an item costs, by id, for putting like with like."""
    lengths = {}
    for item in items:
        if item.audio_features is not None:
            lengths[item.id] = float(len(item.audio_features))
        elif item.audio is not None and sources.mel is not None:
            lengths[item.id] = float(sources.mel.active_frames(item))
        elif item.audio is not None:
            lengths[item.id] = sources.audio.seconds(item)
        else:
            lengths[item.id] = float(len(item.text or ""))
    return lengths


@torch.no_grad()
def teach(
    config: TrainConfig, items: Sequence[Item], sources: Sources, progress: Progress
) -> dict[str, FloatArray]:
    """The teacher's softened probabilities by item id, on the items as they are."""
    from hri_emo_ros.model.batch import collate

    teacher = load_bundle(config.distill.teacher)
    if teacher.labels != config.model.labels:
        raise HriEmoError(f"the teacher '{config.distill.teacher}' has other labels than the model")
    result: dict[str, FloatArray] = {}
    bar = progress("asking the teacher", len(items))
    order = sorted(items, key=lambda item: len(item.text or ""))
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        batch = collate(
            [
                ModelItem(
                    samples=sources.audio.samples(i)
                    if i.audio is not None and teacher.config.uses_audio
                    else None,
                    text=i.text,
                )
                for i in part
            ],
            teacher.config,
            teacher.tokenizer,
        )
        p = torch.softmax(teacher.model(batch).logits / config.distill.temperature, dim=-1)
        for item, row in zip(part, p.numpy(), strict=True):
            result[item.id] = row
            bar()
    return result
