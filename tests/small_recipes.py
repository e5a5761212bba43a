"""Every method as a recipe on tiny models and data, for tests that walk all methods."""

from pathlib import Path

from tests.data.annotations.public_forms import label_table
from tests.tiny_models import (
    anole,
    biomedclip,
    causal_lm,
    coop_split,
    ivl_traces,
    llava,
    medseg_files,
    openclip_vitb16,
    qwen,
    sam,
    sentence_encoder,
)
from zoo.adapters.few_shot import FewShotAdapter
from zoo.registry import registry

COOP = "{name: coop_split, split_file: FOLDER/coop/split.json, images: FOLDER/coop/images, shots: 2, batch_size: 3}"
MEDSEG = "{name: medseg_files, train: FOLDER/medseg/data.jsonl, val: FOLDER/medseg/data.jsonl, test: FOLDER/medseg/data.jsonl}"
LABELS = "{name: annotated_labels, annotations: {name: label_table, table: FOLDER/labels/labels.csv, labels: [effusion, edema]}, batch_size: 3}"
TRACES = "{name: ivl_jsonl, train: FOLDER/ivl/data.jsonl, val: FOLDER/ivl/data.jsonl, test: FOLDER/ivl/data.jsonl, batch_size: 2}"
SMALL_CLIP = "{name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 3, text_width: 32, text_layers: 3, embedding: 32}"
MINILM_CLIP = (
    "{name: minilm_clip, source: FOLDER/sentence_encoder, image_size: 64, width: 64, layers: 2, embedding: 32, "
    "text_layers_trained: 1}"
)
CLIPS = {
    "small": SMALL_CLIP,
    "vitb16": "{name: open_clip, model: 'local-dir:FOLDER/vitb16'}",
    "biomedclip": "{name: biomedclip, source: 'local-dir:FOLDER/biomedclip'}",
    "minilm": MINILM_CLIP,
}
CONTEXTS = {
    "llava": "{name: vision_language_context, source: FOLDER/llava}",
    "qwen": "{name: vision_language_context, source: FOLDER/qwen, image_size: 56}",
    "causal_lm": f"{{name: global_context, vision: {{name: clip_vision, clip: {SMALL_CLIP}}}, model: "
    "{name: causal_lm, source: FOLDER/lm}, merge: 2}",
}
HEADS = {
    "sam": "{name: sam_grounding, source: FOLDER/sam}",
    "unet": "{name: unet_grounding, image_size: 64, channels: [16, 16, 8, 8, 8]}",
}
VQ = "{name: vq_image, resolution: 16, codes: 16, embed_dim: 16, base_channels: 32, channel_multiplier: [1, 1, 1], res_blocks: 1}"
WORDS = (
    "First Next Summarizing I need to analyze the heart left lung bounding box of this area is It There a pleural effusion "
    "clear normal previous analysis will generate following report Left No Write".split()
)
DECODERS = {
    "small": f"{{name: small_interleaved, words: {[*WORDS, *'[],.:', *map(str, range(65))]}, width: 32, layers: 2, heads: 2, "
    f"max_length: 512, tokenizer: {VQ}}}",
    "anole": "{name: anole, source: FOLDER/anole}",
}
ADAPTERS = [name for name in registry("adapter") if issubclass(registry("adapter").resolve(name), FewShotAdapter)]
CLASS_TEXTS = "{stripes: [lines, bars, bands], dots: [points, spots, marks], blank film: [nothing, grey, empty]}"


def _few_shot(method: str) -> str:
    return f"data: {COOP}\nmethod: {method}\n"


def _medseg(context: str, head: str, more: str = "") -> str:
    options = f"lora_rank: 2, max_new_tokens: 6, context: {CONTEXTS[context]}, grounding: {HEADS[head]}{more}"
    return f"data: {MEDSEG}\nmethod: {{name: medseg_r, {options}}}\n"


def _interleaved(decoder: str, evidence: str, tokens: int, more: str = "") -> str:
    options = (
        f"evidence: {evidence}, box_frame: 64, max_tokens: {tokens}, max_images: 1, decoder: {DECODERS[decoder]}{more}"
    )
    return f"data: {TRACES}\nmethod: {{name: interleaved_reasoning, {options}}}\n"


def _vision_language(context: str, evidence: str, more: str = "") -> str:
    options = (
        f"evidence: {evidence}, box_frame: 64, max_tokens: 900, max_new_tokens: 6, context: {CONTEXTS[context]}{more}"
    )
    return f"data: {TRACES}\nmethod: {{name: interleaved_vision_language, {options}}}\n"


