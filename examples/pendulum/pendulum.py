"""Many double pendulums at once: two equal masses on two massless rods of one length, without friction.

Angles are in radians from the vertical, times in units of sqrt(length / gravity).
"""

from __future__ import annotations

import numpy as np


def motion(state: np.ndarray) -> np.ndarray:
    """Time derivative of (angle, angle below, and their speeds), from the Lagrangian."""
    a, b, u, v = state
    d = a - b
    k = 3 - np.cos(2 * d)
    du = (-3 * np.sin(a) - np.sin(a - 2 * b) - 2 * np.sin(d) * (v**2 + u**2 * np.cos(d))) / k
    dv = 2 * np.sin(d) * (2 * u**2 + 2 * np.cos(a) + v**2 * np.cos(d)) / k
    return np.stack([u, v, du, dv])


def step(state: np.ndarray, dt: float) -> np.ndarray:
    """The state a time `dt` later (Runge-Kutta of fourth order)."""
    k1 = motion(state)
    k2 = motion(state + dt / 2 * k1)
    k3 = motion(state + dt / 2 * k2)
    k4 = motion(state + dt * k3)
    return state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def energy(state: np.ndarray) -> np.ndarray:
    """Total energy in units of mass * gravity * length; it stays."""
    a, b, u, v = state
    return u**2 + v**2 / 2 + u * v * np.cos(a - b) - 2 * np.cos(a) - np.cos(b)
