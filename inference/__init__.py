"""Redshift prediction for SDSS galaxies with an AstroMAE-style network over partitions of a data set."""
