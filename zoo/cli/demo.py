"""``zoo demo``: radiographs rendered from a CT, NEARL compared with its baselines, a prediction plotted."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from zoo.cards.store import card_chain, check_files
from zoo.engine.comparison import compare
from zoo.engine.datasets import build_dataset, plot_dataset
from zoo.engine.prediction import predict_files
from zoo.visualization.tables import markdown_table

PEERS = ("zero_shot", "tip_adapter", "linear_probe", "clip_adapter", "tip_adapter_f", "coop", "maple", "lora")
RECIPES = (*(f"{peer}/chest_drr_16shot" for peer in PEERS), "nearl_clip/chest_drr_16shot")
CARD = "nearl-clip-chest-drr-16shot"


def run_demo(out: Path, seeds: Sequence[int], console: Console) -> None:
    """Render the data, train and measure every recipe of the table, and predict on one radiograph.

    An interrupted demo resumes where it stopped.

    Raises:
        MissingDataError: the package with the CT is not installed.
        CardError: the weights that the recipes start from are not here.
    """
    start = time.monotonic()
    for card in card_chain(CARD):
        check_files(card)
    out.mkdir(parents=True, exist_ok=True)
    console.rule("1 of 3: radiographs rendered from a CT")
    sheet = plot_dataset("chest_drr", out, ["style=standard", "image_size=256"])
    build_dataset("chest_drr_findings", []).prepare_data()
    console.print(f"a contact sheet of radiographs with their findings outlined: {sheet}")
    console.rule("2 of 3: 16 radiographs of each of ten findings")
    rows = compare(RECIPES, out / "comparison", seeds=seeds)
    console.print(markdown_table(rows), markup=False, highlight=False, soft_wrap=True)
    console.print(f"as a plot: {out / 'comparison' / 'table.png'}")
    console.rule("3 of 3: a prediction")
    file = write_radiograph(out / "radiograph.png")
    prediction = predict_files(CARD, [file], out / "predictions", overwrite=True)[str(file)]
    console.print(f"{file}: {prediction['class']}; figure with attention map: {prediction['picture']}")
    console.print(f"done in {(time.monotonic() - start) / 60:.1f} minutes")


def write_radiograph(file: Path, index: int = 7) -> Path:
    """Write a test radiograph of chest_drr_findings as a 16-bit PNG; number 7 has a large pneumothorax."""
    from PIL import Image

    image = build_dataset("chest_drr_findings", []).split("test")[index]["image"][0]
    Image.fromarray((image.numpy() * 65535).round().astype("uint16")).save(file)
    return file
