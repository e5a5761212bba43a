"""Three small models that write reports, as recipes, and traces in three files."""

from pathlib import Path

from tests.small_recipes import DECODERS
from tests.tiny_models import anole, ivl_traces, llava, qwen

RECIPE = """
data: {name: ivl_jsonl, train: none.jsonl, val: none.jsonl, test: none.jsonl, batch_size: 2, eval_batch_size: 2}
method: METHOD
optimizer: {name: adamw, lr: 1.0e-3}
trainer: {max_epochs: 2, enable_progress_bar: false, accelerator: cpu}
"""
VISION_LANGUAGE = (
    "{name: interleaved_vision_language, max_tokens: 1400, max_new_tokens: 8, lora_rank: 2, "
    "context: {name: vision_language_context, source: FOLDER/MODEL, image_size: SIDE}}"
)


def write_models(root: Path) -> Path:
    """``qwen.yaml``, ``llava.yaml`` and ``anole.yaml`` with their weights, and ``traces``, whose test records have another order."""
    lines = (ivl_traces(root / "traces", count=4) / "data.jsonl").read_text().splitlines()
    for split, part in (("train", lines), ("val", lines[:1]), ("test", lines[::-1])):
        (root / "traces" / f"{split}.jsonl").write_text("\n".join(part))
    for name, build, side in (("llava", llava, 32), ("qwen", qwen, 56)):
        build(root / name)
        method = VISION_LANGUAGE.replace("FOLDER", str(root)).replace("MODEL", name).replace("SIDE", str(side))
        (root / f"{name}.yaml").write_text(RECIPE.replace("METHOD", method))
    anole(root / "anole")
    decoder = DECODERS["anole"].replace("FOLDER", str(root))
    method = f"{{name: interleaved_reasoning, max_tokens: 400, max_images: 1, decoder: {decoder}}}"
    (root / "anole.yaml").write_text(RECIPE.replace("METHOD", method))
    return root
