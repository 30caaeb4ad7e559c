"""Make a compact voice encoder out of the first layers of a pretrained Whisper.

Whisper's lower layers hold how something is said as well as what: a linear classifier on the second
or third of the base model's six is better at emotion than one on the last. Every part is made thinner
in closed form, from the first to the last, so that each repairs what those before it have lost:

* channels of a convolution and units of a feed-forward block go one after the other, each time those
  whose loss the others make up for best (Optimal Brain Surgeon, Hassibi and Stork 1993, for linear
  least squares), and the map behind them is solved anew;
* queries, keys and values keep the directions that matter for scores and output on the voices at
  hand (a singular value decomposition weighted by the covariance of what comes in).

The whole network runs at 50 states a second and is pooled to 25 at its end; the thin one is pooled at
its start and learns to give the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.compact_audio import CompactAudioConfig, CompactAudioEncoder, EncoderLayer
from hri_emo_ros.training.least_squares import Moments, eliminate

_TAPS = 3
"""Of both convolutions."""


@torch.no_grad()
def whole_states(whole: CompactAudioEncoder, log_mel: Tensor) -> list[Tensor]:
    """What the whole network makes of one clip [T, M]: pooled states [F, d] after 0, 1, ... layers."""
    x, mask = whole.convolve(log_mel[None], torch.ones(1, len(log_mel), dtype=torch.bool))
    states = [whole.pool(x, mask)[0][0]]
    for layer in whole.layers:
        x = layer(x, mask)
        states.append(whole.pool(x, mask)[0][0])
    return states


@torch.no_grad()
def prune_audio_encoder(
    whole: CompactAudioEncoder,
    log_mels: Sequence[Tensor],
    *,
    conv_channels: int | None = None,
    query_size: int | None = None,
    value_size: int | None = None,
    intermediate_size: int | None = None,
) -> CompactAudioEncoder:
    """Build a thin encoder whose states are standardised over the clips.

    Args:
        whole: of `whole_encoder`.
        log_mels: active frames of the clips on which the parts are chosen and solved, normalised,
            [T, M] each.
        conv_channels, query_size, value_size, intermediate_size: as in `CompactAudioConfig`; None
            leaves a part as it is.

    Raises:
        HriEmoError: less is there than is to be kept.
    """
    sizes = {
        "conv_channels": conv_channels, "query_size": query_size, "value_size": value_size,
        "intermediate_size": intermediate_size,
    }  # fmt: skip
    config = whole.config.to_dict()
    for name, size in sizes.items():
        if size is not None and not 1 <= size <= config[name]:
            raise HriEmoError(f"'prune_audio.{name}' is {size}, must be 1 to {config[name]}")
    kept = {name: size for name, size in sizes.items() if size is not None}
    thin = CompactAudioEncoder(CompactAudioConfig(**{**config, **kept})).eval()
    _thin_convolutions(thin, whole, log_mels)
    mels = [(x[None], torch.ones(1, len(x), dtype=torch.bool)) for x in log_mels]
    streams = [thin.pool(*thin.convolve(*mel))[0][0] for mel in mels]
    targets = [whole_states(whole, x)[1:] for x in log_mels]
    for number, (small, large) in enumerate(zip(thin.layers, whole.layers, strict=True)):
        wanted = [states[number] for states in targets]
        streams = _thin_layer(small, large, streams, wanted)
    _standardise(thin, streams)
    return thin


def _standardise(encoder: CompactAudioEncoder, streams: Sequence[Tensor]) -> None:
    """Let states come out with mean 0 and deviation 1 in every channel over the streams [F, d] that
    leave the last layer."""
    c = encoder.config
    states = torch.cat([nn.functional.layer_norm(x, (c.hidden_size,)) for x in streams])
    deviation, mean = torch.std_mean(states, dim=0)
    encoder.norm_out.weight.copy_(1.0 / deviation)
    encoder.norm_out.bias.copy_(-mean / deviation)


def _thin_convolutions(
    thin: CompactAudioEncoder, whole: CompactAudioEncoder, log_mels: Sequence[Tensor]
) -> None:
    channels = thin.config.conv_channels
    kept = torch.arange(whole.config.conv_channels)
    weight, bias = whole.conv2.weight, whole.conv2.bias
    if channels < len(kept):
        moments = Moments()
        for log_mel in log_mels:
            x = nn.functional.gelu(whole.conv1(log_mel.T[None]))
            taps = nn.functional.pad(x, (1, 1)).unfold(2, _TAPS, 2)[0]  # [channels, F, taps]
            moments.add(taps.transpose(0, 1).flatten(1), whole.conv2(x)[0].T)
        kept, solved, bias = eliminate(moments, channels, group=_TAPS)
        weight = solved.T.unflatten(1, (channels, _TAPS))
    _copy(thin.conv1, whole.conv1.weight[kept], whole.conv1.bias[kept])
    _copy(thin.conv2, weight, bias)


def _thin_layer(
    small: EncoderLayer, large: EncoderLayer, streams: Sequence[Tensor], targets: Sequence[Tensor]
) -> list[Tensor]:
    """Fill `small` so that it leads from the streams [F, d] to the targets [F, d]; what it gives."""
    for name in ("attention_norm", "feedforward_norm"):
        getattr(small, name).load_state_dict(getattr(large, name).state_dict())
    if small.sizes == large.sizes:
        for name in ("query_key_value", "attention_out"):
            getattr(small, name).load_state_dict(getattr(large, name).state_dict())
    else:
        _thin_attention(small, large, streams)
    middle = [x + _attend(small, x) for x in streams]

    inner = [_feed(large, x) for x in middle]
    units = small.feedforward_in.out_features
    kept = torch.arange(large.feedforward_in.out_features)
    weight, bias = large.feedforward_out.weight, large.feedforward_out.bias
    if units < len(kept):
        moments = Moments()
        for h, x, target in zip(inner, middle, targets, strict=True):
            moments.add(h, target - x)
        kept, solved, bias = eliminate(moments, units)
        weight = solved.T
    _copy(small.feedforward_in, large.feedforward_in.weight[kept], large.feedforward_in.bias[kept])
    _copy(small.feedforward_out, weight, bias)
    return [x + h[:, kept] @ weight.T + bias for x, h in zip(middle, inner, strict=True)]


def _thin_attention(small: EncoderLayer, large: EncoderLayer, streams: Sequence[Tensor]) -> None:
    incoming = torch.cat([large.attention_norm(x) for x in streams])
    root, mean = _root(torch.cov(incoming.T)), incoming.mean(0)
    rank, value_rank = small.sizes[0], small.sizes[2]
    # Attention divides scores by the root of its own query size.
    scale = (small.sizes[0] / large.sizes[0]) ** 0.5
    outgoing = large.attention_out.weight.unflatten(1, (large.heads, -1))
    weights = large.query_key_value.weight.unflatten(0, (large.heads, -1))
    biases = large.query_key_value.bias.unflatten(0, (large.heads, -1))
    rows, row_biases = [], []
    for head in range(large.heads):
        query, key, value = weights[head].split(large.sizes)
        query_bias, _, value_bias = biases[head].split(large.sizes)
        # Scores are x' A y for centred x, y, and g' y where only y counts; what only x changes
        # drops out in the softmax.
        a = query.T @ key * scale
        g = a.T @ mean + key.T @ query_bias * scale
        left, strength, right = torch.linalg.svd(root @ a @ root)
        weight = strength[:rank].clamp_min(1e-12).rsqrt()
        query = (a @ root @ right[:rank].T * weight).T
        key = (a.T @ root @ left[:, :rank] * weight).T
        query_bias = torch.linalg.lstsq(root @ key.T, (root @ g)[:, None]).solution[:, 0]
        query_bias = query_bias - query @ mean
        through = outgoing[:, head] @ value
        basis = torch.linalg.svd(through @ root, full_matrices=False)[0][:, :value_rank].T
        rows.append(torch.cat([query, key, basis @ through]))
        value_bias = basis @ outgoing[:, head] @ value_bias
        row_biases.append(torch.cat([query_bias, torch.zeros(rank), value_bias]))
    _copy(small.query_key_value, torch.cat(rows), torch.cat(row_biases))
    # The values' directions were chosen by head; now all of them together give the output.
    moments = Moments()
    for x in streams:
        moments.add(_inner_attention(small, x), _attend(large, x))
    solved, bias = moments.solve()
    _copy(small.attention_out, solved.T, bias)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0.0).sqrt() @ vectors.T


def _inner_attention(layer: EncoderLayer, x: Tensor) -> Tensor:
    """[F, d] -> [F, heads * value size], before the map that leads back."""
    seen = torch.ones(1, len(x), dtype=torch.bool)
    return layer.attend(x[None], seen)[0]


def _attend(layer: EncoderLayer, x: Tensor) -> Tensor:
    return layer.attention_out(_inner_attention(layer, x))


def _feed(layer: EncoderLayer, x: Tensor) -> Tensor:
    return nn.functional.gelu(layer.feedforward_in(layer.feedforward_norm(x)))


def _copy(part: nn.Linear | nn.Conv1d, weight: Tensor, bias: Tensor) -> None:
    part.weight.copy_(weight)
    part.bias.copy_(bias)
