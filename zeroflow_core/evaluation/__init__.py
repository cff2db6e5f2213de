"""How good a flow is, exactly as the field says it, and a report people can read.

In the order of the road: `truth` (what is known of a pair, from `cuboid_labels` where no file says it; and what an
estimate counts as) → the definitions `av2_2023`, `av2_2024`, `zeroflow_paper` and the `breakdown`, each of which turns
a pair into a `tally`, and pooled tallies into figures → `run` (`methods` in, a `journal` for every log, the `worst`
pairs kept, a `submission`) → `results` → `tables` and `report`, which share `comparing` and `wording`. `errors` is for
where no classes are known: the live demo and training.
"""
