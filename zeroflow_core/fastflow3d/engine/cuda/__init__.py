"""The engine on a GPU: a pair is one CUDA graph; convolutions are dense and cuDNN's, what lies between them is fused.

In reading order: `engine` (buffers, copies, graphs), `network` (the steps of a frame), `plain` (what is done beside
convolutions, in PyTorch) and `kernels` (the same in Triton).
"""
