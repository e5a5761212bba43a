"""Distances between the outlines of masks: HD95 and NSD, by scipy's distance transform.

The outline of a mask is what an erosion removes of it; pixels at the border of the image belong to it. With P and T the outlines of a
predicted and a true mask and d(P, T) the distances from the pixels of P to the nearest of T:

HD95 = max(percentile 95 of d(P, T), percentile 95 of d(T, P)), the Hausdorff distance without its outliers; NSD, the normalised surface
Dice (Nikolov et al., arXiv 1809.04430), is the share of the pixels of both outlines that are within a tolerance of the other one. Both
agree with MONAI's ``compute_hausdorff_distance`` and ``compute_surface_dice``, for which one empty mask is undefined. Here two empty masks
have distance 0 and NSD 1; where one of them is empty, the distance is the image's diagonal and the NSD 0, so that a miss is not left out.
"""

from collections.abc import Callable

import numpy as np
import torch

Spacing = tuple[float, float]
"""Millimetres from row to row and from column to column."""
COLUMNS = ("hd95", "nsd", "hd95_mm", "nsd_mm")
"""Of :func:`surface_row`: in pixels, and in millimetres."""


def surface_distances(
    predicted: np.ndarray, target: np.ndarray, spacing: Spacing = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Distances d(P, T) and d(T, P) between the outlines of two masks (height, width), none of them empty, in the spacing's units."""
    from scipy import ndimage

    rows, columns = (np.flatnonzero((predicted | target).any(axis=axis)) for axis in (1, 0))
    # With a pixel around, so that what is cut is no border.
    window = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    first, second = (mask[window] & ~ndimage.binary_erosion(mask[window]) for mask in (predicted, target))
    to_second, to_first = (ndimage.distance_transform_edt(~outline, sampling=spacing) for outline in (second, first))
    return to_second[first], to_first[second]


def compare_outlines(
    predicted: np.ndarray, target: np.ndarray, spacing: Spacing = (1.0, 1.0), tolerance: float = 2.0
) -> tuple[float, float]:
    """HD95 and NSD of two masks (height, width) of booleans; see the module for empty ones.

    Args:
        predicted: mask.
        target: true mask.
        spacing: of pixels; distances and the tolerance are in its units.
        tolerance: of the NSD.
    """
    if not (predicted.any() and target.any()):
        if predicted.any() == target.any():
            return 0.0, 1.0
        return float(np.hypot(predicted.shape[0] * spacing[0], predicted.shape[1] * spacing[1])), 0.0
    sides = surface_distances(predicted, target, spacing)
    near = sum(int((side <= tolerance).sum()) for side in sides)
    return max(float(np.percentile(side, 95)) for side in sides), near / sum(map(len, sides))


def surface_row(
    predicted: torch.Tensor, target: torch.Tensor, spacing: Spacing | None, tolerance: float
) -> list[float]:
    """HD95 and NSD of one question in pixels, then in millimetres; masks are compared in order, and averaged.

    NaN for a question without a true mask, and in millimetres where the spacing is not known. A mask that is missing, or superfluous and
    not empty, is compared to an empty one.

    Args:
        predicted: masks (p, height, width) of 0 and 1.
        target: masks (t, height, width) of 0 and 1.
        spacing: of the image.
        tolerance: of the NSD, in pixels and in millimetres.
    """
    undefined = float("nan")
    if not len(target):
        return [undefined] * len(COLUMNS)
    masks = [[mask.numpy() > 0 for mask in part.cpu()] for part in (predicted, target)]
    empty = np.zeros(target.shape[-2:], bool)
    count = max(len(predicted), len(target))
    first, second = ([*part, *[empty] * (count - len(part))] for part in masks)
    pairs = list(zip(first, second, strict=True))
    row: list[float] = []
    for unit in ((1.0, 1.0), spacing):
        measured = [compare_outlines(one, other, unit, tolerance) for one, other in pairs] if unit else []
        row += [float(np.mean(values)) for values in zip(*measured, strict=True)] or [undefined, undefined]
    return row


def surface_metrics() -> dict[str, Callable[[dict[str, torch.Tensor]], float]]:
    """Means over the questions with a true mask, of outputs ``surfaces`` (n, :data:`COLUMNS`).

    Those in millimetres are undefined where the spacing of an image is not known.
    """

    def mean_of(column: int) -> Callable[[dict[str, torch.Tensor]], float]:
        def mean(outputs: dict[str, torch.Tensor]) -> float:
            rows = outputs["surfaces"]
            values = rows[~rows[:, 0].isnan(), column]
            return float(values.mean()) if len(values) else float("nan")

        return mean

    return {name: mean_of(column) for column, name in enumerate(COLUMNS)}
