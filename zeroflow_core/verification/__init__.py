"""Whether the sweeps bear out that something moves: asked of a teacher's labels and of a student's flow.

`verdicts` judges things that are said to move, `flows` takes back what a student said of those that don't, `kernels`
are the inner loops, compiled by numba.
"""
