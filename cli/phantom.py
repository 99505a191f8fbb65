"""A synthetic head, slice by slice: scalp, skull, folded cortex, white matter, ventricles, deep nuclei.

No patient and no scan went into it: the anatomy is a handful of smooth shapes, and the folds are the zero lines of a
sum of plane waves with seeded directions. The same seed gives the same bits on every machine of one NumPy version.

Coordinates are millimetres in the patient's system (PS3.3 C.7.6.2.1.1): x to the left, y to the back, z to the head;
the origin lies between the thalami. The phantom reaches from the midbrain to above the ventricles; it has no skull base
and no face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Contrast = Literal["T1", "T2", "FLAIR"]
Image = NDArray[np.floating[Any]]

SIZE: Final = 256
PIXEL_SPACING_MM: Final = 0.9
TOP_MM: Final = 44.0
BOTTOM_MM: Final = -14.0

_TISSUES = ("air", "fat", "bone", "marrow", "csf", "grey", "white", "nucleus", "muscle")
#: Signal of each tissue as a spin echo of that weighting shows it, relative to the brightest.
_SIGNAL: dict[Contrast, tuple[float, ...]] = {
    "T1": (0.0, 1.0, 0.05, 0.62, 0.12, 0.44, 0.68, 0.52, 0.36),
    "T2": (0.0, 0.72, 0.04, 0.42, 1.0, 0.52, 0.36, 0.44, 0.22),
    "FLAIR": (0.0, 0.70, 0.04, 0.40, 0.06, 0.62, 0.47, 0.55, 0.28),
}
_WAVES = 56


@dataclass(frozen=True, slots=True)
class _Waves:
    """A band-limited random field: a sum of plane waves."""

    vectors: Image
    phases: Image

    @classmethod
    def of(cls, rng: np.random.Generator, wavelength_mm: tuple[float, float], count: int = _WAVES) -> _Waves:
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = 2 * np.pi / rng.uniform(*wavelength_mm, size=(count, 1))
        phases = rng.uniform(0, 2 * np.pi, size=count)
        return cls((directions * lengths).astype(np.float32), phases.astype(np.float32))

    def at(self, x: Image, y: Image, z: Image) -> Image:
        """The field, with unit variance."""
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)
        for (kx, ky, kz), phase in zip(self.vectors, self.phases, strict=True):
            total += np.cos(kx * x + ky * y + kz * z + phase)
        return np.asarray(total * np.float32((2 / len(self.phases)) ** 0.5))


class Phantom:
    """One head. `seed` decides its folds and its noise."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._seed = seed
        self._warp = [_Waves.of(rng, (60, 120), 12) for _ in range(3)]
        self._folds = _Waves.of(rng, (17, 27))
        self._branches = _Waves.of(rng, (11, 15))
        self._bias = _Waves.of(rng, (160, 300), 8)

    def slice(self, z_mm: float, contrasts: tuple[Contrast, ...] = ("T1", "T2", "FLAIR")) -> dict[Contrast, Image]:
        """The axial slice at `z_mm` in each contrast: SIZE x SIZE, 0 to about 1, noise included."""
        axis = (np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) * np.float32(PIXEL_SPACING_MM)
        x, y = axis[None, :], axis[:, None]
        z = np.float32(z_mm) + 0 * x * y
        shares = self._tissues(x + 0 * y, y + 0 * x, z)
        bias = 1 + np.float32(0.045) * self._bias.at(x, y, z)
        images: dict[Contrast, Image] = {}
        for contrast in contrasts:
            signal = sum(share * level for share, level in zip(shares, _SIGNAL[contrast], strict=True)) * bias
            images[contrast] = self._noisy(np.asarray(signal, np.float32), z_mm, contrast)
        return images

    def _noisy(self, signal: Image, z_mm: float, contrast: Contrast) -> Image:
        """Magnitude of a complex signal with normal noise: Rician, as in a real magnitude image."""
        rng = np.random.default_rng([self._seed, round(z_mm * 1000) & 0xFFFFFFFF, len(contrast)])
        noise = rng.normal(0, 0.012, size=(2, *signal.shape)).astype(np.float32)
        return np.asarray(np.hypot(_blurred(signal) + noise[0], noise[1]))

    def _tissues(self, x: Image, y: Image, z: Image) -> list[Image]:
        """The share of each tissue in every pixel, later shapes painted over earlier ones."""
        wx, wy, wz = (np.float32(3.2) * warp.at(x, y, z) for warp in self._warp)
        u, v, w = x + wx, y + wy, z + wz
        shares = {name: np.zeros(x.shape, np.float32) for name in _TISSUES}
        shares["air"] += 1
        brain = _cranium(x, y, z)
        for name, edge in (("fat", 13.0), ("muscle", 9.4), ("bone", 7.8), ("marrow", 5.6), ("bone", 4.0), ("csf", 1.6)):
            _paint(shares, name, brain + edge)
        cerebrum = brain + self._sulci_depth(u, v, w, x, z, brain)
        _paint(shares, "grey", cerebrum)
        _paint(shares, "white", cerebrum - 3.1 - 0.35 * self._branches.at(u, v, w))
        # What lies deep is more alike on both sides than the cortex is: it follows the warp less.
        _paint_interior(shares, x + 0.2 * wx, y + 0.4 * wy, z + 0.3 * wz)
        return [shares[name] for name in _TISSUES]

    def _sulci_depth(self, u: Image, v: Image, w: Image, x: Image, z: Image, depth: Image) -> Image:
        """What folds take away from the depth below the brain's surface: negative inside a sulcus."""
        folded = _zero_line_distance(self._folds.at(u, v, w), 6.6)
        branched = _zero_line_distance(self._branches.at(u, v, w), 3.9) + 1.1
        fissure = np.abs(x + np.float32(0.25) * (u - x)) - 1.0
        main = np.maximum(np.minimum(folded - 0.9, 60), depth - 21)
        small = np.maximum(branched - 0.7, depth - 9)
        middle = np.maximum(fissure, _corpus_callosum_top(v, z))
        return np.asarray(np.minimum(np.minimum(np.minimum(main, small), middle), depth) - depth)


