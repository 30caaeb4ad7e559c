# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Encoders: loading, freezing, and states that do not depend on the padding."""

from __future__ import annotations

import pytest
import torch
from tiny_models import AUDIO_CONFIGS, TEXT_CONFIGS, tiny_config, tiny_model, voice

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.bundle import find_bundle, load_bundle
from hri_emo_ros.model.config import ModelConfig, VoiceSpec, WordsSpec
from hri_emo_ros.model.encoders import AudioEncoder, TextEncoder
from hri_emo_ros.model.network import EmotionModel


def samples_and_mask(seconds=0.5):
    samples = torch.from_numpy(voice(seconds))[None]
    return samples, torch.ones_like(samples, dtype=torch.bool)


@pytest.mark.parametrize("kind", sorted(AUDIO_CONFIGS))
def test_states_are_those_of_transformers_own_model(kind, tmp_path):
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    original = AutoModel.from_config(AutoConfig.for_model(**AUDIO_CONFIGS[kind])).eval()
    original.save_pretrained(tmp_path)
    encoder = AudioEncoder(
        VoiceSpec(kind="transformers", name=str(tmp_path), normalize=False)
    ).eval()
    samples, mask = samples_and_mask()
    with torch.no_grad():
        states, frame_mask = encoder(samples, mask)
        expected = original(samples).last_hidden_state
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    assert frame_mask.all()
    assert encoder.frame_period == pytest.approx(0.02)


def test_the_preprocessor_file_decides_about_normalisation(tmp_path):
    from transformers import AutoConfig, AutoModel

    AutoModel.from_config(AutoConfig.for_model(**AUDIO_CONFIGS["wavlm"])).save_pretrained(tmp_path)
    spec = VoiceSpec(kind="transformers", name=str(tmp_path))
    assert AudioEncoder(spec).normalize
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert not AudioEncoder(spec).normalize


def test_normalised_encoders_do_not_hear_the_level():
    encoder = AudioEncoder(VoiceSpec(kind="transformers", config=AUDIO_CONFIGS["hubert"])).eval()
    samples, mask = samples_and_mask()
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(samples, mask)[0], encoder(samples * 0.2, mask)[0], atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("layers", [0, 1, 2, -1])
def test_only_the_last_n_layers_learn(layers):
    for make, spec, configs in (
        (AudioEncoder, VoiceSpec, AUDIO_CONFIGS),
        (TextEncoder, WordsSpec, TEXT_CONFIGS),
    ):
        config = next(iter(configs.values()))
        encoder = make(spec(kind="transformers", config=config, unfreeze_last_n_layers=layers))
        learning = {name for name, p in encoder.named_parameters() if p.requires_grad}
        if layers == 0:
            assert not learning
        elif layers == -1:
            assert len(learning) == len(list(encoder.parameters()))
        else:
            numbers = {int(name.split(".layer")[1].split(".")[1]) for name in learning}
            assert numbers == set(range(2 - layers, 2))


def test_more_layers_than_there_are_is_an_error_that_names_the_parameter():
    spec = VoiceSpec(kind="transformers", config=AUDIO_CONFIGS["wavlm"], unfreeze_last_n_layers=5)
    with pytest.raises(HriEmoError, match="unfreeze_last_n_layers' is 5, must be -1 to 2"):
        AudioEncoder(spec)


def test_a_frozen_encoder_stays_in_evaluation_mode_while_training():
    encoder = AudioEncoder(VoiceSpec(kind="transformers", config=AUDIO_CONFIGS["wavlm"]))
    encoder.train()
    samples, mask = samples_and_mask()
    assert torch.equal(encoder(samples, mask)[0], encoder(samples, mask)[0])


@pytest.mark.parametrize("kind", ["wavlm", "hubert"])
def test_a_weighted_layer_sum_is_learned_while_the_layers_are_frozen(kind):
    spec = VoiceSpec(kind="transformers", config=AUDIO_CONFIGS[kind], layer_weighted_sum=True)
    encoder = AudioEncoder(spec)
    samples, mask = samples_and_mask()
    states, _ = encoder(samples, mask)
    states.square().sum().backward()
    assert encoder.mix.weight.shape == (3,)
    assert encoder.mix.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in encoder.model.parameters())


def test_a_missing_folder_is_named_without_touching_the_network():
    for spec in (
        {"audio": VoiceSpec(kind="transformers", name="no/such-model")},
        {"head": "text_only", "text": WordsSpec(kind="transformers", name="no/such-model")},
    ):
        with pytest.raises(HriEmoError, match=r"no/such-model.*allow_download"):
            EmotionModel(ModelConfig(**spec))


def test_wrong_model_settings_are_refused():
    with pytest.raises(ValueError, match="width"):
        VoiceSpec(kind="features")
    with pytest.raises(ValueError, match="'layer_weighted_sum' is for kind 'transformers'"):
        VoiceSpec(kind="compact", layer_weighted_sum=True)
    with pytest.raises(ValueError, match="'transformers' or 'features'"):
        WordsSpec(kind="compact")
    with pytest.raises(ValueError, match="multiple of attention_heads"):
        tiny_config(d_model=18, attention_heads=4)
    with pytest.raises(ValueError, match="different"):
        tiny_config(labels=("a", "a"))


def test_the_shipped_model_has_under_forty_million_parameters_and_eighty_megabytes():
    bundle = load_bundle("")
    assert sum(p.numel() for p in bundle.model.parameters()) < 40_000_000
    assert sum(file.stat().st_size for file in find_bundle("").iterdir()) < 80e6


def test_absent_modalities_are_not_encoded():
    from hri_emo_ros.model.batch import collate
    from hri_emo_ros.model.items import ModelItem

    bundle = tiny_model(tiny_config())
    bundle.model.audio_encoder.forward = None  # would fail if it were called
    batch = collate([ModelItem(None, "hello")], bundle.config, bundle.tokenizer)
    states, mask = bundle.model.encode_audio(batch)
    assert not mask.any()
    assert not states.any()
