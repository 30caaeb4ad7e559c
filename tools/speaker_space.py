# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Fit hri_emo_ros/voices/speaker_space.safetensors. It was done once.

usage: python tools/speaker_space.py OUT.safetensors DATA [--without CORPUS]

  DATA       folder with speech/{emodb,banglaser,crema_d}/manifest.csv and noise/esc10
  --without  leaves a corpus out, to measure on it (hri-emo voices --space)

Only corpora whose licences allow any use: EmoDB and BanglaSER (CC BY 4.0), CREMA-D (ODbL 1.0). Each
clip is read as it is and once more in noise (esc10, CC BY 3.0, and pink) at 5 to 25 dB. Prints the result's
SHA-256, which hri_emo_ros/voices/README.md records.
"""

import argparse
import csv
import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.data.noise import NoiseSource, mix
from hri_emo_ros.types import SAMPLE_RATE
from hri_emo_ros.voices.encoder import SpeakerEncoder

CORPORA = ("emodb", "banglaser", "crema_d")
CUT = {"emodb": 2.0}  # seconds: length would give the emotion away
DIMENSIONS = 120
SHRINK = 0.7  # of the covariance within voices towards a multiple of the identity


def embeddings(data: Path, corpora: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors [n, 256], speakers [n], corpora [n]."""
    encoder, rng = SpeakerEncoder(), np.random.default_rng(0)
    noises = [NoiseSource("pink", SAMPLE_RATE), NoiseSource(str(data / "noise/esc10"), SAMPLE_RATE)]
    vectors, speakers, names = [], [], []
    for corpus in corpora:
        folder = data / "speech" / corpus
        with (folder / "manifest.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            samples = read_audio(folder / row["path"])
            if corpus in CUT:
                samples = samples[: round(CUT[corpus] * SAMPLE_RATE)]
            noise = noises[rng.integers(2)].take(len(samples))
            for heard in (samples, mix(samples, noise, rng.uniform(5.0, 25.0))):
                embedding = encoder.embed(heard)
                if embedding.seconds > 0:
                    vectors.append(embedding.vector)
                    speakers.append(row["speaker"])
                    names.append(corpus)
    return np.array(vectors, np.float64), np.array(speakers), np.array(names)


def fit(x: np.ndarray, speakers: np.ndarray, corpora: np.ndarray) -> dict[str, np.ndarray]:
    """Two-covariance model in the directions that part voices most, variance 1 within voices.

    Voices are compared within their corpus only: what differs between corpora is the room.
    """
    mean = np.mean([x[corpora == c].mean(axis=0) for c in np.unique(corpora)], axis=0)
    names, index, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    voices = np.stack([x[index == k].mean(axis=0) for k in range(len(names))])
    rest = x - voices[index]
    within = rest.T @ rest / (len(x) - len(names))
    home = np.array([corpora[index == k][0] for k in range(len(names))])
    for corpus in np.unique(home):
        voices[home == corpus] -= voices[home == corpus].mean(axis=0)
    between = voices.T @ voices / (len(names) - len(np.unique(home)))
    between -= within * np.mean(1.0 / counts)
    size = len(mean)
    within = (1 - SHRINK) * within + SHRINK * np.trace(within) / size * np.eye(size)
    values, vectors = np.linalg.eigh(within)
    whiten = vectors / np.sqrt(values)
    variances, directions = np.linalg.eigh(whiten.T @ between @ whiten)
    best = np.argsort(-variances)[:DIMENSIONS]
    return {
        "mean": mean.astype(np.float16),
        "projection": (whiten @ directions[:, best]).astype(np.float16),
        "between": np.maximum(variances[best], 1e-3).astype(np.float16),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--without", choices=CORPORA)
    args = parser.parse_args()
    content = save(fit(*embeddings(args.data, [c for c in CORPORA if c != args.without])))
    args.out.write_bytes(content)
    print(f"{args.out}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")
