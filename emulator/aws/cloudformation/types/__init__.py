"""The types that resources of stacks can have, one module for each service."""
