"""A tiny model of each vision-language family beside transformers' own processor, for comparisons of logits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor

from tests.tiny_models.vision_language import FAMILIES, write_numbers
from zoo.language.vision_language import VisionLanguageContext


@dataclass
class Loaded:
    """A model as a context, and the processor that transformers loads from the same folder."""

    context: VisionLanguageContext
    processor: Any

    def inputs(self, texts: list[str], images: list[list[torch.Tensor]], **options: Any) -> dict[str, torch.Tensor]:
        """The processor's own inputs of a message each: a question after the first of its images."""
        processor = self.processor
        prompts = []
        for text, shown in zip(texts, images, strict=True):
            if processor.chat_template is None:
                prompts.append(processor.image_token * len(shown) + text)
                continue
            content = [{"type": "image"}, {"type": "text", "text": text}, *[{"type": "image"}] * (len(shown) - 1)]
            message = [{"role": "user", "content": content}]
            prompts.append(processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
        begin = processor.tokenizer.bos_token
        special = {"add_special_tokens": False} if begin and prompts[0].startswith(begin) else {}  # as the template's
        inputs = processor(text=prompts, images=images, return_tensors="pt", padding=True, **special, **options)
        return {key: value for key, value in inputs.items() if key != "labels"}

    def embeds(self, images: list[torch.Tensor]) -> list[torch.Tensor]:
        """Features of images of 8 bits."""
        return self.context.encode_images([image.float() / 255 for image in images])

    def pixels(self, count: int) -> list[torch.Tensor]:
        """Images of 8 bits at the context's size."""
        generator = torch.Generator().manual_seed(0)
        size = (3, self.context.image_size, self.context.image_size)
        return [torch.randint(0, 256, size, dtype=torch.uint8, generator=generator) for _ in range(count)]


def load_family(name: str, folder: Path, several: bool = False) -> Loaded:
    """A tiny model of a family, for one image in a sequence or for ``several``."""
    write_numbers()
    FAMILIES[name](folder)
    context = VisionLanguageContext(str(folder), image_size=64 if "Qwen" in name else None).eval()
    if several and name != "PaliGemma 2":
        context.expect_several_images()
    return Loaded(context, AutoProcessor.from_pretrained(folder))
