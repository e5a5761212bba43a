"""A tiny Anole (arXiv 2407.06135) in the official form: Chameleon's names and ids, the image decoder's weights among them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    ChameleonVQVAEConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from zoo.decoders.vq_image import VQDecoder

CODES = 32
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_VQ_PREFIX = "model.vqmodel."


def anole(folder: Path, *, dtype: torch.dtype = torch.float32, shards: int = 2) -> Path:
    """Images of 16 pixels, a code each 4 x 4; text a token a byte.

    Args:
        folder: gets config.json, tokenizer.json, and weights in so many shards with their index.
        dtype: of the stored weights.
        shards: files of weights.
    """
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    names = tokenizer.get_vocab()
    vq = ChameleonVQVAEConfig(
        resolution=16,
        num_embeddings=CODES,
        embed_dim=16,
        latent_channels=16,
        base_channels=32,
        channel_multiplier=[1, 1, 2],
        num_res_blocks=1,
        attn_resolutions=None,
    )
    config = ChameleonConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.2,
        vq_config=vq.to_dict(),
        vocabulary_map=names,
        pad_token_id=names["<pad>"],
        bos_token_id=names["<s>"],
        eos_token_id=names["</s>"],
        tie_word_embeddings=False,
    )
    config.architectures, config.dtype = ["ChameleonForConditionalGeneration"], dtype
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write_shards(folder, {name: value.to(dtype).contiguous() for name, value in _weights(config).items()}, shards)
    return folder


def _weights(config: ChameleonConfig) -> dict[str, torch.Tensor]:
    """transformers' Chameleon, which encodes images only, and the decoder beside it."""
    weights = dict(ChameleonForConditionalGeneration(config).state_dict())
    image_tokenizer = ChameleonVQVAE(config.vq_config)
    image_tokenizer.decoder = VQDecoder(config.vq_config)
    _spread_codes(image_tokenizer)
    weights |= {_VQ_PREFIX + name: value for name, value in image_tokenizer.state_dict().items()}
    return weights


@torch.no_grad()
def _spread_codes(image_tokenizer: ChameleonVQVAE) -> None:
    """Codes that are latents of random images, as training makes them: initial ones give all images one and the same code."""
    images = torch.rand(CODES, 3, 16, 16) * torch.rand(CODES, 1, 1, 1) + torch.rand(CODES, 3, 1, 1)
    latents = image_tokenizer.quant_conv(image_tokenizer.encoder(images - 1))[:, :, 1, 1]
    image_tokenizer.quantize.embedding.weight.copy_(latents)


def _write_shards(folder: Path, weights: dict[str, torch.Tensor], count: int) -> None:
    names = sorted(weights)
    index = {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        own = names[number::count]
        save_file({name: weights[name] for name in own}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(own, file)
    size = sum(value.numel() * value.element_size() for value in weights.values())
    content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2))


def _tokenizer() -> PreTrainedTokenizerFast:
    """Ids as Chameleon has them: special tokens, image codes from 4, the marks, then text."""
    codes = [f"IMGIMG{''.join(chr(ord('A') + int(digit)) for digit in str(code))}Z" for code in range(CODES)]
    marks = ["<eoss>", "<racm3:break>", "<reserved08706>", "<image>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*SPECIAL, *codes, *marks, *alphabet]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, *marks])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
