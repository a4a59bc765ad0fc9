"""The one HTTP endpoint: our Lambda and Step Functions services, and moto for every other AWS service."""
