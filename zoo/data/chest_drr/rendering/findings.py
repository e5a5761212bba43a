"""Findings painted into the CT before projection, so that their masks are exact.

The shapes are ours (reconstructed from how each finding looks on an upright film), not a published simulator.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zoo.data.chest_drr.rendering.volume import LOBES, ChestVolume, LungVoxels
from zoo.errors import ArgumentError

SEVERITIES: dict[str, tuple[str, ...]] = {
    "pleural effusion": ("small", "moderate", "large"),
    "consolidation": ("patchy", "dense"),
    "nodule": ("small", "large"),
    "mass": ("moderate", "large"),
    "pneumothorax": ("small", "moderate", "large"),
    "atelectasis": ("subsegmental", "lobar"),
    "cardiomegaly": ("mild", "severe"),
}
"""Every finding with its severities, mildest first."""

_SIDES = ("left", "right")
_FLUID, _SOFT, _AIR = 15.0, 30.0, -1000.0


@dataclass(frozen=True)
class Finding:
    """One finding: its kind, severity and place.

    ``side`` is "left", "right" or "" (the heart); ``lobe`` is a key of ``LOBES`` or "" where the finding has none.
    """

    kind: str
    severity: str
    side: str = ""
    lobe: str = ""

    @property
    def grade(self) -> float:
        """Severity from 0 (mildest) to 1 (worst)."""
        steps = SEVERITIES[self.kind]
        return steps.index(self.severity) / (len(steps) - 1)


def read_findings(record: dict[str, Any]) -> list[Finding]:
    """The findings of a case record."""
    names = ("kind", "severity", "side", "lobe")
    return [Finding(**{name: item[name] for name in names}) for item in record["findings"]]


def sample_finding(kind: str, rng: np.random.Generator, severity: str = "", side: str = "", lobe: str = "") -> Finding:
    """Sample what is empty of severity, side and lobe of a finding.

    Raises:
        ArgumentError: no such finding, severity, side or lobe.
    """
    if kind not in SEVERITIES or severity not in ("", *SEVERITIES[kind]):
        raise ArgumentError(f"no finding '{kind}' of severity '{severity}'; there are {SEVERITIES}")
    if side not in ("", *_SIDES) or lobe not in ("", *LOBES):
        raise ArgumentError(f"no place '{lobe or side}'; there are {', '.join((*_SIDES, *LOBES))}")
    severity = severity or str(rng.choice(SEVERITIES[kind]))
    if kind == "cardiomegaly":
        return Finding(kind, severity)
    if kind in ("pleural effusion", "pneumothorax"):
        return Finding(kind, severity, side or str(rng.choice(_SIDES)))
    lobe = lobe or str(rng.choice([name for name in LOBES if name.startswith(side)]))
    return Finding(kind, severity, lobe.split()[0], lobe)


def paint_findings(
    volume: ChestVolume, findings: list[Finding], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paint findings into a copy of the volume.

    Returns:
        Hounsfield units (z, y, x) float32 and the finding map (z, y, x) uint8: 0, or 1 + the index in ``findings``.
        Cardiomegaly is a change of shape, done by the projection; it has no voxel here.
    """
    hounsfield, painted = volume.hounsfield.copy(), np.zeros(volume.labels.shape, dtype=np.uint8)
    lungs = volume.lungs
    density = hounsfield.ravel()[lungs.index]
    marks = np.zeros(len(density), dtype=np.uint8)
    order = sorted(
        range(len(findings)), key=lambda i: findings[i].kind == "pleural effusion"
    )  # fluid lies over the rest
    for position in order:
        finding = findings[position]
        if finding.kind in _PAINTERS:
            new_density, affected = _PAINTERS[finding.kind](finding, lungs, density, rng)
            density = np.where(affected, new_density, density)
            marks[affected] = position + 1
            if finding.kind == "pneumothorax":
                density = _visceral_line(finding, lungs, density, affected)
    hounsfield.ravel()[lungs.index] = density
    painted.ravel()[lungs.index] = marks
    return hounsfield, painted


def _smooth_noise(lungs: LungVoxels, rng: np.random.Generator, grain: float) -> np.ndarray:
    """Unit-variance noise at the lung voxels, smooth over ``grain`` millimetres."""
    cells = [int(260 / grain) + 2 for _ in range(3)]
    coarse = torch.from_numpy(rng.standard_normal((1, 1, *cells)))
    points = torch.from_numpy(np.stack([lungs.x, lungs.y, lungs.z], axis=-1) / 135.0)
    values = functional.grid_sample(coarse, points.view(1, -1, 1, 1, 3), align_corners=True, padding_mode="border")
    noise = values.flatten().numpy()
    return (noise - noise.mean()) / noise.std()


def _on_side(finding: Finding, lungs: LungVoxels) -> np.ndarray:
    return lungs.is_left if finding.side == "left" else ~lungs.is_left


