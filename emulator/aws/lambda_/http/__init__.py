"""The REST API of Lambda."""
