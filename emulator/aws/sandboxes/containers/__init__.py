"""Sandboxes that are containers: a second factory beside the processes, through docker-py (extra ``docker``)."""