USEFORMER = "useformer: {name: useformer, width: 32, depth: 2, queries: 2, synergy: 32}"
RECIPES = {
    **{
        f"nearl_clip {name}": _few_shot(f"{{name: nearl_clip, clip: {clip}, {USEFORMER}}}")
        for name, clip in CLIPS.items()
    },
    "nearl_clip prototype": _few_shot(f"{{name: nearl_clip, interaction: prototype, clip: {SMALL_CLIP}, {USEFORMER}}}"),
    **{
        name: _few_shot(
            f"{{name: clip_adaptation, clip: {SMALL_CLIP}, adapter: {{name: {name}}}, class_texts: {CLASS_TEXTS}}}"
        )
        for name in ADAPTERS
    },
    "lora biomedclip": _few_shot(f"{{name: clip_adaptation, clip: {CLIPS['biomedclip']}, adapter: {{name: lora}}}}"),
    "medseg_r llava sam": _medseg("llava", "sam"),
    "medseg_r llava sam all rows": _medseg("llava", "sam", ", train_vocabulary: all"),
    "medseg_r qwen sam": _medseg("qwen", "sam"),
    "medseg_r causal_lm unet": _medseg("causal_lm", "unet", ", shared_levels: 2"),
    "medseg_r causal_lm unet reject": _medseg(
        "causal_lm", "unet", ", reject_token: true, presence_weight: 1.0, presence_threshold: 0.0, lora_targets: all"
    ),
    "interleaved_reasoning small crop": _interleaved("small", "crop", 160),
    "interleaved_reasoning small generated": _interleaved("small", "generated", 160),
    "interleaved_reasoning anole": _interleaved("anole", "generated", 400, ", lora_rank: 2, too_long: shorten"),
    "interleaved_vision_language llava crop": _vision_language("llava", "crop", ", lora_rank: 2, image_cache: none"),
    "interleaved_vision_language qwen crop": _vision_language("qwen", "crop", ", lora_rank: 2, film_size: 32"),
    "interleaved_vision_language causal_lm crop": _vision_language(
        "causal_lm", "crop", ", train_vision: true, image_cache: pixels"
    ),
    "interleaved_vision_language causal_lm text": _vision_language("causal_lm", "text", ", lora_rank: 2"),
    "finding_unet": f"data: {MEDSEG}\nmethod: {{name: finding_unet, image_size: 64, channels: [16, 16, 8, 8, 8]}}\n",
    "named_grounding": f"data: {MEDSEG}\nmethod: {{name: named_grounding, width: 16, grounding: {HEADS['unet']}}}\n",
    "clip_multi_label": f"data: {LABELS}\nmethod: {{name: clip_multi_label, clip: {SMALL_CLIP}, adapter: {{name: lora}}}}\n",
    "clip_pretraining": f"data: {COOP}\nmethod: {{name: clip_pretraining, clip: {SMALL_CLIP}}}\n",
    "clip_pretraining minilm": f"data: {COOP}\nmethod: {{name: clip_pretraining, clip: {MINILM_CLIP}}}\n",
    "vq_tokenizer": f"data: {COOP}\nmethod: {{name: vq_tokenizer, tokenizer: {VQ}}}\n",
}
TRAINING_FREE = {"zero_shot", "tip_adapter", "logistic_probe", "lp_plus_plus"}


def make_folder(root: Path) -> Path:
    """Models and data of all recipes."""
    for make, name in (
        (openclip_vitb16, "vitb16"),
        (biomedclip, "biomedclip"),
        (llava, "llava"),
        (qwen, "qwen"),
        (causal_lm, "lm"),
        (sam, "sam"),
        (sentence_encoder, "sentence_encoder"),
        (anole, "anole"),
        (coop_split, "coop"),
        (medseg_files, "medseg"),
        (ivl_traces, "ivl"),
        (label_table, "labels"),
    ):
        make(root / name)
    return root


def write_recipe(folder: Path, name: str) -> Path:
    """Write a recipe for the models and data of a folder."""
    path = folder / f"{name.replace(' ', '_')}.yaml"
    end = (
        "optimizer: {name: adamw, lr: 1.0e-3}\ntrainer: {accelerator: cpu, max_epochs: 1, enable_progress_bar: false}\n"
    )
    path.write_text(RECIPES[name].replace("FOLDER", str(folder)) + end)
    return path
