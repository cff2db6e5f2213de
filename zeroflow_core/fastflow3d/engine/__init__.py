"""The student's fast engine: inference with the weights of `model`, the same answers, a fraction of the work.

`fold` turns the network into what inference needs of it; `cpu` and `cuda` have an engine each.
"""
