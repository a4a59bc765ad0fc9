"""The AWS services that are emulated here, one package each, and the gateway that serves them on one port."""
