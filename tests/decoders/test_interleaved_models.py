"""The small interleaved model: its vocabulary, and the positions of codes in their image."""

import torch

from zoo.decoders.interleaved_generation import GenerationSettings, generate
from zoo.decoders.interleaved_models import vocabulary_map


def test_a_vocabulary_map_spells_codes_as_chameleon_does():
    token_ids = vocabulary_map(8192, sep_token_id=8710)
    assert token_ids["IMGIMGAZ"] == 4 and token_ids["IMGIMGIBJBZ"] == 4 + 8191
    assert (token_ids["<eoss>"], token_ids["<racm3:break>"]) == (8196, 8197)
    assert (token_ids["<reserved08706>"], token_ids["<image>"]) == (8710, 8711)
    assert len(set(token_ids.values())) == len(token_ids)


@torch.no_grad()
def test_positions_in_an_image_are_the_same_with_and_without_a_cache(small_decoder):
    """Greedy generation equals passes over the full sequence, and a batch equals its samples."""
    vocabulary, codes = small_decoder.vocabulary, small_decoder.vocabulary.image_ids[3:19].tolist()
    small_decoder.places.weight.data.mul_(20)
    image = [vocabulary.boi_token_id, *codes, vocabulary.eoi_token_id]
    prompts = [torch.tensor([0, *image, vocabulary.sep_token_id]), torch.tensor([0, 60, *image, 61, image[0]])]
    for guidance in ("none", "normal"):
        settings = GenerationSettings(max_new_tokens=24, max_images=1, greedy=True, guidance=guidance)
        batch = generate(small_decoder, prompts, settings)
        singles = [generate(small_decoder, [prompt], settings)[0] for prompt in prompts]
        assert [ids.tolist() for ids in batch] == [ids.tolist() for ids in singles]
    settings = GenerationSettings(max_new_tokens=16, max_images=1, greedy=True)
    sequence = generate(small_decoder, prompts[1:], settings)[0]
    for position in range(len(prompts[1]), len(sequence)):
        logits = small_decoder(sequence[None, :position])[0, -1][vocabulary.image_ids]
        assert int(vocabulary.image_ids[logits.argmax()]) == int(sequence[position])
