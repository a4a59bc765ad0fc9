"""A folder for ``sys.path``: it holds the modules ``fmi`` and ``fmilib`` and nothing else."""
