"""Measurements: side by side in one run, never as tests."""
