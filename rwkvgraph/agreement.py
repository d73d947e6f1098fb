"""When a device and numpy agree on an array, and the error that says where they do not."""

from __future__ import annotations

import numpy as np

from rwkvgraph.errors import CheckError
from rwkvgraph.op import Array

GPU_TOLERANCE = 2e-5
"""Largest difference between a device and numpy, in units of the array's largest magnitude, or of 1 if that
is less.

Both compute in float32, with 6e-8 a rounding; a device adds in another order, and its exp and tanh may be off
by some units in the last place (WGSL specification, "Accuracy of Built-in Functions")."""


def compare(got: Array, want: Array, what: str, tolerance: float = GPU_TOLERANCE) -> None:
    """Raise CheckError, naming the worst element, unless two arrays agree. NaN agrees with NaN."""
    if got.shape != want.shape:
        raise CheckError(f"{what}\nhas shape {got.shape} on the device and {want.shape} on numpy")
    got, want = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where((got == want) | (np.isnan(got) & np.isnan(want)), 0.0, np.abs(got - want))
    error = np.where(np.isnan(error), np.inf, error)
    finite = np.abs(want[np.isfinite(want)])
    most = tolerance * max(1.0, float(finite.max(initial=0.0)))
    if error.size and float(error.max()) > most:
        worst = np.unravel_index(int(error.argmax()), error.shape)
        apart = f"{(error > most).sum()} of {error.size} elements are further apart than {most:.2g}"
        raise CheckError(
            f"{what}\nelement {tuple(map(int, worst))} is {got[worst]:.9g} on the device and "
            f"{want[worst]:.9g} on numpy; {apart}"
        )
