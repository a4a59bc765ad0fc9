"""Direct TCP: connections between pairs of ranks, in the original wire format and framed."""
