"""Many coordinate networks as one batch, forward and backward written out: the fast engine's arithmetic.

Nothing is allocated and nothing is recorded while it runs: every result has its place, which is what makes a step
quick on a CPU and lets a CUDA graph hold it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zeroflow_core.nsfp.network import HIDDEN_LAYERS, WIDTH, make_field


class Fields:
    """`pairs` networks of `network.make_field`, one for each pair of clouds, and room for `rows` points in each.

    The first and the last layer compute in fp32: coordinates of tens of metres don't fit into bf16, nor into TF32, of
    which PyTorch makes use only where it is told to.

    parameters, gradients: (B,P) float32, a row for each network
    """

    def __init__(self, parameters: Tensor, gradients: Tensor, rows: int, precision: torch.dtype) -> None:
        """
        parameters, gradients: (B,P), as `initial_parameters` lays them out; both are changed in place
        rows:                  points of each pair
        precision:             of the hidden layers: torch.float32 or torch.bfloat16
        """
        self.parameters, self.gradients = parameters, gradients
        pairs, device = len(parameters), parameters.device
        self._weights, self._biases = _layers(parameters)
        self._weight_gradients, self._bias_gradients = _layers(gradients)
        # In fp32 the hidden layers read the parameters themselves, else a copy that is renewed in each pass.
        self._copied = torch.empty_like(parameters, dtype=precision) if precision != torch.float32 else parameters
        self._hidden_weights, self._hidden_biases = _layers(self._copied)

        def room(*shape: int, dtype: torch.dtype = precision) -> Tensor:
            return torch.empty(pairs, *shape, dtype=dtype, device=device)

        self._ends = room(rows, WIDTH, dtype=torch.float32)
        self._outputs = [room(rows, WIDTH) for _ in range(HIDDEN_LAYERS)]
        self._last = self._outputs[-1] if precision == torch.float32 else room(rows, WIDTH, dtype=torch.float32)
        self._deltas = [room(rows, WIDTH) for _ in range(2)]
        self._products = room(WIDTH, WIDTH)
        self._flow = room(rows, 3, dtype=torch.float32)
        self._pull = room(rows, 3, dtype=torch.float32)

    def forward(self, points: Tensor) -> Tensor:
        """Flow (B,N,3) of `points` (B,N,3), in a place that the next call overwrites."""
        if self._copied is not self.parameters:
            self._copied.copy_(self.parameters)
        self._points, outputs = points, self._outputs
        torch.baddbmm(self._biases[0], points, self._weights[0].mT, out=self._ends)
        outputs[0].copy_(self._ends.relu_())
        for layer in range(1, HIDDEN_LAYERS):
            bias, weight = self._hidden_biases[layer], self._hidden_weights[layer]
            torch.baddbmm(bias, outputs[layer - 1], weight.mT, out=outputs[layer]).relu_()
        if self._last is not outputs[-1]:
            self._last.copy_(outputs[-1])
        return torch.baddbmm(self._biases[-1], self._last, self._weights[-1].mT, out=self._flow)

    def backward(self, pull: Tensor) -> Tensor:
        """Fill `gradients` from the loss's gradient with respect to the flow of the last `forward`, (B,N,3).

        Returns the loss's gradient with respect to that call's points, through this network alone, in a place that the
        next call overwrites.
        """
        delta, other = self._deltas
        torch.bmm(pull.mT, self._last, out=self._weight_gradients[-1])
        torch.sum(pull, 1, keepdim=True, out=self._bias_gradients[-1])
        delta.copy_(torch.bmm(pull, self._weights[-1], out=self._ends))
        _through_relu(delta, self._outputs[-1])
        for layer in range(HIDDEN_LAYERS - 1, 0, -1):
            below = self._outputs[layer - 1]
            self._weight_gradients[layer].copy_(torch.bmm(delta.mT, below, out=self._products))
            torch.sum(delta, 1, keepdim=True, dtype=torch.float32, out=self._bias_gradients[layer])
            torch.bmm(delta, self._hidden_weights[layer], out=other)
            delta, other = _through_relu(other, below), delta
        self._ends.copy_(delta)
        # Three columns wide, products are six times as quick with the other factor's rows lying together.
        self._weight_gradients[0].copy_(torch.bmm(self._points.mT, self._ends).mT)
        torch.sum(self._ends, 1, keepdim=True, out=self._bias_gradients[0])
        return torch.bmm(self._ends, self._weights[0].mT.contiguous().mT, out=self._pull)


def initial_parameters(seed: int, initialisation: str) -> Tensor:
    """Parameters (P,) float32 of a new network, on the CPU: each layer's weight (out, in), then its bias."""
    field = make_field(torch.Generator().manual_seed(seed), initialisation)
    return torch.cat([parameter.detach().flatten() for parameter in field.parameters()])


def _layers(flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Views of (B,P) as weights (B,out,in) and biases (B,1,out), a layer each."""
    sizes = [3, *[WIDTH] * HIDDEN_LAYERS, 3]
    weights, biases, start = [], [], 0
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        weights.append(flat[:, start : start + inputs * outputs].unflatten(1, (outputs, inputs)))
        start += inputs * outputs
        biases.append(flat[:, start : start + outputs].unsqueeze(1))
        start += outputs
    return weights, biases


def _through_relu(delta: Tensor, output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(delta, output, 0, grad_input=delta)
