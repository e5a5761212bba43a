"""USEformer: cross-modal synergy vectors from learned queries (NEARL, formerly NEARL-CLIP, arXiv 2508.04101).

From the paper: cross-modality queries are generated dynamically so that both modalities enrich each other, and one USEformer
runs in parallel to all layers. Reconstructed, from the parameter count: widths, depth and token layout.
"""

from typing import Annotated

import torch
from torch import nn

from zoo.ranges import PositiveInt
from zoo.registry import Injected, register


@register("adapter", "useformer")
class USEformer(nn.Module):
    """Queries of a layer attend to the image and text tokens of that layer; the result is projected for each modality.

    ``x = [q_k ; W_i v_k ; W_t t_k]``, pre-norm transformer layers, then ``z_v = W_v x[:Q]`` and ``z_t = W_u x[:Q]``
    (reconstructed). With the default sizes on ViT-B/16 (768, 512, 12 layers): 573,696 parameters.
    """

    def __init__(
        self,
        vision_width: Annotated[PositiveInt, Injected],
        text_width: Annotated[PositiveInt, Injected],
        layers: Annotated[PositiveInt, Injected],
        width: PositiveInt = 128,
        depth: PositiveInt = 2,
        queries: PositiveInt = 8,
        heads: PositiveInt = 4,
        synergy: PositiveInt = 512,
        mix: bool = True,
    ) -> None:
        """Build.

        Args:
            vision_width: width of image tokens.
            text_width: width of text tokens.
            layers: number of encoder layers; each has its queries.
            width: inner width.
            depth: transformer layers.
            queries: number of queries for each layer.
            heads: attention heads.
            synergy: width of the synergy vectors.
            mix: False lets the queries attend to nothing; the ablation "without USEformer".
        """
        super().__init__()
        self.queries = nn.Parameter(torch.randn(layers, queries, width) * 0.02)
        self.from_image = nn.Linear(vision_width, width)
        self.from_text = nn.Linear(text_width, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.to_image = nn.Linear(width, synergy)
        self.to_text = nn.Linear(width, synergy)
        self.mix = mix

    def forward(
        self, layer: int, image: torch.Tensor, text: torch.Tensor, text_padding: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Synergy vectors of one layer.

        Args:
            layer: which layer's queries.
            image: image tokens (batch, tokens, vision_width).
            text: text tokens (batch, tokens, text_width).
            text_padding: True (batch, tokens) at text tokens that are ignored.

        Returns:
            z_v and z_t, both (batch, queries, synergy).
        """
        queries, _ = self.attend(layer, image, text, text_padding)
        return self.to_image(queries), self.to_text(queries)

    def attend(
        self, layer: int, image: torch.Tensor, text: torch.Tensor, text_padding: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Queries after the transformer (batch, queries, width), and their last attention to the image tokens.

        The attention (batch, queries, image tokens) is None in training mode, where it is not needed.
        """
        batch, count = image.shape[0], self.queries.shape[1]
        queries = self.queries[layer].expand(batch, -1, -1)
        if not self.mix:
            return self.norm(queries), None
        tokens = torch.cat([queries, self.from_image(image), self.from_text(text)], dim=1)
        padding = None
        if text_padding is not None:
            no_padding = text_padding.new_zeros(batch, count + image.shape[1])
            padding = torch.cat([no_padding, text_padding.expand(batch, -1)], dim=1)
        for block in self.blocks[:-1]:
            tokens = block(tokens, src_key_padding_mask=padding)
        # Only the queries leave the last block, so only they are computed there.
        last = self.blocks[-1]
        assert isinstance(last, nn.TransformerEncoderLayer)
        normed = last.norm1(tokens)
        attended, attention = last.self_attn(
            normed[:, :count], normed, normed, key_padding_mask=padding, need_weights=not self.training
        )
        queries = tokens[:, :count] + attended
        queries = queries + last.linear2(last.activation(last.linear1(last.norm2(queries))))
        over_image = None if attention is None else attention[:, :, count : count + image.shape[1]]
        return self.norm(queries), over_image
