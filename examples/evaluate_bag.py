#!/usr/bin/env python3
# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What is heard in a recording and, with labels, how often it is right.

python3 evaluate_bag.py BAG [LABELS.csv]
"""

import sys
from pathlib import Path

from hri_emo_ros.evaluation.replay import Replayer
from hri_emo_ros.parameters import load_parameters

bag, *labels = map(Path, sys.argv[1:])
run = Replayer(load_parameters(None)).run(bag, labels=labels[0] if labels else None)
for heard in run.utterances:
    print(f"{heard.start:7.2f} s  {heard.abstained or heard.dominant:12}  {heard.transcript}")
summary = run.summary()
print(
    {name: summary[name] for name in ("final_states", "ua", "macro_f1", "wer") if name in summary}
)
