"""Tiny models and data in the file formats of the real ones, written to local folders in seconds.

``dtype`` is that of the stored weights; the real ones are float32 (SAM, CLIP), float16 (LLaVA-1.5) and bfloat16 (Qwen2.5-VL,
Anole).
"""

from tests.tiny_models.anole import anole
from tests.tiny_models.clip import biomedclip, biomedclip_layout, openclip_vitb16, sentence_encoder
from tests.tiny_models.data import biomedcoop_sets, coop_split, ivl_traces, medseg_files
from tests.tiny_models.language import byte_tokenizer, causal_lm
from tests.tiny_models.segmentation import sam, sam2, sam3
from tests.tiny_models.vision_language import gemma3, llava, qwen, qwen3_vl

__all__ = [
    "anole",
    "biomedclip",
    "biomedclip_layout",
    "biomedcoop_sets",
    "byte_tokenizer",
    "causal_lm",
    "coop_split",
    "gemma3",
    "ivl_traces",
    "llava",
    "medseg_files",
    "openclip_vitb16",
    "qwen",
    "qwen3_vl",
    "sam",
    "sam2",
    "sam3",
    "sentence_encoder",
]
