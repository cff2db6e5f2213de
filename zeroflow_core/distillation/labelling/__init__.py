"""The first stage of distillation: a teacher labels pairs of sweeps, and the labels go to disk.

Read label (the stage), then chunks (what a process takes at a time), work (what it does), ray_cluster (the same on many
machines), manifest (what a folder of labels says of itself) and errors (how good they are, where that is known).
"""
