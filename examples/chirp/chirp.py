"""Gravitational waves of two inspiralling bodies, the noise they hide in, and the filter that finds them.

Units are SI; masses are given in solar masses, frequencies in Hz. The waveform is the leading (quadrupole) order of the
post-Newtonian expansion, cut at the innermost stable circular orbit of the total mass of an equal-mass pair.
"""

from __future__ import annotations

import numpy as np
from scipy import signal

RATE = 4096
"""Samples per second."""

SOLAR_MASS_SECONDS = 4.925490947e-6
"""G * solar mass / c**3."""

LOW = 30.0
"""Hz: below it the detector hears the ground."""


def asd(frequency: np.ndarray) -> np.ndarray:
    """A ground-based detector's amplitude spectral density, 1/sqrt(Hz): seismic wall, thermal slope, shot noise."""
    f = np.maximum(np.abs(frequency), 20.0) / 150.0
    return 4e-24 * np.sqrt(1e-8 * f**-14 + 0.9 * f**-1 + 1.0 + 0.5 * f**2)


def noise(seconds: float, seed: int) -> np.ndarray:
    """Gaussian noise with that spectral density."""
    count = int(seconds * RATE)
    white = np.random.default_rng(seed).standard_normal(count)
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    return np.fft.irfft(np.fft.rfft(white) * asd(frequency) * np.sqrt(RATE / 2), count)


def inspiral(chirp_mass: float) -> np.ndarray:
    """The strain's shape from `LOW` to the last stable orbit, largest value 1, tapered at its start."""
    mass = chirp_mass * SOLAR_MASS_SECONDS
    total = chirp_mass * 2**1.2 * SOLAR_MASS_SECONDS
    last = min(1 / (6**1.5 * np.pi * total), 0.45 * RATE)

    def before(frequency: float) -> float:
        """Seconds between this frequency and coalescence."""
        return 5 / 256 * mass ** (-5 / 3) * (np.pi * frequency) ** (-8 / 3)

    time = np.arange(before(LOW), before(last), -1 / RATE)
    phase = -2 * (time / (5 * mass)) ** 0.625
    strain = (time / time[-1]) ** -0.25 * np.cos(phase)
    rise = min(len(strain), RATE // 16)
    strain[:rise] *= np.sin(np.linspace(0, np.pi / 2, rise)) ** 2
    return strain / np.abs(strain).max()


def whiten(strain: np.ndarray) -> np.ndarray:
    """Divide by the noise's spectral density: every frequency then carries noise of the same power, 1."""
    frequency = np.fft.rfftfreq(len(strain), 1 / RATE)
    spectrum = np.fft.rfft(strain) / asd(frequency) / np.sqrt(RATE / 2)
    spectrum[frequency < LOW] = 0
    return np.fft.irfft(spectrum, len(strain))


def matched_filter(white: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Signal-to-noise ratio at every sample, for a whitened template that ends there."""
    return signal.fftconvolve(white, template[::-1] / np.linalg.norm(template), mode="full")[: len(white)]
