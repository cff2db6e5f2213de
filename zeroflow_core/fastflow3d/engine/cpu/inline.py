"""What the compiled inner loops (…_kernels) share: how they are compiled, GELU, and how numbers are kept.

Maps, and what goes into a product and comes out of it, are float32, or bfloat16 as a float32's upper 16 bits in uint16;
`pack` and `unpack` are for both. Numba keeps machine
code until the file changes that a kernel stands in; after a change to this file or to `winograd`, touch those.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload, register_jitable


def _compiled(**options: Any) -> Callable[[Callable], Callable]:
    """By numba, without holding Python's lock; the machine code is kept for the next start where there is a place."""

    def decorate(function: Callable) -> Callable:
        try:
            return njit(nogil=True, cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # neither the package nor the user's cache folder can be written to
            return njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


loose = _compiled(fastmath={"contract", "nsz"})
strict = _compiled()  # cells are found by IEEE division and comparisons with NaN


def _erf_over_z() -> np.ndarray:
    """Coefficients of erf(z)/z in s = z²/8 − 1 for |z| ≤ 4, to 1e-8; at 4 erf is 1 within float32."""
    s = np.cos(np.linspace(0, np.pi, 400))
    z = np.sqrt(8 * (s + 1))
    values = [math.erf(v) / v if v > 1e-9 else 2 / math.sqrt(math.pi) for v in z]
    chebyshev = np.polynomial.chebyshev.Chebyshev.fit(s, values, 14, domain=[-1, 1])
    return np.polynomial.chebyshev.cheb2poly(chebyshev.coef)


_E = tuple(np.float32(c) for c in _erf_over_z())
_E0, _E1, _E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12, _E13, _E14 = _E
_HALF, _ONE, _ROOT_HALF, _EIGHTH, _LIMIT = (np.float32(v) for v in (0.5, 1.0, 0.5**0.5, 0.125, 16.0))


@register_jitable
def gelu(x):
    z = x * _ROOT_HALF
    s = min(z * z, _LIMIT) * _EIGHTH - _ONE
    p = _E14
    p = p * s + _E13
    p = p * s + _E12
    p = p * s + _E11
    p = p * s + _E10
    p = p * s + _E9
    p = p * s + _E8
    p = p * s + _E7
    p = p * s + _E6
    p = p * s + _E5
    p = p * s + _E4
    p = p * s + _E3
    p = p * s + _E2
    p = p * s + _E1
    p = p * s + _E0
    erf = min(max(z * p, -_ONE), _ONE)
    return _HALF * x * (_ONE + erf)


def pack(value, array):
    """A float32 as the elements of `array` are kept."""


@overload(pack, inline="always")
def _pack_for(value, array):
    if array.dtype is types.uint16:

        def half(value, array):
            bits = np.float32(value).view(np.uint32)
            return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

        return half
    return lambda value, array: value


def unpack(value):
    """An element of a map or product as float32."""


@overload(unpack, inline="always")
def _unpack_for(value):
    if value is types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value
