"""Augmentation of a rendered film: pose, exposure, noise and collimation.

A base trained on one style of film is applied to others. The ranges are ours (reconstructed) and cover bedside films: rotated,
shifted, magnified, of low contrast, noisy, blurred, with a dark edge.
"""

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

_DEGREES, _SHIFT, _SHEAR, _SCALE = 6.0, 0.05, 4.0, (0.88, 1.12)
_CONTRAST, _BRIGHTNESS = (0.5, 1.15), 0.12
_NOISE, _BLUR, _EDGE = 0.09, 0.8, 0.05


def augment_film(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Augment a film (1, height, width) in [0, 1]; it is never mirrored.

    Args:
        image: the film.
        rng: samples the changes.
    """
    height, width = image.shape[-2:]
    image = transforms.affine(
        image,
        angle=float(rng.uniform(-_DEGREES, _DEGREES)),
        translate=[round(rng.uniform(-_SHIFT, _SHIFT) * width), round(rng.uniform(-_SHIFT, _SHIFT) * height)],
        scale=float(rng.uniform(*_SCALE)),
        shear=[float(rng.uniform(-_SHEAR, _SHEAR)), float(rng.uniform(-_SHEAR, _SHEAR))],
        interpolation=transforms.InterpolationMode.BILINEAR,
    )
    if rng.random() < 0.3:
        image = transforms.gaussian_blur(image, [5, 5], [float(rng.uniform(0.2, _BLUR))])
    # Fewest quanta pass where the patient is densest, which is bright.
    sigma = float(rng.uniform(0, _NOISE)) * (0.3 + 0.7 * image)
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    image = (image + sigma * noise - 0.5) * float(rng.uniform(*_CONTRAST)) + 0.5
    image = (image + float(rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))).clamp(0, 1)
    top, bottom, left, right = (rng.uniform(0, _EDGE, 4) * (rng.random() < 0.7) * height).round().astype(int)
    collimated = torch.zeros_like(image)
    inside = (..., slice(top, height - bottom), slice(left, width - right))
    collimated[inside] = image[inside]
    return collimated
