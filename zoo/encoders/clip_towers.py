"""A layer-by-layer view of the transformer towers of open_clip models.

An adapter inside the towers needs the tokens after each layer. Each tower here is a view of modules that belong to the CLIP
model, without parameters, with the same three steps: ``start``, ``layer`` and ``finish``. Run one after the other, they equal
the model's forward.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from zoo.errors import ZooError


class UnsupportedTowerError(ZooError, TypeError):
    """A tower of the CLIP model is not a plain transformer, so that nothing can be inserted between its layers."""


def fold_projections(model: nn.Module) -> None:
    """Have torch's attention multiply all its tokens by frozen weights in one product.

    It views batch-first tokens position by position. Such a view is not contiguous, and torch multiplies it by weights that need
    no gradient in as many products as there are positions: six times as slow on CPUs, 200 times in bfloat16.
    """
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.batch_first:
            module.register_forward_pre_hook(_position_by_position)


def _position_by_position(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Tokens of self-attention (batch, positions, width) that lie in memory position by position; no change for subclasses."""
    if type(module) is not nn.MultiheadAttention or any(part is not inputs[0] for part in inputs[:3]):
        return None
    tokens = inputs[0].transpose(0, 1).contiguous().transpose(0, 1)
    return tokens, tokens, tokens, *inputs[3:]


