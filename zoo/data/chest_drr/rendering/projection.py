"""Radiographs by Beer-Lambert line integrals through the CT, with random pose, breath and film.

Everything is float64 on one thread and quantised at the end, so that the same seed gives the same bytes.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from zoo.data.chest_drr.rendering.volume import ChestVolume
from zoo.errors import ArgumentError

WATER_ATTENUATION = 0.0195
"""Linear attenuation of water per millimetre near 65 keV, the mean energy of a 110 kV beam."""

_ROWS = 8
"""Rows of a film that are projected at a time."""
_HEART = 51
"""TotalSegmentator id of the heart."""


@dataclass(frozen=True)
class View:
    """How one radiograph is taken. Angles in degrees, lengths in millimetres.

    ``axial``, ``tilt`` and ``roll`` turn the patient about the long, the transverse and the sagittal axis;
    ``field`` is the side of the square image at the patient; ``source`` the distance from focus to detector, negative
    for a beam from the front (AP); ``breath`` is -1 (expiration) to 1 (deep inspiration); ``heart`` scales the heart's
    width; ``shift`` moves the mediastinum to the patient's left; ``bend`` (3, 3, 3, 3) are smooth displacements.
    ``contrast``, ``brightness``, ``noise``, ``sharpening`` and ``collimation`` describe the film.
    """

    axial: float
    tilt: float
    roll: float
    offset: tuple[float, float]
    field: float
    source: float
    breath: float
    heart: float
    shift: float
    bend: np.ndarray
    contrast: float
    brightness: float
    noise: float
    sharpening: float
    collimation: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, float]:
        """The scalar settings, rounded, for the record of a case."""
        values = ((item.name, getattr(self, item.name)) for item in fields(self))
        return {name: round(value, 3) for name, value in values if isinstance(value, float)}


STYLES = ("standard", "portable")


def sample_view(style: str, heart: float, shift: float, rng: np.random.Generator) -> View:
    """Sample a view: ``standard`` (PA, upright, centred) or ``portable`` (AP at one metre, tilted, flatter and noisier)."""
    if style not in STYLES:
        raise ArgumentError(f"no style '{style}'; there are {', '.join(STYLES)}")
    portable = style == "portable"
    loose = 2.0 if portable else 1.0
    edges = rng.uniform(0.0, 0.045 if portable else 0.02, size=4)
    return View(
        axial=float(rng.normal(0, 1.8 * loose)),
        tilt=float(rng.normal(3.0 if portable else 0.0, 1.5 * loose)),
        roll=float(rng.normal(0, 1.2 * loose)),
        offset=(float(rng.normal(0, 4 * loose)), float(rng.normal(-4, 4 * loose))),
        field=float(rng.uniform(300, 330)),
        source=-1000.0 if portable else 1800.0,
        breath=float(rng.uniform(-0.9, 0.3) if portable else rng.uniform(-0.4, 1.0)),
        heart=heart,
        shift=shift,
        bend=rng.normal(0, 3.5, size=(3, 3, 3, 3)),
        contrast=float(rng.uniform(0.6, 0.85) if portable else rng.uniform(0.9, 1.15)),
        brightness=float(rng.normal(0.04 if portable else 0.0, 0.035)),
        noise=float(rng.uniform(0.016, 0.034) if portable else rng.uniform(0.004, 0.010)),
        sharpening=float(rng.uniform(0.2, 0.5) if portable else rng.uniform(0.6, 1.0)),
        collimation=(float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3])),
    )


def project(
    volume: ChestVolume, hounsfield: np.ndarray, voxel_map: np.ndarray, view: View, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Project the CT and an integer map of its voxels along the same rays.

    Args:
        volume: gives spacing and origin.
        hounsfield: (z, y, x) Hounsfield units, findings included.
        voxel_map: integers (z, y, x), sampled by nearest neighbour.
        view: the pose.
        size: side of the image in pixels.

    Returns:
        The line integral of attenuation (size, size), head up and the patient's left at the right edge; and the map's
        samples (size, size, depth).
    """
    sizes = torch.tensor(hounsfield.shape[::-1])
    attenuation = torch.from_numpy(_attenuation(hounsfield))[None, None]
    flat_map = torch.from_numpy(voxel_map).flatten()
    bend = functional.interpolate(
        torch.from_numpy(view.bend).reshape(1, 3, 3, 3, 3),
        size=(size, size, len(_depths(volume))),
        mode="trilinear",
        align_corners=True,
    )[0].permute(1, 2, 3, 0)
    heart = torch.from_numpy(volume.centroid(_HEART))
    integrals, samples = [], []
    for start in range(
        0, size, _ROWS
    ):  # rows at a time, so that what is computed on the way stays in the processor's cache
        rows = slice(start, min(start + _ROWS, size))
        indices = (_ray_points(volume, view, size, rows, heart, bend) - torch.tensor(volume.origin)) / torch.tensor(
            volume.spacing
        )
        grid = (indices / (sizes - 1) * 2 - 1)[None]
        sampled = functional.grid_sample(attenuation, grid, align_corners=True, padding_mode="border")
        x, y, z = indices.round_().long().clamp_(min=torch.zeros(3).long(), max=sizes - 1).unbind(dim=-1)
        integrals.append(sampled[0, 0].sum(dim=-1) * volume.spacing[1])
        samples.append(flat_map[(z * sizes[1] + y) * sizes[0] + x])
    return torch.cat(integrals).numpy(), torch.cat(samples).numpy()


