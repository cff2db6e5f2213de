"""What the flow node is made of, in the order in which a cloud meets it.

`wire` counts what is lost before it arrives; `road` takes it through the threads of `stages`; `pipeline` is what
happens on the way: where the vehicle was (`ego_motion`), `frames` that make pairs, the student (`students`). `outlets`
publishes what comes of it, and `health` knows how it went. `sources` names publishers that can't be heard.
"""