class VisionTower(ABC):
    """Images to a shared-space feature, layer by layer.

    ``width`` and ``depth`` are those of the transformer; ``prefix`` tokens (the class token) stand before the
    ``grid`` = (rows, columns) of patch tokens.
    """

    width: int
    depth: int
    prefix: int
    grid: tuple[int, int]

    @abstractmethod
    def start(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (batch, 3, height, width) to tokens (batch, tokens, width)."""

    @abstractmethod
    def first_norm(self, tokens: torch.Tensor) -> torch.Tensor:
        """The norm (..., width) that :meth:`start` ends with; tokens that join later pass it too."""

    @abstractmethod
    def layer(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """Run one transformer layer on (batch, tokens, width)."""

    @abstractmethod
    def finish(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens after the last layer to features (batch, embedding), not normalised."""


class TextTower(ABC):
    """Token ids to a shared-space feature, layer by layer; ``input_ids`` are (texts, positions), padding included."""

    width: int
    depth: int

    @abstractmethod
    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings (texts, positions, width), before positions are added."""

    @abstractmethod
    def start(self, inputs_embeds: torch.Tensor, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The input of the first layer (texts, positions, width), and the attention mask of all layers."""

    @abstractmethod
    def layer(self, index: int, tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Run one transformer layer on (texts, positions, width)."""

    @abstractmethod
    def finish(self, tokens: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """Tokens after the last layer to features (texts, embedding), not normalised."""

    @abstractmethod
    def trim(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Remove positions that no feature depends on; features stay exactly the same."""

    @abstractmethod
    def is_token(self, input_ids: torch.Tensor) -> torch.Tensor:
        """True (texts, positions) at real tokens, False at padding."""


class OpenClipVision(VisionTower):
    """open_clip's own VisionTransformer."""

    def __init__(self, visual: Any) -> None:
        """View ``visual``."""
        self._visual = visual
        self.width = int(visual.transformer.width)
        self.depth = len(visual.transformer.resblocks)
        self.prefix, self.grid = 1, tuple(visual.grid_size)

    def start(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        tokens: torch.Tensor = self._visual._embeds(images)
        return tokens

    def first_norm(self, tokens: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        return self._visual.ln_pre(tokens)

    def layer(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        tokens = self._visual.transformer.resblocks[index](tokens)
        return tokens

    def finish(self, tokens: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        features: torch.Tensor = self._visual._pool(tokens)[0]
        return features if self._visual.proj is None else features @ self._visual.proj


class TimmVision(VisionTower):
    """A timm VisionTransformer inside open_clip's TimmModel, as BiomedCLIP has it."""

    def __init__(self, visual: Any) -> None:
        """View ``visual``."""
        self._trunk, self._head = visual.trunk, visual.head
        self.width, self.depth = int(self._trunk.embed_dim), len(self._trunk.blocks)
        self.prefix, self.grid = int(self._trunk.num_prefix_tokens), tuple(self._trunk.patch_embed.grid_size)

    def start(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        embedded = self._trunk._pos_embed(self._trunk.patch_embed(images))
        tokens: torch.Tensor = self._trunk.norm_pre(self._trunk.patch_drop(embedded))
        return tokens

    def first_norm(self, tokens: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        return self._trunk.norm_pre(tokens)

    def layer(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        tokens = self._trunk.blocks[index](tokens)
        return tokens

    def finish(self, tokens: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        features: torch.Tensor = self._head(self._trunk.forward_head(self._trunk.norm(tokens)))
        return features


class EvaVision(TimmVision):
    """timm's Eva, whose layers rotate queries and keys by the place of their patch: EVA-02, Perception Encoder."""

    def start(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`."""
        embedded, _ = self._trunk._pos_embed(self._trunk.patch_embed(images))
        tokens: torch.Tensor = self._trunk.norm_pre(embedded)
        return tokens

    def layer(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionTower`; tokens that joined after the patches have no place, and are not rotated."""
        tokens = self._trunk.blocks[index](tokens, rope=self._rotations(index, tokens.shape[1]))
        return tokens

    def _rotations(self, index: int, tokens: int) -> torch.Tensor | None:
        """Sines and cosines (..., tokens after the prefix, 2 head width) of a layer."""
        rope = self._trunk.rope
        if rope is None:
            return None
        angles = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(shape=self.grid)
        angles = angles[index] if getattr(self._trunk, "rope_mixed", False) else angles
        joined = tokens - self.prefix - angles.shape[-2]
        if not joined:
            return angles
        still = torch.zeros_like(angles[..., :1, :]).expand(*angles.shape[:-2], joined, -1).clone()
        still[..., angles.shape[-1] // 2 :] = 1  # cosines
        return torch.cat([angles, still], dim=-2)


class OpenClipText(TextTower):
    """open_clip's TextTransformer, or the same parts directly on a native CLIP model."""

    def __init__(self, owner: Any) -> None:
        """View ``owner``, a TextTransformer or a CLIP model.

        Raises:
            UnsupportedTowerError: a class token is appended to the text (CoCa), or padding is masked without causality.
        """
        if getattr(owner, "cls_emb", None) is not None or getattr(owner, "use_pad_mask", False):
            raise UnsupportedTowerError(
                "text towers with an appended class token (CoCa) or a padding mask without causality are not supported"
            )
        self._owner = owner
        self.width, self.depth = int(owner.transformer.width), len(owner.transformer.resblocks)
        self._pool = getattr(owner, "text_pool_type", None) or owner.pool_type
        self._eos = getattr(owner, "text_eos_id", None) or getattr(owner, "eos_id", None)
        self._pad = getattr(owner, "pad_id", 0)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`TextTower`."""
        inputs_embeds: torch.Tensor = self._owner.token_embedding(input_ids)
        return inputs_embeds

    def start(self, inputs_embeds: torch.Tensor, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`TextTower`."""
        length, mask = inputs_embeds.shape[1], self._owner.attn_mask
        positions = self._owner.positional_embedding[:length]
        return inputs_embeds + positions, None if mask is None else mask[:length, :length]

    def layer(self, index: int, tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """See :class:`TextTower`."""
        tokens = self._owner.transformer.resblocks[index](tokens, attn_mask=attention_mask)
        return tokens

    def finish(self, tokens: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`TextTower`."""
        from open_clip.transformer import text_global_pool

        normed, projection = self._owner.ln_final(tokens), self._owner.text_projection
        features: torch.Tensor = text_global_pool(normed, input_ids, self._pool, eos_token_id=self._eos)
        if projection is not None:
            features = projection(features) if isinstance(projection, nn.Linear) else features @ projection
        return features

    def trim(self, input_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`TextTower`; exact since causal attention never looks at later positions."""
        causal = self._owner.attn_mask is not None
        if not causal or self._pool not in ("argmax", "eos", "first"):
            return input_ids
        return input_ids[:, : int((input_ids != self._pad).sum(dim=1).max())]

    def is_token(self, input_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`TextTower`."""
        return input_ids != self._pad


class BertText(TextTower):
    """A BERT encoder inside open_clip's HFTextEncoder, as BiomedCLIP's PubMedBERT."""

    def __init__(self, text: Any) -> None:
        """View ``text``.

        Raises:
            UnsupportedTowerError: the encoder is no BERT, or its pooler is not built on the last hidden state.
        """
        bert = text.transformer
        if not hasattr(bert, "encoder") or not hasattr(bert.encoder, "layer") or not hasattr(bert, "embeddings"):
            raise UnsupportedTowerError(
                f"text tower {type(bert).__name__} is not laid out as BERT; those of T5 and NLLB are not supported"
            )
        if getattr(text.pooler, "use_pooler_output", False):
            raise UnsupportedTowerError("BERT's own pooler output is not supported; last-hidden-state poolers are")
        self._text, self._bert = text, bert
        self._pad = int(text.config.pad_token_id)
        self.width, self.depth = int(text.config.hidden_size), len(bert.encoder.layer)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`TextTower`."""
        inputs_embeds: torch.Tensor = self._bert.embeddings.word_embeddings(input_ids)
        return inputs_embeds

    def start(self, inputs_embeds: torch.Tensor, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See :class:`TextTower`."""
        hidden = self._bert.embeddings(inputs_embeds=inputs_embeds)
        padding = ~self.is_token(input_ids)[:, None, None, :]
        return hidden, torch.zeros_like(padding, dtype=hidden.dtype).masked_fill(padding, torch.finfo(hidden.dtype).min)

    def layer(self, index: int, tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """See :class:`TextTower`."""
        output = self._bert.encoder.layer[index](tokens, attention_mask=attention_mask)
        tokens = output[0] if isinstance(output, tuple) else output
        return tokens

    def finish(self, tokens: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`TextTower`."""
        from transformers.modeling_outputs import BaseModelOutput

        pooled = self._text.pooler(BaseModelOutput(last_hidden_state=tokens), self.is_token(input_ids).long())
        features: torch.Tensor = self._text.proj(pooled)
        return features

    def trim(self, input_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`TextTower`; exact since padding is masked."""
        return input_ids[:, : int(self.is_token(input_ids).sum(dim=1).max())]

    def is_token(self, input_ids: torch.Tensor) -> torch.Tensor:
        """See :class:`TextTower`."""
        return input_ids != self._pad


def vision_tower(model: Any) -> VisionTower:
    """The layer-by-layer view of a CLIP model's image tower.

    Raises:
        UnsupportedTowerError: the tower has no transformer layers (a ResNet, say), or pools in an unknown way.
    """
    visual = model.visual
    if hasattr(visual, "transformer") and hasattr(visual, "_embeds") and hasattr(visual.transformer, "resblocks"):
        return OpenClipVision(visual)
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and hasattr(trunk, "blocks") and hasattr(trunk, "_pos_embed"):
        return EvaVision(visual) if hasattr(trunk, "rope") else TimmVision(visual)
    raise UnsupportedTowerError(
        f"image tower {type(trunk or visual).__name__} has no transformer layers; choose a ViT model, such as ViT-B-16"
    )


def text_tower(model: Any) -> TextTower:
    """The layer-by-layer view of a CLIP model's text tower.

    Raises:
        UnsupportedTowerError: the tower is neither open_clip's transformer nor a BERT.
    """
    owner = getattr(model, "text", model)
    if hasattr(owner, "token_embedding") and hasattr(owner.transformer, "resblocks"):
        return OpenClipText(owner)
    if hasattr(owner, "pooler") and hasattr(owner, "config"):
        return BertText(owner)
    raise UnsupportedTowerError(f"text tower {type(owner).__name__} is neither open_clip's transformer nor a BERT")
