"""From raw sweeps to a student, without labels: what `zeroflow distill` does.

run goes the whole way: sources (logs, or bags that become logs) → labelling/ (the teacher) → training/ (the student)
→ judging, pictures, report and launching (what came of it). pairs says which sweeps belong together. making/ and
make_weights make weights to ship, such as those that come along, from a recipe.
"""
