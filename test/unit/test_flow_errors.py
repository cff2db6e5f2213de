"""Errors pooled over points, by hand."""

import numpy as np
import pytest

from zeroflow_core.evaluation.errors import FlowErrors


def test_errors_by_hand():
    truth = np.array([[1.0, 0, 0], [0, 0.2, 0], [0, 0, 0], [0, 0, 0], [0.01, 0, 0], [1.0, 0, 0]])
    estimate = np.array([[0.5, 0, 0], [0, 0.2, 0], [0.06, 0, 0], [0, 0, 0], [0.01, 0, 0], [np.nan] * 3])
    errors = FlowErrors()
    errors.add(estimate, truth, dt=0.1)
    errors.add(np.zeros((2, 3)), np.zeros((2, 3)), dt=-0.1)
    assert (errors.dynamic_points, errors.static_points) == (2, 5)
    assert errors.dynamic_epe == pytest.approx(0.25)
    assert errors.dynamic_epe_of_zero == pytest.approx(0.6)
    assert errors.static_epe == pytest.approx(0.06 / 5)
    assert errors.static_epe_of_zero == pytest.approx(0.01 / 5)
    assert errors.static_too_fast == pytest.approx(1 / 5)
    assert errors.coverage == pytest.approx(7 / 8)
    assert np.isnan(FlowErrors().dynamic_epe)
