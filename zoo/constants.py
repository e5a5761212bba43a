"""Constants that several parts share: the ignored label, and channel statistics that image encoders normalise by."""

IGNORE_INDEX = -100
"""Label of a position without a target, as torch's cross-entropy has it by default."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel mean and standard deviation of ImageNet's images in [0, 1], which timm's and SAM's encoders normalise by."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Those of OpenAI's CLIP and most CLIP models after it."""
