"""Features of a frozen image tower, kept in memory: without augmentation, training meets the same images in every epoch.

They outlive an adapter, so that a comparison of methods encodes an image once for all of them.
"""

import hashlib

import torch

from zoo.encoders.clip import ClipEncoder

MAX_IMAGES, MAX_TOWERS = 20_000, 2
_FEATURES: dict[bytes, dict[bytes, torch.Tensor]] = {}
"""By the tower, which is known by what it makes of a probe, and by the content of an image; the latest towers only."""


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
        with torch.inference_mode(False), torch.no_grad():  # what validation has met, training may use
            if state != self._state:
                self._features, self._state = _features_of(clip, images), state
            if len(self._features) > MAX_IMAGES:
                self._features.clear()
            return torch.stack([self._encode_one(clip, image) for image in images])

    def _encode_one(self, clip: ClipEncoder, image: torch.Tensor) -> torch.Tensor:
        content = image.detach().contiguous().view(torch.uint8).numpy()
        key = hashlib.blake2b(content.data, digest_size=16, key=str(tuple(image.shape)).encode()).digest()
        if key not in self._features:
            self._features[key] = clip.encode_image(image[None])[0]
        return self._features[key]


def _features_of(clip: ClipEncoder, images: torch.Tensor) -> dict[bytes, torch.Tensor]:
    """What is known by this tower, for images of this shape; weights, precision and preprocessing all show in the probe."""
    probe = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    feature = clip.encode_image(probe[None].to(images.dtype)).contiguous()
    tower = f"{feature.dtype}".encode() + feature.view(torch.uint8).numpy().tobytes()
    features = _FEATURES.pop(tower, {})
    _FEATURES[tower] = features
    while len(_FEATURES) > MAX_TOWERS:
        _FEATURES.pop(next(iter(_FEATURES)))
    return features
