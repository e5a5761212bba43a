"""Figures: predictions over images, contact sheets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch


def plot_probabilities(
    image: torch.Tensor,
    probabilities: Mapping[str, float],
    file: Path,
    attention: torch.Tensor | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> None:
    """Plot an image, an attention map over it where there is one, and bars of named probabilities.

    Args:
        image: (channels, height, width) in [0, 1].
        probabilities: probability by name, plotted in this order.
        file: the PNG to write.
        attention: (rows, columns) of any scale.
        box: (left, top, right, bottom) in pixels of the image that the attention is stretched over; the whole image if None.
    """
    from matplotlib.figure import Figure

    panels = 3 if attention is not None else 2
    figure = Figure(figsize=(3.6 * panels + 1, 3.8), layout="constrained")
    axes = figure.subplots(1, panels, width_ratios=[1] * (panels - 1) + [1.1])
    height, width = image.shape[-2:]
    for panel in axes[:-1]:
        panel.imshow(_displayable(image), cmap="gray", vmin=0, vmax=1)
        panel.set_axis_off()
    axes[0].set_title("input")
    if attention is not None:
        heat = heat_over_image(attention, box or (0, 0, width, height), (height, width))
        axes[1].imshow(heat, cmap="inferno", alpha=0.75 * heat)
        axes[1].set_title("where the queries look")
    names = list(probabilities)
    bars = axes[-1].barh(range(len(names)), [probabilities[name] for name in names], color="#4878a8")
    axes[-1].bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes[-1].set_yticks(range(len(names)), names, fontsize=8)
    axes[-1].set(xlim=(0, 1.15), xlabel="probability")
    axes[-1].invert_yaxis()
    axes[-1].spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def heat_over_image(
    attention: torch.Tensor, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """Attention (rows, columns) in an image's coordinates: (height, width) from 0 to 1, zero outside of the box.

    Args:
        attention: of any scale.
        box: (left, top, right, bottom) in pixels that it covers; what lies beyond the image is cut off.
        size: (height, width) of the image.
    """
    left, top, right, bottom = (round(edge) for edge in box)
    inside = (max(bottom - top, 1), max(right - left, 1))
    smooth = torch.nn.functional.interpolate(attention[None, None].float(), size=inside, mode="bicubic")[0, 0].numpy()
    low, high = np.quantile(smooth, [0.3, 0.995])
    smooth = np.clip((smooth - low) / max(high - low, 1e-9), 0, 1)
    heat = np.zeros(size, dtype=smooth.dtype)
    rows, columns = slice(max(top, 0), min(bottom, size[0])), slice(max(left, 0), min(right, size[1]))
    heat[rows, columns] = smooth[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return heat


def _displayable(image: torch.Tensor) -> np.ndarray:
    array = image.detach().cpu().numpy()
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)


def plot_contact_sheet(
    images: Sequence[np.ndarray], titles: Sequence[str], outlines: Sequence[Sequence[np.ndarray]], file: Path
) -> None:
    """Plot images in a grid, each with a title and the outlines of masks.

    Args:
        images: each (height, width), any range.
        titles: one each.
        outlines: for each image, boolean masks (height, width).
        file: the PNG to write.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, title, masks in zip(grid, images, titles, outlines, strict=False):
        axes.imshow(image, cmap="gray")
        axes.set_title(title, fontsize=8)
        for mask, colour in zip(masks, ("#ff5050", "#50c8ff", "#ffd050"), strict=False):
            if mask.any():
                axes.contour(mask, levels=[0.5], colors=colour, linewidths=0.8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
