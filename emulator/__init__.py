"""The local cloud: an AWS endpoint with process sandboxes, and the commands that run FMI programs on it."""
