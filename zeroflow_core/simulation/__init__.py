"""A LiDAR world with exact truth, all from a seed: scene → scanner → sweeps → log in AV2 layout.

What a world consists of:  solids → model (vehicles, people, roadside) → tracks → scene, on a terrain
Who goes where in it:      scenes (street, junction, highway)
How it is seen:            scanners → raycast → echoes → scan, with the truth
What is written:           log, log_map, logs

README.md beside this file goes through all of its modules.
"""
