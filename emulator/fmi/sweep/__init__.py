"""Sweeps: the same program over a grid of world sizes, memories, batch sizes and data sets."""
