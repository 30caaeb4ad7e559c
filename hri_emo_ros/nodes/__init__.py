"""The ROS layer: parameters, conversions, lifecycle and diagnostics; nothing is computed here."""