def _effusion(
    finding: Finding, lungs: LungVoxels, density: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fluid at the base with a meniscus that climbs the chest wall."""
    level = {0.0: 0.24, 0.5: 0.38, 1.0: 0.58}[finding.grade] + rng.uniform(-0.03, 0.03)
    meniscus = rng.uniform(0.10, 0.18) * np.exp(-lungs.pleura / rng.uniform(12, 20))
    backwards = 0.04 * np.clip(-lungs.y / 90, -1, 1)
    affected = _on_side(finding, lungs) & (
        lungs.height < level + meniscus + backwards + 0.012 * _smooth_noise(lungs, rng, 40)
    )
    return np.full_like(density, _FLUID), affected


def _consolidation(
    finding: Finding, lungs: LungVoxels, density: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Airspace filling of a lobe: patchy with ragged borders, or dense with air bronchograms."""
    lobe = lungs.lobe == LOBES[finding.lobe]
    cloud = _smooth_noise(lungs, rng, 28) + 0.5 * _smooth_noise(lungs, rng, 12)
    share = (0.45 if finding.grade == 0 else 0.85) + rng.uniform(-0.07, 0.07)
    affected = lobe & (cloud > np.quantile(cloud[lobe], 1 - share))
    filled = rng.uniform(0.55, 0.7) if finding.grade == 0 else rng.uniform(0.85, 0.97)
    bronchograms = np.clip(_smooth_noise(lungs, rng, 9) - 1.2, 0, 1)
    return density + (_SOFT - density) * np.clip(filled - bronchograms, 0.1, 1), affected


def _ball(lungs: LungVoxels, allowed: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A lobulated ball whose centre is at least most of its radius away from the chest wall."""
    room = allowed & (lungs.pleura > min(0.8 * radius, 20))
    middle = int(rng.choice(np.flatnonzero(room if room.any() else allowed)))
    dx, dy, dz = lungs.x - lungs.x[middle], lungs.y - lungs.y[middle], lungs.z - lungs.z[middle]
    stretch = rng.uniform(0.85, 1.15, size=3)
    distance = np.sqrt((dx * stretch[0]) ** 2 + (dy * stretch[1]) ** 2 + (dz * stretch[2]) ** 2)
    return distance < radius * (1 + 0.06 * _smooth_noise(lungs, rng, 15))


def _nodule(
    finding: Finding, lungs: LungVoxels, density: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A nodule of up to 3 cm, or a mass above (Fleischner Society glossary)."""
    small, large = ((5.5, 8.0), (10.0, 14.0)) if finding.kind == "nodule" else ((17.0, 22.0), (26.0, 33.0))
    radius = rng.uniform(*(small if finding.grade == 0 else large))
    affected = _ball(lungs, lungs.lobe == LOBES[finding.lobe], radius, rng) & _on_side(finding, lungs)
    return np.full_like(density, _SOFT + 30 * (finding.kind == "nodule")), affected


def _rim(finding: Finding, lungs: LungVoxels) -> np.ndarray:
    """Thickness of pleural air in millimetres at each voxel's height: widest at the apex."""
    apex = {0.0: 24.0, 0.5: 40.0, 1.0: 62.0}[finding.grade]
    base = {0.0: 0.0, 0.5: 12.0, 1.0: 34.0}[finding.grade]
    return base + (apex - base) * lungs.height**1.5


def _pneumothorax(
    finding: Finding, lungs: LungVoxels, density: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Air without lung markings between the chest wall and the collapsed lung."""
    rim = _rim(finding, lungs) * rng.uniform(0.9, 1.1) + 1.5 * _smooth_noise(lungs, rng, 60)
    affected = _on_side(finding, lungs) & ((lungs.pleura < rim) | (lungs.height > 1 - rim / 420))
    return np.full_like(density, _AIR), affected


def _visceral_line(finding: Finding, lungs: LungVoxels, density: np.ndarray, air: np.ndarray) -> np.ndarray:
    """The lung left by a pneumothorax: denser, and edged by the visceral pleura."""
    rim_edge = lungs.pleura - np.where(air, 0, _rim(finding, lungs))
    remaining = _on_side(finding, lungs) & ~air
    density = np.where(remaining, np.maximum(density, -1000) + 60 + 180 * finding.grade, density)
    return np.where(remaining & (rim_edge < 3.5), np.maximum(density, -250.0), density)


def _atelectasis(
    finding: Finding, lungs: LungVoxels, density: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lobar: the part of the lobe nearest the hilum is airless. Subsegmental: plates of a few millimetres."""
    lobe = lungs.lobe == LOBES[finding.lobe]
    if finding.grade > 0:
        from_hilum = np.abs(lungs.x) + 0.35 * np.abs(lungs.z - 20) + 4 * _smooth_noise(lungs, rng, 40)
        affected = lobe & (from_hilum < np.quantile(from_hilum[lobe], rng.uniform(0.45, 0.62)))
        return np.full_like(density, _SOFT), affected
    affected = np.zeros_like(lobe)
    low, high = np.quantile(lungs.z[lobe], [0.15, 0.55])
    for _ in range(int(rng.integers(2, 4))):
        slope, middle = rng.uniform(-0.35, 0.35), rng.uniform(low, high)
        across, along = lungs.x - lungs.x[lobe].mean(), lungs.y - rng.uniform(-40, 40)
        off_plate = np.abs(lungs.z - middle - slope * across - 4 * _smooth_noise(lungs, rng, 40))
        affected |= lobe & (off_plate < 3.0 * (1 - (across / rng.uniform(24, 40)) ** 2)) & (np.abs(along) < 35)
    return np.full_like(density, _SOFT), affected


_PAINTERS = {
    "pleural effusion": _effusion,
    "consolidation": _consolidation,
    "nodule": _nodule,
    "mass": _nodule,
    "pneumothorax": _pneumothorax,
    "atelectasis": _atelectasis,
}
