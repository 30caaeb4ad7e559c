"""Corpora, splits, augmentation and the trainer."""
