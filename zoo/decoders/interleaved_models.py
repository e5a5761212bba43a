"""Interleaved decoders with their text tokenizers: Anole and Chameleon by folder or hub name, and a small model."""

from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn
from transformers import ChameleonConfig, PreTrainedTokenizerFast

from zoo.decoders.image_transforms import ImageTransformName, PixelScale
from zoo.decoders.interleaved import InterleavedChameleon, InterleavedDecoder
from zoo.decoders.vq_image import VQImage
from zoo.encoders.loading import (
    Attention,
    Quantization,
    build_stand_in,
    check_model_type,
    check_quantization,
    checkpoint_activations,
    load_pretrained,
    local_folder,
    stand_in_config,
)
from zoo.errors import ArgumentError
from zoo.language.word_tokenizer import extend_words, word_tokenizer
from zoo.pretrained import should_load_weights
from zoo.ranges import PositiveInt
from zoo.registry import Injected, Slot, register

_SPECIAL_TOKENS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}


def vocabulary_map(codes: int, sep_token_id: int | None = None) -> dict[str, int]:
    """Special tokens, image tokens from id 4, end-of-image, begin-of-image, separator and placeholder.

    Args:
        codes: size of the image codebook.
        sep_token_id: id of the separator; follows the begin-of-image token if None.
    """
    image_tokens = {f"IMGIMG{_code_letters(code)}Z": 4 + code for code in range(codes)}
    eoi, sep = 4 + codes, sep_token_id or 6 + codes
    delimiters = {"<eoss>": eoi, "<racm3:break>": eoi + 1, "<reserved08706>": sep, "<image>": sep + 1}
    return {**_SPECIAL_TOKENS, **image_tokens, **delimiters}


def _code_letters(code: int) -> str:
    """The digits of a code as Chameleon spells them: A for 0 to J for 9."""
    return "".join(chr(ord("A") + int(digit)) for digit in str(code))


@register("decoder", "small_interleaved")
class SmallInterleaved(InterleavedDecoder):
    """A small Chameleon-shaped model with random weights and a tokenizer of words, and of pieces where the data are a user's.

    Unlike Chameleon, it adds to each code a learned embedding of its position in the image (ours): rotary embeddings leave the
    values unchanged, so a model must learn to find a code's position by attention, and a small model trained on few images
    does not.
    """

    def __init__(
        self,
        words: Annotated[list[str], Injected],
        tokenizer: Annotated[VQImage, Slot("decoder")],
        width: PositiveInt = 192,
        layers: PositiveInt = 4,
        heads: PositiveInt = 6,
        max_length: PositiveInt = 768,
        pieces: Annotated[list[str] | None, Injected] = None,
    ) -> None:
        """Build.

        Args:
            words: of the text tokenizer, without duplicates; those of the dataset, or of the card that training starts from.
            tokenizer: the image tokenizer, of which only the configuration is used; its weights come with ``init_from``.
            width: of the hidden states.
            layers: of the transformer.
            heads: of the attention.
            max_length: maximum number of positions.
            pieces: of other words (:mod:`zoo.data.traces.pieces`); a dataset of a user's files provides them.

        Raises:
            ArgumentError: there are neither words nor pieces.
        """
        if not words and not pieces:
            raise ArgumentError("the tokenizer needs words or pieces, and neither the data set nor a card has any")
        pieces = pieces or []
        token_ids = vocabulary_map(len(tokenizer.codebook))
        vq_config: Any = tokenizer.config
        super().__init__(
            {
                "vocab_size": max(token_ids.values()) + 1 + len(extend_words(words, pieces)),
                "hidden_size": width,
                "intermediate_size": 3 * width,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "max_position_embeddings": max_length,
                "vocabulary_map": token_ids,
                "vq_config": vq_config.to_dict(),
                "pad_token_id": _SPECIAL_TOKENS["<pad>"],
                "bos_token_id": _SPECIAL_TOKENS["<s>"],
                "eos_token_id": _SPECIAL_TOKENS["</s>"],
                "tie_word_embeddings": False,
            }
        )
        self.places = nn.Embedding(self.tokens_per_image, width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.tokenizer = word_tokenizer(token_ids, words, pieces)


@register("decoder", "anole")
class Anole(InterleavedDecoder):
    """Anole or Chameleon under the official names, from a local folder or a hub repository (safetensors only)."""

    def __init__(
        self,
        source: str,
        revision: str | None = None,
        attention: Attention = "sdpa",
        gradient_checkpointing: bool = False,
        quantization: Quantization | None = None,
        image_transform: ImageTransformName = "center_crop",
    ) -> None:
        """Load in the precision that the weights are stored in.

        Args:
            source: a folder or OWNER/NAME on the hub, with config.json, tokenizer.json and safetensors.
            revision: branch, tag or commit on the hub.
            attention: implementation in transformers.
            gradient_checkpointing: recompute each block's activations in the backward pass.
            quantization: of the language model's blocks, with bitsandbytes.
            image_transform: "center_crop", as in the official code, or "squash" the whole image to a square.

        Raises:
            OSError: the folder lacks a file.
            WeightsError: a weight is missing.
            QuantizationError: bitsandbytes is not installed.
        """
        nn.Module.__init__(self)
        self.image_transform = image_transform
        if not should_load_weights():
            self._build_stand_in(source, attention, quantization)
        else:
            check_quantization(quantization)
            folder = local_folder(source, revision)
            self._load(folder, attention, quantization)
            self.pixel_scale = PixelScale.from_folder(folder)
            self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        if gradient_checkpointing:
            checkpoint_activations(self.language)

    def _load(self, folder: Path, attention: Attention = "sdpa", quantization: Quantization | None = None) -> None:
        check_model_type(folder, "chameleon")
        language = load_pretrained(InterleavedChameleon, folder, attention, quantization)
        self._build(language.config, language)

    def _build_stand_in(self, source: str, attention: Attention, quantization: Quantization | None) -> None:
        """The 7B shape with the official token ids; transformers' default configuration is that of the 7B model."""
        default = ChameleonConfig(vocabulary_map=vocabulary_map(8192, sep_token_id=8710))
        config, dtype = stand_in_config(source, default, torch.bfloat16)
        self._build(config, build_stand_in(InterleavedChameleon, config, dtype, attention, quantization))
        self.tokenizer = word_tokenizer(config.vocabulary_map, [])
