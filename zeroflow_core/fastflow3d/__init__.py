"""The student: FastFlow3D as ZeroFlow publishes it (arXiv 2305.10424; Jund et al., arXiv 2103.01306).

pillars → U-Net → head, one file each; `model` puts them together, `checkpoint` reads and writes weights,
`student` is what everybody else calls: the network as it is (`model`), or the fast one of `engine`. `anchored` is for
pairs that follow one another, `export` (with `exportable`) for robots without this package. `published` names the
checkpoints of ZeroFlow's authors, `downloading` brings them.
"""
