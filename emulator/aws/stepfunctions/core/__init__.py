"""Step Functions: Amazon States Language and the engine that runs it, in the endpoint's event loop."""
