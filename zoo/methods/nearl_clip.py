"""NEARL (formerly NEARL-CLIP, arXiv 2508.04101) as a method: USEformer and OCA on a frozen CLIP."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from zoo.adapters.nearl import Direction, Interaction, NearlAdapter
from zoo.adapters.oca import OrthogonalCrossAttention
from zoo.adapters.useformer import USEformer
from zoo.data.classification.balance import ClassWeights
from zoo.encoders.clip import ClipEncoder
from zoo.methods.clip_classification import TEMPLATE, ClipClassification
from zoo.precision import BasePrecision
from zoo.ranges import PositiveInt
from zoo.registry import Injected, Slot, register


@register("method", "nearl_clip")
class NearlClip(ClipClassification):
    """A frozen CLIP with NEARL's adapter: 1,458,432 trained parameters on ViT-B/16 with the defaults."""

    def __init__(
        self,
        clip: Annotated[ClipEncoder, Slot("vision_language_encoder")],
        class_names: Annotated[list[str], Injected],
        useformer: Annotated[Callable[..., USEformer], Slot("adapter")] = USEformer,
        adapter: Annotated[Callable[..., OrthogonalCrossAttention], Slot("adapter")] = OrthogonalCrossAttention,
        template: Annotated[str, Injected] = TEMPLATE,
        interaction: Interaction = "instance",
        direction: Direction = "both",
        candidates: PositiveInt | None = None,
        class_weights: ClassWeights | None = None,
        base_precision: BasePrecision | None = None,
    ) -> None:
        """Build the adapter, :class:`~zoo.adapters.nearl.NearlAdapter`, on a frozen CLIP.

        Args:
            clip: the base.
            class_names: the classes, in the order of the labels.
            useformer: builder of the USEformer.
            adapter: builder of the OCA of each layer and modality.
            template: prompt for a class, with {} for its name; the data set's if it has one.
            interaction: which image tokens the text tokens interact with: those of the instance, or the mean of its class.
            direction: of the interaction; "image_to_text" and "text_to_image" adapt one tower only (ablations).
            candidates: number of classes that interact with each image, the likeliest by the frozen CLIP; if None all, of more than
                32 that many, with a warning.
            class_weights: "balanced" weights a class in the loss by the inverse of its share of the training images, with mean 1.
            base_precision: of the CLIP; as stored if None. Trained weights are float32.
        """
        wired = partial(
            NearlAdapter,
            useformer=useformer,
            oca=adapter,
            interaction=interaction,
            direction=direction,
            candidates=candidates,
        )
        super().__init__(clip, wired, class_names, template, class_weights=class_weights, base_precision=base_precision)
