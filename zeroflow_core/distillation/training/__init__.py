"""The second stage of distillation: a student learns from labels on disk.

A pair's way: label_sources (folders of labels) → prepared (pairs made ready, once) → samples → augment → batches.
What is made of it: task and scene_flow (the student and its losses) → fitting (the loop, for any task) with recipes,
processes, state, curves and validation. train puts them together.
"""
