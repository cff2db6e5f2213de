"""From raw sweeps to a student, without labels: what `zeroflow distill` does.

run goes the whole way: sources (logs, or bags that become logs) → labelling/ (the teacher) → training/ (the student)
→ judging, pictures, report and launching (what came of it). pairs says which sweeps belong together. interim is the
recipe of the student that comes along until a distilled one does.
"""
