"""A folder for ``sys.path``: it holds the module ``fmi`` and nothing else."""
