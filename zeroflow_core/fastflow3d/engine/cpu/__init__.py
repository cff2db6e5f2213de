"""The engine on a CPU: only what sweeps touch is computed, 3×3 convolutions take a quarter of their products, and the
finest level of the decoder is one product per pillar.

In reading order: `engine` (the steps), `pillars`, `encoder` with `empty` (what the encoder gives where there are no
points), `decoder` with `compose` (the finest level), `winograd` (the convolution), `tiles` (which parts are computed),
`products` (matrix products in pieces), `kernels` (inner loops, compiled by numba), `threads`.
"""
