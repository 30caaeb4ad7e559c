"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Bounds of message fields are checked in tests; read by every ROS process when it starts.
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete bundle (HRI-EMO, compact encoders, random weights, under 100 kB)."""
    # Imported here: torch and transformers take seconds, and most tests need neither.
    from tiny_models import tiny_config, tiny_model

    from hri_emo_ros.model.bundle import save_bundle

    return save_bundle(tiny_model(tiny_config()), tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test run on this machine uses."""
    coordinator = pytest.importorskip("domain_coordinator")
    with coordinator.domain_id() as domain:
        yield domain
