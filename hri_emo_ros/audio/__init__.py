"""Bytes of any PCM in, utterances at 16 kHz mono out. No ROS, no torch."""
