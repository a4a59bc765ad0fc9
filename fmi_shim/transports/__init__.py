"""Ways for a message from one rank to another."""
