"""Few shots of each class: independent of the other classes, or as CoOp's framework samples them."""

import random
from collections import Counter
from dataclasses import dataclass

from zoo.data.classification.sampling import sample_as_dassl, sample_independently


@dataclass(frozen=True)
class Item:
    name: str
    label: int


def items(*counts: int) -> list[Item]:
    """So many items of each class, the classes in turn, the last class first."""
    pool = [Item(f"{label}-{index}", label) for label, count in enumerate(counts) for index in range(count)]
    return sorted(pool, key=lambda item: (item.name.split("-")[1], -item.label))


def test_shots_of_a_class_do_not_depend_on_the_other_classes_and_contain_fewer_shots():
    both, alone = sample_independently(items(9, 9), 4, 2, 7, 0), sample_independently(items(9, 0), 4, 1, 7, 0)
    assert both[:4] == alone and Counter(item.label for item in both) == {0: 4, 1: 4}
    assert set(sample_independently(items(9, 9), 2, 2, 7, 0)) < set(both)
    assert sample_independently(items(9, 9), 4, 2, 8, 0) != both != sample_independently(items(9, 9), 4, 2, 7, 1)
    assert len(sample_independently(items(3, 9), 4, 2, 7, 0)) == 7


def test_dassls_shots_are_those_of_pythons_random_module_after_seeding():
    train, val = items(9, 6, 3), items(5, 5, 5)
    random.seed(3)  # as the authors' code does before it reads the split
    expected = []
    for split, count in ((train, 4), (val, 2)):
        labels = list(dict.fromkeys(item.label for item in split))  # in the order of the file
        for label in labels:
            pool = [item for item in split if item.label == label]
            expected += random.sample(pool, count) if len(pool) >= count else pool
    assert labels == [2, 1, 0]
    sampled = sample_as_dassl([train, val], [4, 2], 3)
    assert sampled[0] + sampled[1] == expected
    assert Counter(item.label for item in sampled[0]) == {0: 4, 1: 4, 2: 3}
    assert sample_as_dassl([train, val], [4, 2], 4) != sampled
