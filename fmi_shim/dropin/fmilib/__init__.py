"""The wrapper of ``fmi`` that the published container has, for programs that import it."""
