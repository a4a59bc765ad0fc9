"""Where a function's code runs: isolated processes forked from a zygote."""
