"""What the ranks of a run report of themselves: collected, and shown as a trace, a profile, a live view and waits."""
