"""The baselines of reasoning segmentation, at their smallest."""

import pytest
import torch
import yaml

from zoo.config.building import build
from zoo.config.recipe import read_recipe
from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.datasets.masks import ChestDrrMasks
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.labels import LABELS, NAMES
from zoo.data.chest_drr.text.questions import ALL_FINDINGS, CONTRALATERAL
from zoo.data.io.masks import decode_masks
from zoo.engine.assembly import load_matching_weights
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import read_log, train
from zoo.methods.grounding_baselines import FindingUnet

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)
RECIPE = """
data: {{name: chest_drr_medseg_qa, size: 32, image_size: 64, batch_size: 8, render_workers: 2}}
method: {method}
optimizer: {{name: adamw, lr: 2.0e-3}}
trainer: {{max_epochs: 3, enable_progress_bar: false, accelerator: cpu}}
"""
METHODS = {
    "oracle": "{name: named_grounding, width: 16, grounding: {name: unet_grounding, image_size: 64, channels: [16, 16, 8, 8, 8]}}",
    "unet": "{name: finding_unet, image_size: 64}",
}


@pytest.mark.parametrize("name", list(METHODS))
def test_it_learns_and_is_measured_on_questions_with_targets(tmp_path, name):
    (tmp_path / "r.yaml").write_text(RECIPE.format(method=METHODS[name]))
    run = train(read_recipe(tmp_path / "r.yaml"), tmp_path / "run")
    losses = read_log(run)["train_loss"].dropna().tolist()
    assert losses[-1] < 0.8 * losses[0]
    subject = open_evaluation(run)
    measured = evaluate(subject, progress=False)
    assert {"giou_explicit", "giou_implicit", "giou_several", "ciou", "dice", "giou_nodule"} <= set(measured)
    assert 0 <= measured["ciou"].value <= measured["dice"].high + 1
    image = subject.data.split("test")[0]["image"]
    prediction = subject.method.predict_image(image)
    assert len(prediction.to_dict()["share of the image"]) == 13
    assert prediction.save(tmp_path, "o") == tmp_path / "o.png"
    assert (tmp_path / "o.png").stat().st_size > 1000


def test_every_target_has_a_name():
    data = ChestDrrMedSegQa(render=RENDER)
    targets = {t for c in data.conversations("train") for turn in c.turns for t in turn.targets}
    assert targets and all(target.name in NAMES for target in targets)


def test_masks_of_what_is_there_and_what_is_not_and_questions_in_the_test():
    data, questions = (kind(render=RENDER) for kind in (ChestDrrMasks, ChestDrrMedSegQa))
    (turn,) = data.conversations("train")[5].turns
    names, record = [target.name for target in turn.targets], questions.series("train").record(5)
    present = {" ".join(filter(None, (f["side"], f["kind"]))) for f in record["findings"]}
    assert present and len(names) == len(set(names)) == len(present) + 4 + 4 and set(names) < set(NAMES)
    assert present < set(names) and len(set(names) & set(NAMES[: len(LABELS)])) == len(present) + 4
    masks = data.open_split("train")[5]["masks"]
    for name, mask in zip(names, masks, strict=True):
        own = [f["mask"] for f in record["findings"] if name == " ".join(filter(None, (f["side"], f["kind"])))]
        own += [record["regions"][name]["mask"]] if name in record["regions"] else []
        assert torch.equal(mask, decode_masks(own, (64, 64)).amax(dim=0) if own else torch.zeros(64, 64))
    assert any(not mask.any() for mask in masks)
    asked, tested = questions.conversations("test"), data.conversations("test")
    left_out = [one for one in asked if one not in tested]
    assert len(tested) == len(questions.series("test")) and [one for one in asked if one in tested] == tested
    assert {turn.kind for one in left_out for turn in one.turns} == {CONTRALATERAL, ALL_FINDINGS}


def test_a_mask_head_starts_from_a_unet():
    unet = FindingUnet(image_size=64, channels=[16, 16, 8, 8, 8])
    oracle = build("method", yaml.safe_load(METHODS["oracle"]))
    left = load_matching_weights(oracle, unet.trained_state(), "unet")
    assert left == ["grounding.segmentation_head.0.bias", "grounding.segmentation_head.0.weight"]
    for part in ("encoder", "decoder"):
        own, taken = getattr(oracle.grounding, part).state_dict(), getattr(unet.unet, part).state_dict()
        assert own.keys() == taken.keys() and all(torch.equal(own[name], taken[name]) for name in own)


def test_a_mask_is_that_of_its_image_and_name():
    torch.manual_seed(0)
    method = FindingUnet(image_size=64).eval()
    images = [torch.rand(1, 64, 64), torch.rand(1, 64, 64)]
    with torch.no_grad():
        both = method.draw(images, torch.tensor([3, 3, 5]), torch.tensor([0, 1, 1]))
        alone = method.draw(images[1:], torch.tensor([5]), torch.tensor([0]))
    torch.testing.assert_close(both[2:], alone, atol=1e-4, rtol=1e-3)
    assert not torch.equal(both[0], both[1])
