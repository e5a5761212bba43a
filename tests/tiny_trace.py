"""A reasoning trace of two steps, and the words that it and its like are written in."""

from pathlib import Path

from zoo.data.traces.records import IvlRecord, Step

WORDS = sorted(
    set(
        "First Next Summarizing I need to analyze the heart left lung The bounding box of this area is It enlarged Clear "
        "previous analysis will generate following report A normal film Write".split()
    )
    | {*"[],.:", *map(str, range(64))}
)
RECORD = IvlRecord(
    prompt="Write the report. <image>",
    steps=[
        Step("First, I need to analyze the heart", 1, (2, 4, 20, 30), "It is enlarged."),
        Step("Next, I need to analyze the left lung", 2, (8, 8, 24, 40), "Clear."),
    ],
    report="A normal film.",
    images=[Path("film.png"), Path("heart.png"), Path("lung.png")],
)
