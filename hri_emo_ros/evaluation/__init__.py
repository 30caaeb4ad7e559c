"""Scoring: figures of merit, bags, replay, sweeps and the report."""
