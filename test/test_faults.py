# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The table of faults is what the tests say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_table_of_faults_is_what_the_tests_say() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "tools" / "faults", "--check"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
