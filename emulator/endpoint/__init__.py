"""The one HTTP endpoint: our Lambda service, and moto for every other AWS service."""
