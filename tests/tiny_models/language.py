"""A tiny causal language model in the form that transformers saves it in, and its tokenizer of bytes."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def byte_tokenizer(*more: str) -> PreTrainedTokenizerFast:
    """A token a byte, as byte-level BPE without merges has it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")
    if more:
        made.add_special_tokens({"additional_special_tokens": list(more)})
    return made


def causal_lm(folder: Path, *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    """Llama, as SmolLM2 is one; ``tied`` embeddings are the output layer too."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=tied, **SIZES)
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
