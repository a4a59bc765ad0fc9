"""Redshifts of SDSS galaxies by an AstroMAE-style network over partitions of a data set."""
