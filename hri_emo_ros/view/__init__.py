"""Estimates for the eye: in a terminal and as a picture. No ROS."""
