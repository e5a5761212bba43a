import numpy as np
import torch

from zoo.data.chest_drr.datasets.film_augmentation import augment_film


def film(size=64):
    image = torch.full((1, size, size), 0.5)
    image[:, 8:24, 8:24] = 1.0  # the patient's right side
    return image


def test_the_same_stream_gives_the_same_film_and_another_another():
    first = augment_film(film(), np.random.default_rng(0))
    assert torch.equal(first, augment_film(film(), np.random.default_rng(0)))
    assert not torch.equal(first, augment_film(film(), np.random.default_rng(1)))


def test_films_keep_shape_range_and_side():
    for seed in range(30):
        image = augment_film(film(), np.random.default_rng(seed))
        assert image.shape == (1, 64, 64) and image.dtype == torch.float32
        assert image.min() >= 0 and image.max() <= 1
        assert image[0, 12:20, 12:20].mean() > image[0, 12:20, -20:-12].mean(), "mirrored"


def test_noise_is_stronger_where_the_film_is_brighter():
    image = torch.full((1, 64, 64), 0.2)
    image[..., 32:] = 0.8
    spread = np.mean(
        [
            [
                float(half[:, 16:48, 8:24].std())
                for half in augment_film(image, np.random.default_rng(s)).chunk(2, dim=-1)
            ]
            for s in range(20)
        ],
        axis=0,
    )
    assert spread[1] > 1.3 * spread[0]
