"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete bundle (HRI-EMO, compact encoders, random weights, under 100 kB)."""
    # Imported here: torch and transformers take seconds, and most tests need neither.
    from tiny_models import tiny_config, tiny_model

    from hri_emo_ros.model.bundle import save_bundle

    return save_bundle(tiny_model(tiny_config()), tmp_path_factory.mktemp("bundle") / "tiny")