# ---- shapes: signed distance in millimetres, positive inside ---------------------------------------------------------


def _ellipsoid(x: Image, y: Image, z: Image, a: float, b: float, c: float) -> Image:
    radius = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    gradient = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2)
    return np.asarray(radius * (1 - radius) / (gradient + np.float32(1e-3)), np.float32)


def _cranium(x: Image, y: Image, z: Image) -> Image:
    """Depth below the brain's outer surface: wider at the back, flatter at the base."""
    width = 66 + 5.5 * np.tanh((y + 4) / 40)
    height = np.where(z > 0, np.float32(70), np.float32(64))
    return np.asarray(_superellipsoid(x / width, (y - 2) / 85, z / height) * 70)


def _superellipsoid(x: Image, y: Image, z: Image) -> Image:
    radius = (np.abs(x) ** 2.25 + np.abs(y) ** 2.25 + np.abs(z) ** 2.25) ** (1 / 2.25)
    return np.asarray(1 - radius, np.float32)


def _corpus_callosum_top(y: Image, z: Image) -> Image:
    """Negative where the fissure between the hemispheres runs: above, before and behind the corpus callosum."""
    bridge = 1 - np.sqrt((y / 40) ** 2 + ((z - 2) / 24) ** 2)
    return np.asarray(bridge * 24, np.float32)


def _zero_line_distance(field: Image, scale_mm: float) -> Image:
    """About the distance to where `field` is zero."""
    return np.asarray(np.abs(field) * scale_mm)


def _paint(shares: dict[str, Image], name: str, inside_mm: Image) -> None:
    """Cover what is there by tissue `name` where `inside_mm` is positive, softly over a millimetre."""
    cover = np.clip(inside_mm * np.float32(0.75) + np.float32(0.5), 0, 1).astype(np.float32)
    for share in shares.values():
        share *= 1 - cover
    shares[name] += cover


def _paint_interior(shares: dict[str, Image], u: Image, v: Image, w: Image) -> None:
    """Basal ganglia, thalamus, ventricles: the same shapes on both sides."""
    side = np.abs(u)
    core = _ellipsoid(side - 20, v - 2, w - 4, 17, 34, 19)
    _paint(shares, "white", core + 3)
    _paint(shares, "nucleus", _ellipsoid(side - 11, v - 12, w - 4, 8.5, 14, 11))
    lens = _ellipsoid(side - 23.5 - 0.18 * (v + 4), v + 5, w - 2, 6.2, 17, 12)
    _paint(shares, "nucleus", lens)
    caudate = _ellipsoid(side - 13.5 - 0.14 * np.abs(v + 17), v + 19, w - 10, 5.2, 11, 13)
    _paint(shares, "nucleus", caudate)
    front = _ellipsoid(side - 7.5 + 0.34 * (v + 20), v + 19, w - 14, 4.4, 17, 11)
    body = _ellipsoid(side - 8.5, v - 6, w - 20, 4.6, 24, 6.5)
    back = _ellipsoid(side - 18 - 0.46 * (v - 30), v - 32, w - 9, 5.0, 18, 11)
    for horn in (front, body, back):
        _paint(shares, "csf", horn)
    _paint(shares, "csf", np.minimum(1.5 - side, _ellipsoid(side, v - 5, w + 2, 8, 17, 12)))
    _paint(shares, "nucleus", _ellipsoid(side - 15, v - 36, w - 12, 1.8, 6, 4))


def _blurred(image: Image) -> Image:
    """A light 3 x 3 point spread."""
    padded = np.pad(image, 1, mode="edge")
    rows = 0.22 * padded[:-2] + 0.56 * padded[1:-1] + 0.22 * padded[2:]
    return np.asarray(0.22 * rows[:, :-2] + 0.56 * rows[:, 1:-1] + 0.22 * rows[:, 2:], np.float32)
