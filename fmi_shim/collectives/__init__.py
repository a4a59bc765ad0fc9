"""Collectives as functions over a channel, one algorithm a function, one family a file.

Cost formulas count what lies on the critical path: a message of b bytes takes ``alpha + b * beta``,
combining b bytes takes ``b * gamma``; p is the number of ranks, n the size of one rank's payload in bytes,
lg the logarithm to base 2. (R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication
Operations in MPICH", 2005.)
"""
