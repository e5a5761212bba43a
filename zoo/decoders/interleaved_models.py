"""Interleaved decoders with their text tokenizers: Anole and Chameleon by folder or hub name, and a small one of our own."""

from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn
from transformers import ChameleonConfig, PreTrainedTokenizerFast

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
from zoo.pretrained import should_load_weights
from zoo.registry import Injected, Slot, register

_SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}


def vocabulary_map(codes: int, marks_from: int | None = None) -> dict[str, int]:
    """Special tokens, image tokens from id 4, end and begin of an image, separator and placeholder.

    Args:
        codes: size of the image codebook.
        marks_from: id of the separator; after the begin mark if None.
    """
    names = {f"IMGIMG{_letters(code)}Z": 4 + code for code in range(codes)}
    end, separator = 4 + codes, marks_from or 6 + codes
    marks = {"<eoss>": end, "<racm3:break>": end + 1, "<reserved08706>": separator, "<image>": separator + 1}
    return {**_SPECIAL, **names, **marks}


def _letters(number: int) -> str:
    """A code's digits as Chameleon spells them: A for 0 to J for 9."""
    return "".join(chr(ord("A") + int(digit)) for digit in str(number))


def word_tokenizer(names: dict[str, int], words: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: a token for each word and each punctuation mark, ids after those of ``names``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    first = max(names.values()) + 1
    ids = {**names, **{word: first + index for index, word in enumerate(words)}}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=True),  # a space before each word, none before . , ? !
            *(decoders.Replace(mark, mark.strip()) for mark in (" :", " ;", " ]")),
            decoders.Fuse(),
            *(decoders.Replace(mark, mark.strip()) for mark in ("[ ", " - ")),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", clean_up_tokenization_spaces=False)


@register("decoder", "small_interleaved")
class SmallInterleaved(InterleavedDecoder):
    """A small Chameleon-shaped model with random weights and a word-level tokenizer.

    Unlike Chameleon it adds a learned embedding of its place in the image to each code (ours): rotary positions leave no trace
    in the values, so where a code stands must be found out by attention, for which a small model on few films is too small.
    """

    def __init__(
        self,
        words: Annotated[list[str], Injected],
        tokenizer: Annotated[VQImage, Slot("decoder")],
        width: int = 192,
        layers: int = 4,
        heads: int = 6,
        max_length: int = 768,
    ) -> None:
        """Build.

        Args:
            words: of the tokenizer, each once; the data set supplies them.
            tokenizer: the image tokenizer, whose shape is kept; its weights come with ``init_from``.
            width: of the hidden states.
            layers: of the transformer.
            heads: of the attention.
            max_length: most positions.
        """
        names = vocabulary_map(len(tokenizer.codebook))
        vq_config: Any = tokenizer.config
        super().__init__(
            {
                "vocab_size": max(names.values()) + 1 + len(words),
                "hidden_size": width,
                "intermediate_size": 3 * width,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "max_position_embeddings": max_length,
                "vocabulary_map": names,
                "vq_config": vq_config.to_dict(),
                "pad_token_id": _SPECIAL["<pad>"],
                "bos_token_id": _SPECIAL["<s>"],
                "eos_token_id": _SPECIAL["</s>"],
                "tie_word_embeddings": False,
            }
        )
        self.places = nn.Embedding(self.codes_an_image, width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.text = word_tokenizer(names, words)


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
    ) -> None:
        """Load, in the precision that the weights are stored in.

        Args:
            source: a folder, or OWNER/NAME on the hub; config.json, tokenizer.json and safetensors.
            revision: branch, tag or commit on the hub.
            attention: transformers' implementation.
            gradient_checkpointing: compute each block's activations again in the backward pass.
            quantization: of the language model's blocks, by bitsandbytes.

        Raises:
            OSError: the folder lacks a file.
            WeightsError: a weight is missing.
            QuantizationError: bitsandbytes is not installed.
        """
        nn.Module.__init__(self)
        if not should_load_weights():
            self._build_stand_in(source, attention, quantization)
        else:
            check_quantization(quantization)
            folder = local_folder(source, revision)
            self._load(folder, attention, quantization)
            self.text = PreTrainedTokenizerFast.from_pretrained(folder)
        if gradient_checkpointing:
            checkpoint_activations(self.language)

    def _load(self, folder: Path, attention: Attention = "sdpa", quantization: Quantization | None = None) -> None:
        check_model_type(folder, "chameleon")
        language = load_pretrained(InterleavedChameleon, folder, attention, quantization)
        self._build(language.config, language)

    def _build_stand_in(self, source: str, attention: Attention, quantization: Quantization | None) -> None:
        """The 7B shape with the official ids; transformers' defaults of a Chameleon are those of the 7B model."""
        names = vocabulary_map(8192, marks_from=8710)
        config, dtype = stand_in_config(source, ChameleonConfig(vocabulary_map=names), torch.bfloat16)
        self._build(config, build_stand_in(InterleavedChameleon, config, dtype, attention, quantization))
        self.text = word_tokenizer(config.vocabulary_map, [])
