"""The emotion networks: encoders, heads, calibration, explanation and the bundle on disk."""
