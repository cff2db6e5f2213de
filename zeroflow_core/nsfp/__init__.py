"""The teacher: Neural Scene Flow Prior, optimised anew for every pair of sweeps, without a label.

Read in this order:
`network` (the prior), `neighbours` and `chamfer` (NSFP's loss), `plain` (NSFP as published),
`distance_transform` and `plain_fast_nsf` (Fast NSF as published), `engine` (both, fast), `config` (the named
configurations), `teacher` (frame pairs in, labels out: what everybody calls).
"""
