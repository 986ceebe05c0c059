"""Non-negative least squares against brute force over every choice of coefficients that may be used."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.cost.nonnegative import solve_nonnegative


def brute_force(gram: np.ndarray, cross: np.ndarray) -> float:
    """The lowest error over all subsets of coefficients whose free optimum is not negative."""
    best = 0.0
    for chosen in product([False, True], repeat=len(cross)):
        used = np.array(chosen)
        if not used.any():
            continue
        z = np.linalg.solve(gram[np.ix_(used, used)], cross[used])
        if (z >= 0).all():
            best = min(best, float(z @ gram[np.ix_(used, used)] @ z - 2 * cross[used] @ z))
    return best


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_no_choice_of_coefficients_is_better(seed: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((k + 3, k)) * 10.0 ** draw.integers(-2, 3, k)
    gram, cross = x.T @ x + 1e-6 * np.eye(k), x.T @ draw.standard_normal(k + 3)
    z = solve_nonnegative(gram, cross)
    assert (z >= 0).all()
    error = float(z @ gram @ z - 2 * cross @ z)
    assert error == pytest.approx(brute_force(gram, cross), rel=1e-6, abs=1e-9)


def test_what_only_costs_is_left_at_zero() -> None:
    assert solve_nonnegative(np.eye(2), np.array([3.0, -1.0])).tolist() == [3.0, 0.0]
