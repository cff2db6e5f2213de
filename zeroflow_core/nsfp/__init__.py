"""The teacher: Neural Scene Flow Prior, optimised anew for every pair of sweeps, without a label.

Read in this order:
`config` (what is done with a pair, as published and ours), `network` (the prior);
as published: `neighbours` and `chamfer` (NSFP's loss), `plain` (NSFP), `distance_transform` (Fast NSF's loss),
`plain_fast_nsf` (Fast NSF);
fast: `sampling` (which points an iteration takes; on a GPU `device_sampling`), `fields` (the networks, written out),
`matching` (the losses; on a GPU by `tiles` and their `tiles_kernel`), `engine` (the optimisation of many pairs);
`teacher` (frame pairs in, labels out: what everybody calls).
"""
