"""The baselines of reasoning segmentation, at their smallest."""

import pytest
import torch
import yaml

from zoo.config.building import build
from zoo.config.recipe import read_recipe
from zoo.data.conversations.records import Target, Turn
from zoo.data.vocabulary import FindingVocabulary
from zoo.engine.assembly import load_matching_weights
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import read_log, train
from zoo.methods.grounding_baselines import FindingUnet

RECIPE = """
data: {{name: chest_drr_medseg_qa, size: 32, image_size: 64, batch_size: 8, render_workers: 2}}
method: {method}
optimizer: {{name: adamw, lr: 2.0e-3}}
trainer: {{max_epochs: 3, enable_progress_bar: false, accelerator: cpu}}
"""
ORACLE = (
    "{name: named_grounding, width: 16, grounding: {name: unet_grounding, image_size: 64, channels: [16, 16, 8, 8, 8]}}"
)
UNET = "{name: finding_unet, image_size: 64}"
FRACTURES = FindingVocabulary((("rib fracture", "left"), ("rib fracture", "right")), regions=("sternum",))


def small_unet(vocabulary: FindingVocabulary = FRACTURES) -> FindingUnet:
    torch.manual_seed(0)
    names = {"label_names": list(vocabulary.label_names), "region_names": list(vocabulary.regions)}
    return FindingUnet(**names, image_size=64, channels=[16, 16, 8, 8, 8])


@pytest.mark.parametrize("method", [ORACLE, UNET], ids=["oracle", "unet"])
def test_it_learns_and_is_evaluated_on_questions_with_targets(tmp_path, method):
    (tmp_path / "r.yaml").write_text(RECIPE.format(method=method))
    run = train(read_recipe(tmp_path / "r.yaml"), tmp_path / "run")
    losses = read_log(run)["train_loss"].dropna().tolist()
    assert losses[-1] < 0.8 * losses[0]
    evaluation = open_evaluation(run)
    measured = evaluate(evaluation, progress=False)
    assert {"giou_explicit", "giou_implicit", "giou_several", "ciou", "dice", "giou_nodule"} <= set(measured)
    assert 0 <= measured["ciou"].value <= measured["dice"].high + 1
    image = evaluation.data.split("test")[0]["image"]
    prediction = evaluation.method.predict_image(image)
    assert len(prediction.to_dict()["share of the image"]) == 13
    assert prediction.save(tmp_path, "o") == tmp_path / "o.png"
    assert (tmp_path / "o.png").stat().st_size > 1000


def test_a_run_keeps_the_names_of_its_targets(tmp_path):
    """So that it predicts without its data."""
    (tmp_path / "r.yaml").write_text(RECIPE.format(method=UNET).replace("max_epochs: 3", "max_steps: 1"))
    recipe = read_recipe(train(read_recipe(tmp_path / "r.yaml"), tmp_path / "run") / "recipe.yaml")
    assert len(recipe["method"]["label_names"]) == 13 and len(recipe["method"]["region_names"]) == 34
    assert recipe["method"]["label_names"][:2] == ["left pleural effusion", "right pleural effusion"]


def test_targets_of_another_dataset_have_their_own_channels_and_metrics():
    method = small_unet()
    method.use_metadata({"vocabulary": FRACTURES})
    turns = [
        Turn("", "", (({}),), (Target("rib fracture", "right"),), "explicit"),
        Turn("", "", (({}),), (Target("sternum"),), "explicit"),
    ]
    masks = torch.zeros(2, 64, 64)
    masks[:, 10:30, 10:30] = 1
    batch = {"image": [torch.rand(1, 64, 64)], "turns": [turns], "masks": [masks]}
    assert torch.isfinite(method.losses(batch)["loss"])
    outputs = method.eval().evaluation_step(batch)
    assert outputs["target"].tolist() == [0, 1]
    assert {"giou_rib_fracture", "giou_region"} <= set(method.metrics()) and "giou_nodule" not in method.metrics()
    (prediction,) = method.predict_images([torch.rand(1, 64, 64)])
    assert prediction.names == ("left rib fracture", "right rib fracture") and len(prediction.masks) == 2
    unknown = Turn("", "", (({}),), (Target("nodule"),), "explicit")
    with pytest.raises(ValueError, match="unknown targets: nodule; known are left rib fracture"):
        method.losses({**batch, "turns": [[unknown]]})


def test_a_dataset_without_names_of_targets_is_refused():
    with pytest.raises(ValueError, match="FindingUnet needs names of targets, and the dataset has none"):
        FindingUnet(image_size=64)


def test_a_mask_head_starts_from_a_unet():
    unet = small_unet()
    names = {"label_names": list(FRACTURES.label_names), "region_names": list(FRACTURES.regions)}
    oracle = build("method", {**yaml.safe_load(ORACLE), **names})
    unused = load_matching_weights(oracle, unet.trained_state(), "unet")
    assert unused == ["grounding.segmentation_head.0.bias", "grounding.segmentation_head.0.weight"]
    for part in ("encoder", "decoder"):
        state_dict, expected = getattr(oracle.grounding, part).state_dict(), getattr(unet.unet, part).state_dict()
        assert state_dict.keys() == expected.keys()
        assert all(torch.equal(state_dict[name], expected[name]) for name in state_dict)


def test_a_mask_is_that_of_its_image_and_name():
    method = small_unet().eval()
    images = [torch.rand(1, 64, 64), torch.rand(1, 64, 64)]
    with torch.no_grad():
        batch = method.decode_masks(images, torch.tensor([1, 1, 2]), torch.tensor([0, 1, 1]))
        single = method.decode_masks(images[1:], torch.tensor([2]), torch.tensor([0]))
    torch.testing.assert_close(batch[2:], single, atol=1e-4, rtol=1e-3)
    assert not torch.equal(batch[0], batch[1])
