"""Training curves."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def plot_curves(table: "pandas.DataFrame", file: Path) -> None:
    """Plot logged losses and validation metrics, at most six, over ``step``; nothing where nothing was logged."""
    from matplotlib.figure import Figure

    if table.empty:
        return
    names = [name for name in table.columns if name.startswith(("train_", "val_"))][:6]
    figure = Figure(figsize=(3.6 * max(len(names), 1), 3), layout="constrained")
    for position, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), position)
        points = table[["step", name]].dropna()
        axes.plot(points["step"], points[name], marker="." if len(points) < 30 else "")
        axes.set(title=name.replace("_", " "), xlabel="step")
    figure.savefig(file, dpi=110)
