"""Features of a frozen image tower, kept in memory: without augmentation, training meets the same images in every epoch."""

import hashlib

import torch

from zoo.encoders.clip import ClipEncoder

MAX_IMAGES = 20_000


class ImageFeatures:
    """Unit features by the frozen image tower, by the content of each image.

    On CPUs, where encoding is most of a step; on other devices, and where a gradient of the images is needed, all are encoded.
    They are encoded one at a time, so that a feature does not depend on the batch in which its image came first.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._features: dict[bytes, torch.Tensor] = {}
        self._state: object = None

    def encode(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, 1 or 3, height, width) in [0, 1] to unit features (batch, embedding)."""
        has_content = type(images) is torch.Tensor and images.device.type == "cpu"  # a plan's tensors are of a subclass
        if not has_content or images.requires_grad:
            return clip.encode_image(images)
        state = (id(clip), torch.is_autocast_enabled("cpu"), [value._version for value in clip.parameters()])
        if state != self._state or len(self._features) > MAX_IMAGES:
            self._features, self._state = {}, state
        with torch.inference_mode(False), torch.no_grad():  # what validation has met, training may use
            return torch.stack([self._encode_one(clip, image) for image in images])

    def _encode_one(self, clip: ClipEncoder, image: torch.Tensor) -> torch.Tensor:
        content = image.detach().contiguous().view(torch.uint8).numpy()
        key = hashlib.blake2b(content.data, digest_size=16, key=str(tuple(image.shape)).encode()).digest()
        if key not in self._features:
            self._features[key] = clip.encode_image(image[None])[0]
        return self._features[key]
