# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""One interface over speech and text encoders: a batch in, states and their mask out.

Encoders come from transformers' Auto classes (WavLM, HuBERT, wav2vec 2.0 and their kin; BERT, RoBERTa
and any other text encoder), for voices from this package (``compact``), or are not there at all (``features``).
Rows without the modality are not encoded, so an absent modality costs nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.config import EncoderSpec, VoiceSpec, WordsSpec
from hri_emo_ros.model.layers import sinusoidal_positions


class AudioEncoder(nn.Module):
    """Waveforms [B, T] and their mask [B, T] -> states [B, F, hidden], mask [B, F]."""

    def __init__(self, spec: VoiceSpec) -> None:
        super().__init__()
        if spec.kind == "compact":
            from hri_emo_ros.model.compact_audio import CompactAudioConfig  # registers Auto classes

            if not spec.name:
                config = {"model_type": CompactAudioConfig.model_type, **(spec.config or {})}
                spec = spec.model_copy(update={"config": config})
        self.spec = spec
        self.model = _make_model(spec, "audio")
        self.hidden_size = int(getattr(self.model, "state_size", self.model.config.hidden_size))
        self.normalize = _normalizes(spec)
        _silence_training_extras(self.model)
        _make_group_norm_exact(self.model)
        self.frozen = _freeze(self.model, spec, "audio")
        self.mix = (
            LayerMix(self.model.config.num_hidden_layers + 1) if spec.layer_weighted_sum else None
        )

    @property
    def frame_period(self) -> float:
        """Seconds from one state to the next."""
        rate = getattr(self.model, "frame_rate", None)
        if rate is not None:
            return 1.0 / float(rate)
        period = 1.0 / 16_000
        for stride in self.model.config.conv_stride:
            period *= stride
        return period

    def train(self, mode: bool = True) -> AudioEncoder:
        """As usual, but what is frozen stays in evaluation mode: no dropout, no batch statistics."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def forward(self, waveform: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.normalize:
            waveform = _unit_variance(waveform, mask)
        waveform = waveform * mask
        for layer in self._masked_norms():
            layer.lengths = mask.sum(1)
        output = self.model(
            waveform, attention_mask=mask.long(), output_hidden_states=self.mix is not None
        )
        states = output.last_hidden_state
        frame_mask = getattr(output, "frame_mask", None)
        if frame_mask is None:
            frame_mask = self.model._get_feature_vector_attention_mask(
                states.shape[1], mask.long()
            ).bool()
        if self.mix is not None:
            states = self.mix(output.hidden_states)
        return states, frame_mask

    def _masked_norms(self) -> list[MaskedInstanceNorm]:
        return [m for m in self.model.modules() if isinstance(m, MaskedInstanceNorm)]


class TextEncoder(nn.Module):
    """Token ids [B, N], mask [B, N] and the mask of the context behind -> states [B, N, hidden], mask."""

    def __init__(self, spec: WordsSpec) -> None:
        super().__init__()
        self.spec = spec
        self.model = _make_model(spec, "text")
        self.hidden_size = int(self.model.config.hidden_size)
        self.frozen = _freeze(self.model, spec, "text")

    @property
    def max_tokens(self) -> int:
        """Longest text that the position embeddings allow (RoBERTa's start behind the padding id)."""
        config = self.model.config
        limit = int(getattr(config, "max_position_embeddings", 512))
        offset = 1 + int(config.pad_token_id or 0) if "roberta" in config.model_type else 0
        return limit - offset

    def train(self, mode: bool = True) -> TextEncoder:
        """As usual, but what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def forward(
        self, input_ids: Tensor, mask: Tensor, context_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        segments, read = {}, mask
        if context_mask is not None:
            read = mask | context_mask
            if getattr(self.model.config, "type_vocab_size", 1) > 1:
                segments = {"token_type_ids": context_mask.long()}  # BERT's second segment
        output = self.model(input_ids=input_ids, attention_mask=read.long(), **segments)
        return output.last_hidden_state, mask


class FeatureEncoder(nn.Module):
    """Precomputed vectors [B, N, width] (N = 1 for one per utterance) -> states [B, N, hidden].

    A LayerNorm brings features of any scale into range; a position code is added since nothing has
    told the later layers the order.
    """

    def __init__(self, spec: EncoderSpec, hidden_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.hidden_size = hidden_size
        self.norm = nn.LayerNorm(spec.width)
        self.project = nn.Linear(spec.width, hidden_size)
        self.frozen = False

    def forward(
        self, features: Tensor, mask: Tensor, context_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`context_mask` is for text encoders; features hold no context."""
        states = self.project(self.norm(features))
        states = states + sinusoidal_positions(states.shape[1], self.hidden_size, states)
        return states * mask.unsqueeze(-1), mask


class LayerMix(nn.Module):
    """Learned weighted sum over an encoder's layers (SUPERB, Yang et al. 2021)."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers))

    def forward(self, layers: tuple[Tensor, ...]) -> Tensor:
        return torch.einsum("l,lbnd->bnd", self.weight.softmax(0), torch.stack(layers))


class MaskedInstanceNorm(nn.Module):
    """The GroupNorm (one channel a group) of wav2vec 2.0's first convolution, over real frames only.

    transformers' own takes its mean and variance over the padding too, so that a clip's states depend
    on the longest clip in the batch.
    """

    lengths: Tensor | None = None
    """[B] samples of the batch about to come; set by `AudioEncoder.forward`."""

    def __init__(self, original: nn.GroupNorm, kernel: int, stride: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = original.weight, original.bias, original.eps
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, F] -> [B, C, F]."""
        if self.lengths is None:
            raise RuntimeError("lengths must be set before each pass")
        frames = (self.lengths - self.kernel) // self.stride + 1
        mask = (torch.arange(x.shape[-1], device=x.device)[None] < frames[:, None])[:, None]
        count = frames.clamp(min=1)[:, None, None].to(x.dtype)
        mean = (x * mask).sum(-1, keepdim=True) / count
        variance = ((x - mean).square() * mask).sum(-1, keepdim=True) / count
        x = (x - mean) * torch.rsqrt(variance + self.eps)
        return x * self.weight[None, :, None] + self.bias[None, :, None]


def _make_model(spec: EncoderSpec, modality: str) -> nn.Module:
    """The transformers model of `spec`: from its configuration if that is known, else pretrained.

    Raises:
        HriEmoError: the configuration or the folder cannot be used.
    """
    from transformers import AutoConfig, AutoModel  # 3 s to import

    place = f"parameter 'model.{modality}"
    if not spec.name and spec.config is None:
        raise HriEmoError(f"there is no {modality} encoder: name a folder in {place}.name'")
    try:
        if spec.config is not None and not spec.name:
            config = AutoConfig.for_model(**spec.config)
            model = AutoModel.from_config(config, **_without_pooler(config))
        else:
            local = {"local_files_only": not spec.allow_download}
            config = AutoConfig.from_pretrained(spec.name, **local)
            model = AutoModel.from_pretrained(spec.name, **local, **_without_pooler(config))
    except Exception as error:  # a dozen types, from OSError to those of the hub's client
        if spec.name and not Path(spec.name).is_dir() and not spec.allow_download:
            raise HriEmoError(
                f"there is no {modality} encoder '{spec.name}', neither as a folder nor in "
                f"transformers' cache: change {place}.name', or set "
                f"'model.{modality}.allow_download: true' to fetch it from the model hub"
            ) from error
        if spec.name:
            reason = " ".join(str(error).split())
            raise HriEmoError(
                f"cannot load the {modality} encoder '{spec.name}' ({place}.name'): {reason}"
            ) from error
        raise HriEmoError(f"{place}.config' does not make an encoder: {error}") from error
    return model.float()


def _without_pooler(config: Any) -> dict[str, bool]:
    """BERT and its kin carry a pooler that nothing here uses; the others do not know the argument."""
    return (
        {"add_pooling_layer": False}
        if config.model_type in ("bert", "roberta", "xlm-roberta")
        else {}
    )


def _normalizes(spec: VoiceSpec) -> bool:
    if spec.normalize is not None:
        return spec.normalize
    if spec.kind == "compact":
        return False
    file = Path(spec.name) / "preprocessor_config.json"
    if spec.name and file.is_file():
        return bool(json.loads(file.read_text(encoding="utf-8")).get("do_normalize", True))
    return True


def _silence_training_extras(model: nn.Module) -> None:
    """SpecAugment inside the encoder fails on short clips and doubles the trainer's augmentation;
    LayerDrop leaves parameters without gradient."""
    for name, value in (("apply_spec_augment", False), ("layerdrop", 0.0)):
        if hasattr(model.config, name):
            setattr(model.config, name, value)


def _make_group_norm_exact(model: nn.Module) -> None:
    extractor = getattr(model, "feature_extractor", None)
    for layer in getattr(extractor, "conv_layers", []):
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            layer.layer_norm = MaskedInstanceNorm(
                norm, layer.conv.kernel_size[0], layer.conv.stride[0]
            )


def _freeze(model: nn.Module, spec: EncoderSpec, modality: str) -> bool:
    """Stop the gradient where `spec` says so; true when nothing is left to train."""
    count = spec.unfreeze_last_n_layers
    if count == -1:
        return False
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if count == 0:
        return True
    layers = _layers(model)
    if count > len(layers):
        raise HriEmoError(
            f"parameter 'model.{modality}.unfreeze_last_n_layers' is {count}, must be -1 to "
            f"{len(layers)}: the encoder has {len(layers)} layers"
        )
    for layer in layers[-count:]:
        for parameter in layer.parameters():
            parameter.requires_grad_(True)
    return False


def _layers(model: nn.Module) -> nn.ModuleList:
    for path in ("encoder.layers", "encoder.layer", "layers", "transformer.layer"):
        try:
            found = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    raise HriEmoError(
        f"{type(model).__name__} has no list of layers that 'unfreeze_last_n_layers' could count: "
        f"use 0 or -1"
    )


def _unit_variance(waveform: Tensor, mask: Tensor) -> Tensor:
    """Zero mean, unit variance over the real samples of each row (1e-7 as in transformers)."""
    count = mask.sum(1, keepdim=True).clamp(min=1)
    mean = (waveform * mask).sum(1, keepdim=True) / count
    variance = ((waveform - mean).square() * mask).sum(1, keepdim=True) / count
    return (waveform - mean) * torch.rsqrt(variance + 1e-7)
