"""A card's README: front matter with the record and Hugging Face's model index, then prose made from the record."""

from pathlib import Path
from typing import Any

import yaml

from zoo.cards.schema import CardRecord
from zoo.cards.store import PROSE

_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def write_prose(record: CardRecord, folder: Path) -> None:
    """Write the card's README: front matter with the record and Hugging Face's model index, then prose from the record."""
    import jinja2

    front_matter = {
        "license": record.license,
        "library_name": "medvl-zoo",
        "pipeline_tag": record.task,
        "tags": ["medical", "vision-language", record.method],
        "model-index": model_index(record),
        "zoo": record.model_dump(mode="json"),
    }
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    prose = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(card=record)
    header = yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True, width=120)
    (folder / PROSE).write_text(f"---\n{header}---\n{prose}\n", encoding="utf-8")


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
