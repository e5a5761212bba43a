"""A card's README: front matter with the record and Hugging Face's model index, then prose made from the record."""

from pathlib import Path
from typing import Any

import yaml

from zoo.cards.schema import CardRecord
from zoo.cards.store import PROSE, Card, CardError

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "](": "]\\(", "][": "]\\["}
"""With these a text of the record would open a tag, end a table's cell or be a link."""


def write_prose(record: CardRecord, folder: Path) -> None:
    """Write the card's README: front matter with the record and Hugging Face's model index, then prose from the record."""
    (folder / PROSE).write_text(render_prose(record), encoding="utf-8")


def render_prose(record: CardRecord) -> str:
    """The README of a record; texts of the record are escaped in the prose."""
    import jinja2

    front_matter = {
        "license": record.license,
        "library_name": "medvl-zoo",
        "pipeline_tag": record.task,
        "tags": ["medical", "vision-language", record.method],
        "model-index": model_index(record),
        "zoo": record.model_dump(mode="json"),
    }
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=escape_markdown
    )
    prose = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(card=record)
    header = yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{header}---\n{prose}\n"


def escape_markdown(value: Any) -> Any:
    """A text in one line that opens no tag, cell or link in Markdown; anything else as it is."""
    if isinstance(value, str):
        value = " ".join(value.split())
        for characters, escaped in _ESCAPES.items():
            value = value.replace(characters, escaped)
    return value


def check_prose(card: Card) -> None:
    """Check that a card's README says what its record says, and nothing else.

    Raises:
        CardError: the README differs from the one that its record gives.
    """
    if (card.folder / PROSE).read_text(encoding="utf-8") != render_prose(card.record):
        raise CardError(
            f"the text of {card.folder / PROSE} differs from its record: it was edited, or written by another version of the zoo; "
            "publish the card again"
        )


def model_index(record: CardRecord) -> list[dict[str, Any]]:
    """The record's metrics in Hugging Face's model-index form."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = [
        EvalResult(
            task_type=record.task,
            dataset_type=record.data.name,
            dataset_name=record.data.name,
            dataset_split=metric.split,
            metric_type=metric.name,
            metric_value=metric.value,
        )
        for metric in record.metrics
    ]
    return eval_results_to_model_index(record.name, results)
