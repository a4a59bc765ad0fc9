"""Schedules of collectives through a shared memory segment."""
