"""The teacher: Neural Scene Flow Prior, optimised anew for every pair of sweeps, without a label.

Read in this order:
`config` (what is done with a pair, as published and ours), `network` (the prior);
as published: `neighbours` and `chamfer` (NSFP's loss), `plain` (NSFP), `distance_transform` (Fast NSF's loss),
`plain_fast_nsf` (Fast NSF);
fast: `sampling` (which points an iteration takes), `fields` (the networks, written out), `matching` and `tiles` (the
losses, on a CPU and on a GPU), `engine` (the optimisation of many pairs);
`teacher` (frame pairs in, labels out: what everybody calls).
"""
