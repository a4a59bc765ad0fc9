"""The page ``/_emulator/``: functions, runs with their timelines, logs and buckets, as HTML."""
