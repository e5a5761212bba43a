"""SAM's mask decoder driven by one token, on a tiny SAM of transformers' classes."""

import torch

from tests.tiny_models import sam
from zoo.constants import IMAGENET_MEAN, IMAGENET_STD
from zoo.heads.sam_grounding import SamGrounding

WIDTH = 24


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_sam_with_a_sparse_prompt_is_what_transformers_gives(tmp_path):
    head = SamGrounding(WIDTH, str(sam(tmp_path))).eval()
    embedding = head.encode_images(images())[0]
    prompt = torch.randn(2, 32)
    with torch.no_grad():
        ours = head.decode_masks([embedding], prompt)
        sparse = prompt[:, None, None]
        dense = head.sam.prompt_encoder(None, None, None, None)[1].expand(2, -1, -1, -1)
        positions = head.sam.get_image_wide_positional_embeddings().repeat(2, 1, 1, 1)
        masks, _ = head.sam.mask_decoder(embedding, positions, sparse, dense, multimask_output=True)
        single, _ = head.sam.mask_decoder(embedding, positions, sparse, dense, multimask_output=False)
    torch.testing.assert_close(ours, single[:, 0, 0])
    assert masks.shape[2] == 3


@torch.no_grad()
def test_image_features_are_those_of_transformers_encoder(tmp_path):
    head = SamGrounding(WIDTH, str(sam(tmp_path))).eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = head.sam.get_image_embeddings((images() - mean) / std)
    torch.testing.assert_close(head.encode_images(images())[0], expected)


def test_the_mask_decoder_trains_and_the_encoders_are_frozen(tmp_path):
    head = SamGrounding(WIDTH, str(sam(tmp_path)))
    trained = {name.split(".")[1] for name, value in head.named_parameters() if value.requires_grad and "sam" in name}
    assert trained == {"mask_decoder"} and all(value.requires_grad for value in head.projection.parameters())
