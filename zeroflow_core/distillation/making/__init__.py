"""Making weights to ship: from one file that says everything, to a student and its model card.

`plan.py` reads the file, `make.py` goes from stage to stage: `teaching.py` makes the logs and their labels (`truth.py`
takes the simulation's truth for labels), `parts.py` takes a training from one machine to another, `card.py` tells of
the student.
"""