def _attenuation(hounsfield: np.ndarray) -> np.ndarray:
    """Attenuation per millimetre; calcium absorbs more than its Hounsfield number implies at a radiograph's lower energy."""
    water = np.maximum(hounsfield.astype(np.float64) / 1000 + 1, 0)
    bone = np.clip(hounsfield.astype(np.float64) - 130, 0, 1200) / 1000
    return WATER_ATTENUATION * (water + 1.1 * bone)


def _depths(volume: ChestVolume) -> torch.Tensor:
    """Millimetres (depth) from the patient's middle of the samples of a ray."""
    return torch.arange(-volume.reach, volume.reach, volume.spacing[1], dtype=torch.float64)


def _ray_points(
    volume: ChestVolume, view: View, size: int, rows: slice, heart: torch.Tensor, bend: torch.Tensor
) -> torch.Tensor:
    """Millimetre points (rows, size, depth, 3) in the undeformed patient; ``bend`` (size, size, depth, 3) displaces them."""
    pixel, depths = view.field / size, _depths(volume)
    columns = (torch.arange(size, dtype=torch.float64) + 0.5) * pixel - view.field / 2 + view.offset[0]
    heights = view.field / 2 - (torch.arange(size, dtype=torch.float64) + 0.5) * pixel + view.offset[1]
    # The field is measured at the patient's middle: rays meet in the focus, `source` millimetres from the detector.
    focus = 1 - torch.sign(torch.tensor(view.source)) * depths / (abs(view.source) - 150)
    x = columns[None, :, None] / focus
    z = heights[rows, None, None] / focus
    shape = (z.shape[0], size, len(depths))
    points = torch.stack([x.expand(shape), depths.expand(shape), z.expand(shape)], dim=-1) @ _rotation(view).T
    return points + _displacement(view, points, heart, bend[rows])


def _rotation(view: View) -> torch.Tensor:
    a, b, c = (math.radians(angle) for angle in (view.axial, view.tilt, view.roll))
    about_z = torch.tensor([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = torch.tensor([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    about_y = torch.tensor([[math.cos(c), 0, math.sin(c)], [0, 1, 0], [-math.sin(c), 0, math.cos(c)]])
    return (about_z @ about_x @ about_y).double()


def _displacement(view: View, points: torch.Tensor, heart: torch.Tensor, bend: torch.Tensor) -> torch.Tensor:
    """Displacement from each point to its place in the undeformed patient: breath, heart, mediastinum, smooth bends."""
    x, z = points[..., 0], points[..., 2]
    from_heart = points - heart
    reach = (from_heart[..., 0] / 85) ** 2 + (from_heart[..., 1] / 75) ** 2 + (from_heart[..., 2] / 70) ** 2
    near = torch.exp(-(reach**2))
    scale = (1 / view.heart - 1) * near
    moved = torch.zeros_like(points)
    moved[..., 0] = scale * from_heart[..., 0] - view.shift * torch.exp(-((x / 60) ** 2) - (z / 160) ** 2)
    moved[..., 2] = 0.45 * scale * from_heart[..., 2]
    below = torch.clamp((60 - z) / 190, 0, 1)
    moved[..., 2] += view.breath * 22 * below * below * (3 - 2 * below)
    return moved + bend


def develop(integral: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
    """Turn line integrals (size, size) into a 16-bit film, bone bright: quanta, sharpening, tone curve, collimation."""
    size = len(integral)
    quanta = integral + rng.standard_normal(integral.shape) * view.noise * np.exp(0.28 * integral)
    log_signal = ndimage.gaussian_filter(quanta, 0.25 * size / 256) if size >= 128 else quanta
    blurred = ndimage.gaussian_filter(log_signal, size / 24)
    enhanced = log_signal + view.sharpening * (log_signal - blurred)
    low, high = np.quantile(integral, [0.04, 0.97])
    film = ((enhanced - low) / (high - low) - 0.5) * view.contrast + 0.5 + view.brightness
    tone = 1 / (1 + np.exp(-4.2 * (film - 0.5)))
    edge = _collimator(view, size)
    return np.round(np.clip((tone - 0.1) / 0.8, 0, 1) * edge * 65535).astype(np.uint16)


def _collimator(view: View, size: int) -> np.ndarray:
    top, bottom, left, right = (round(share * size) for share in view.collimation)
    open_field = np.zeros((size, size))
    open_field[top : size - bottom, left : size - right] = 1
    return open_field
