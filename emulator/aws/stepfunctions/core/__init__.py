"""Step Functions: the engine that runs state machines in the endpoint's event loop."""
