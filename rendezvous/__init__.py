"""The pairing server for FMI's direct connections, and the wire protocol both sides speak."""
