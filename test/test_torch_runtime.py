# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a GPU runs, without one: recordings of the encoders' kernels for a few lengths, here made of plain calls."""

import pytest
import torch
from tiny_models import SENTENCES, tiny_config, tiny_model, voice

from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.model.torch_runtime import record
from hri_emo_ros.types import SAMPLE_RATE


def recorded(bundle):
    """Record both encoders; what was recorded, and the lengths that were replayed, by the first input's type."""
    made, replayed = [], []

    def capture(call, inputs):
        made.append(inputs[0].shape[1])

        def replay():
            replayed.append(inputs[0].shape[1])
            return tuple(call(*inputs))

        return replay

    model = bundle.model
    record(model.audio_encoder, SAMPLE_RATE, 3 * SAMPLE_RATE, (torch.float32, torch.bool), capture)
    kinds = (torch.long, torch.bool, torch.bool)
    record(model.text_encoder, 8, 16, kinds, capture)
    return made, replayed


@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.3])
def test_a_recorded_length_gives_the_answer_of_the_utterances_own_length(seconds):
    bundle = tiny_model(tiny_config())
    batch = collate([ModelItem(voice(seconds), SENTENCES[1])], bundle.config, bundle.tokenizer)
    with torch.no_grad():
        wanted = bundle.model(batch)
        made, replayed = recorded(bundle)
        for _ in range(
            2
        ):  # what an utterance leaves in the recording's inputs does not reach the next
            bundle.model(
                collate([ModelItem(voice(2.9), SENTENCES[0])], bundle.config, bundle.tokenizer)
            )
            found = bundle.model(batch)
            torch.testing.assert_close(found.logits, wanted.logits, atol=1e-4, rtol=1e-4)
    assert made == [48_000, 32_000, 16_000, 16, 8]
    assert -int(-seconds // 1) * SAMPLE_RATE in replayed


def test_several_utterances_and_longer_ones_run_as_without_recordings():
    bundle = tiny_model(tiny_config())
    items = [ModelItem(voice(0.7), SENTENCES[0]), ModelItem(voice(1.1), SENTENCES[1])]
    batches = [items, [ModelItem(voice(3.5), " ".join(SENTENCES))]]
    with torch.no_grad():
        wanted = [bundle.model(collate(b, bundle.config, bundle.tokenizer)) for b in batches]
        _, replayed = recorded(bundle)
        for batch, want in zip(batches, wanted, strict=True):
            found = bundle.model(collate(batch, bundle.config, bundle.tokenizer))
            torch.testing.assert_close(found.logits, want.logits)
    assert not replayed
