"""The HTTP endpoint for all AWS services: four of our own, and moto for every other."""
