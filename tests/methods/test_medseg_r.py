"""Reasoning segmentation at its smallest: it learns, answers, and draws what teacher forcing draws."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.tiny_models import causal_lm, sam
from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.data.conversations.records import QuestionError
from zoo.data.io.masks import encode_mask
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.publishing import data_places, publish
from zoo.engine.training import read_log, train

RECIPE = """
data: {{name: medseg_files, train: {folder}/data.jsonl, val: {folder}/data.jsonl, test: {folder}/data.jsonl, batch_size: 4}}
method:
  name: medseg_r
  lora_rank: 4
  shared_levels: {shared}
  max_new_tokens: 40
  context:
    name: global_context
    vision:
      name: clip_vision
      clip: {{name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 2, text_width: 32, text_layers: 2, embedding: 32}}
    model: {{name: causal_lm, source: {folder}/lm}}
    merge: {merge}
  grounding: {grounding}
optimizer: {{name: adamw, lr: 1.0e-2}}
scheduler: {{name: constant, warmup_steps: 5}}
trainer: {{max_epochs: {epochs}, enable_progress_bar: false, accelerator: cpu}}
"""
HEADS = {
    "sam": "{{name: sam_grounding, source: {folder}/sam}}",
    "unet": "{{name: unet_grounding, image_size: 64, channels: [16, 16, 8, 8, 8]}}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight images with a bright block on one side or none; the question is the same, the answer says which."""
    root = tmp_path_factory.mktemp("medseg")
    causal_lm(root / "lm")
    sam(root / "sam")
    lines = []
    for index in range(8):
        side = ("left", "right", "")[index % 3]
        picture, mask = np.full((32, 32), 40, np.uint8), np.zeros((32, 32), bool)
        if side:
            mask[8:24, (2 if side == "left" else 18) :][:, :12] = True
            picture[mask] = 230
        Image.fromarray(picture).save(root / f"{index}.png")
        answer = f"On the {side} [SEG]." if side else "None."
        lines.append(
            {
                "image": f"{index}.png",
                "masks": [encode_mask(mask)] if side else [],
                "kinds": ["explicit" if side else "absent"],
                "conversations": [{"role": "user", "content": "Segment."}, {"role": "assistant", "content": answer}],
            }
        )
    (root / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def recipe_of(folder, head: str, epochs: int):
    path = folder / f"{head}.yaml"
    grounding = HEADS[head].format(folder=folder)
    shared, merge = (2, 2) if head == "unet" else (0, 1)
    path.write_text(RECIPE.format(folder=folder, grounding=grounding, shared=shared, merge=merge, epochs=epochs))
    return read_recipe(path)


@pytest.mark.parametrize("head", list(HEADS))
def test_it_learns(folder, tmp_path, head):
    torch.manual_seed(0)
    run = train(recipe_of(folder, head, 12), tmp_path / "run")
    log = read_log(run)
    first, last = (
        {part: float(log[f"train_{part}"].dropna().iloc[place]) for part in ("text", "bce")} for place in (0, -1)
    )
    assert last["text"] < 0.985 * first["text"] and last["bce"] < 0.75 * first["bce"]


def test_trained_weights_hold_all_that_was_learnt(folder):
    """Running means of batch norms included."""
    from zoo.engine.assembly import assemble

    recipe, methods = recipe_of(folder, "unet", 1), []
    for _ in range(2):
        torch.manual_seed(0)
        assembly = assemble(recipe)
        methods.append(assembly.method.train())
    batch = assembly.data.collate([assembly.data.split("train")[index] for index in range(4)])
    trained = [parameter for parameter in methods[0].parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        methods[0].losses(batch)["loss"].backward()
        optimizer.step()
    methods[1].load_trained_state(methods[0].trained_state())
    with torch.no_grad():
        one, other = (method.eval().losses(batch) for method in methods)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_text_loss_is_the_cross_entropy_over_all_labels(folder):
    from zoo.engine.assembly import assemble

    torch.manual_seed(0)
    assembly = assemble(recipe_of(folder, "unet", 1))
    method, data = assembly.method.eval(), assembly.data
    batch = data.collate([data.split("train")[index] for index in (0, 2)])
    with torch.no_grad():
        image_embeds = method.encode_images(batch["image"], method.encode_mask_features(batch["image"]))
        tokens = method.tokenize(batch["turns"], image_embeds)
        logits = method.context.logits(method.context.hidden_states(tokens["input_ids"], image_embeds))
        expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens["labels"][:, 1:].flatten())
        torch.testing.assert_close(method.losses(batch)["text"], expected)


@pytest.mark.parametrize("head", list(HEADS))
def test_a_batch_without_a_target_trains_the_answers(folder, head):
    from zoo.engine.assembly import assemble

    assembly = assemble(recipe_of(folder, head, 1))
    sample = assembly.data.split("train")[2]
    assert not len(sample["masks"])
    losses = assembly.method.losses(assembly.data.collate([sample]))
    losses["loss"].backward()
    assert losses["text"] > 0 and losses["bce"] == losses["dice"] == 0


def test_shared_tokens_let_answers_train_the_encoder_of_the_mask_head(folder):
    from zoo.engine.assembly import assemble

    method = assemble(recipe_of(folder, "unet", 1)).method
    method.losses(method.example_batch())["text"].backward()
    assert all(parameter.grad.any() for parameter in list(method.grounding.encoder.parameters())[:2])


def test_masks_of_generation_are_those_of_teacher_forcing(folder, tmp_path):
    """The same answer once generated token by token, and once as labels."""
    from zoo.engine.assembly import assemble

    torch.manual_seed(0)
    assembly = assemble(recipe_of(folder, "sam", 1))
    method, data = assembly.method.eval(), assembly.data
    sample = data.split("train")[0]
    context = method.context
    answer = context.tokenizer.encode(sample["turns"][0].answer, add_special_tokens=False)
    script = iter([*answer, context.eos_token_id])
    context.next_token_ids = lambda state: torch.tensor([next(script)])
    generated, masks = method.generate([sample["image"]], [[("Segment.", None)]])[0]
    assert generated.text == "On the left [SEG]." and masks.shape == (1, 32, 32)
    with torch.no_grad():
        features = method.encode_mask_features([sample["image"]])
        image_embeds = method.encode_images([sample["image"]], features)
        _, mask_logits = method(method.tokenize([sample["turns"]], image_embeds), image_embeds, features)
    torch.testing.assert_close((method.grounding.fitting.restore(mask_logits, (32, 32)) > 0).float(), masks)
    several = replace(sample["turns"][0], question="And?")
    tokens = method.tokenize([(sample["turns"][0], several)], image_embeds)
    assert tokens["seg_batch_idx"].tolist() == [0, 0] and tokens["seg_token_idx"][0] < tokens["seg_token_idx"][1]


def test_only_the_new_row_of_the_vocabulary_trains(folder, tmp_path):
    from zoo.engine.assembly import assemble

    method = assemble(recipe_of(folder, "unet", 1)).method
    table = method.context.lm.get_input_embeddings()
    before = table(torch.arange(200)).detach().clone()
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    method.losses(method.example_batch())["loss"].backward()
    optimizer.step()
    assert torch.equal(table(torch.arange(200)), before)
    assert sum(p.numel() for p in trained if p.shape[-1:] == (32,) and p.ndim == 2 and len(p) > 200) == 0


def test_the_second_epoch_skips_the_image_encoders(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    from zoo.engine.assembly import assemble

    torch.manual_seed(0)
    assembly = assemble(recipe_of(folder, "sam", 1))
    method, data = assembly.method, assembly.data
    method.open_caches()
    encoded = {"context": 0, "grounding": 0}

    def count_images(part: str) -> None:
        encode = getattr(method, part).encode_images

        def counted(images):
            encoded[part] += len(images)
            return encode(images)

        monkeypatch.setattr(getattr(method, part), "encode_images", counted)

    count_images("context")
    count_images("grounding")
    batch = data.collate([data.split("train")[index] for index in range(4)])
    method.eval()
    with torch.no_grad():
        first, second = method.losses(batch), method.losses(batch)
        with torch.autocast("cpu", torch.bfloat16):  # on embeddings that are kept in float16
            rounded = method.losses(batch)
    assert encoded == {"context": 4, "grounding": 4}, "once, in the first pass"
    for name in first:
        torch.testing.assert_close(first[name], second[name])
        torch.testing.assert_close(first[name], rounded[name].float(), rtol=0.05, atol=0.02)


def test_a_run_is_measured_and_asked(folder, tmp_path):
    torch.manual_seed(0)
    path = folder / "asked.yaml"
    recipe_of(folder, "unet", 1)
    path.write_text((folder / "unet.yaml").read_text())
    from zoo.engine.assembly import assemble
    from zoo.engine.evaluation import Evaluation

    assembly = assemble(read_recipe(path))
    subject = Evaluation(assembly.method.eval(), assembly.recipe, assembly.data)
    measured = evaluate(subject, progress=False)
    assert {"giou", "giou_explicit", "absent_recognised", "ciou", "dice", "missing_seg"} <= set(measured)
    assert measured["giou"].n == 8
    prediction = subject.method.predict_image(torch.rand(1, 40, 40), "What is it?")
    assert prediction.question == "What is it?" and isinstance(prediction.to_dict()["masks"], list)
    for question, message in (("[SEG]", "stands for a mask"), ("x" * 10_000, "10000 characters"), ("", "empty")):
        with pytest.raises(QuestionError, match=message):
            subject.method.predict_image(torch.rand(1, 40, 40), question)


def test_a_card_is_asked_at_the_command_line(folder, tmp_path, monkeypatch):
    """predict --ask, --chat and --dicom-seg on a published card, with a DICOM image."""
    import highdicom
    import pydicom
    from pydicom.data import get_testdata_file

    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    torch.manual_seed(0)
    run = train(recipe_of(folder, "unet", 1), tmp_path / "run")
    weights = load_file(run / "model.safetensors")
    for name, bias in (("tiny-medseg", 10.0), ("tiny-empty", -1000.0)):  # of the mask's logits
        weights["grounding.kernel.bias"][-1] = bias
        save_file(weights, run / "model.safetensors")
        publish(run, name, folder=tmp_path / "cards")
    places = [argument for place in data_places(run) for argument in ("--set", place)]
    answer = "There is fluid [SEG]."
    monkeypatch.setattr("zoo.language.global_context.GlobalContext.next_token_ids", scripted(answer))
    image = tmp_path / "ct.dcm"
    image.write_bytes(Path(get_testdata_file("CT_small.dcm")).read_bytes())
    call = CliRunner().invoke
    done = call(
        app,
        [
            "predict",
            "tiny-medseg",
            str(image),
            "--ask",
            "Where?",
            "--out",
            str(tmp_path / "o"),
            "--dicom-seg",
            "--json",
            *places,
        ],
    )
    assert done.exit_code == 0, done.output
    prediction = json.loads(done.stdout)[str(image)]
    assert prediction["answer"] == answer and len(prediction["masks"]) == 1
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {"ct.html", "ct.json", "ct-overlay.png", "ct-mask-1.png", "ct-seg.dcm", "predictions.jsonl"}
    segmentation = highdicom.seg.segread(tmp_path / "o" / "ct-seg.dcm")
    source = pydicom.dcmread(image)
    mask = np.asarray(Image.open(tmp_path / "o" / "ct-mask-1.png")) > 0
    stored = segmentation.get_pixels_by_source_instance([source.SOPInstanceUID])[0, :, :, 0] > 0
    assert np.array_equal(stored, mask) and segmentation.ReferencedSeriesSequence
    assert [segment.SegmentLabel for segment in segmentation.SegmentSequence] == ["1: There is fluid"]
    page = (tmp_path / "o" / "ct.html").read_text()
    assert "Where?" in page and "mask 1: There is fluid<" in page
    asked = ["--ask", "Where?", "--out", str(tmp_path / "e"), "--dicom-seg", "--json", *places]
    done = call(app, ["predict", "tiny-empty", str(image), *asked])
    assert done.exit_code == 0, done.output
    prediction = json.loads(done.stdout)[str(image)]
    assert (
        prediction["areas"] == [0] and prediction["dicom_seg"] is None and not (tmp_path / "e" / "ct-seg.dcm").exists()
    )
    done = call(
        app,
        ["predict", "tiny-medseg", str(image), "--chat", "--out", str(tmp_path / "c"), *places],
        input="Where?\n[SEG]\nAnd?\n\n",
    )
    assert (
        done.exit_code == 0
        and done.output.count("There is fluid") == 2
        and "stands for a mask" in done.output + done.stderr
    )
    page = (tmp_path / "c" / "ct.html").read_text()
    assert page.index("Where?") < page.index("And?")
    done = call(
        app, ["predict", "tiny-medseg", str(folder / "0.png"), "--out", str(tmp_path / "p"), "--dicom-seg", *places]
    )
    assert done.exit_code == 1 and "is not a DICOM file" in done.stderr


def scripted(answer: str):
    """A language model that generates one text, token by token, for every question."""
    position = itertools.count()

    def next_token_ids(self, hidden_states):
        ids = [*self.tokenizer.encode(answer, add_special_tokens=False), self.eos_token_id]
        return torch.tensor([ids[next(position) % len(ids)]])

    return next_token_ids


def test_data_without_conversations_are_refused(folder, striped_folder):
    from zoo.data.classification.image_table import ImageFolder
    from zoo.engine.assembly import assemble

    method = assemble(recipe_of(folder, "unet", 1)).method
    with pytest.raises(ValueError, match="has no conversations"):
        Trainer(accelerator="cpu", logger=False).fit(method, ImageFolder(str(striped_folder)))


def test_unfinished_runs_say_so(folder, tmp_path):
    with pytest.raises(Exception, match="is neither a run folder nor a card"):
        open_evaluation(tmp_path / "nothing")


REJECTING = ", reject_token: true, presence_weight: 1.0"
LEFT, RIGHT = "Left: the left block [SEG].", "Right [REJ]: no."


@pytest.fixture(scope="module")
def rejecting(folder):
    """The same images; every answer takes both sides, and the third image's last answer is wrong."""
    lines = []
    for line in (folder / "data.jsonl").read_text().splitlines():
        record = json.loads(line)
        answer = f"{LEFT} {RIGHT}" if record["masks"] else "None."
        record["conversations"] = [*messages("Both.", answer)]
        if not record["masks"]:
            record["conversations"] += [*messages("Left.", "Left: the left block [SEG].", wrong=True)]
            record["kinds"] *= 2
        lines.append(json.dumps(record))
    (folder / "rejecting.jsonl").write_text("\n".join(lines))
    return folder


def messages(question: str, answer: str, **more: bool):
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}


def rejecting_recipe(folder, name: str = "rejecting", options: str = REJECTING, epochs: int = 1):
    recipe_of(folder, "unet", epochs)
    text = (folder / "unet.yaml").read_text().replace("data.jsonl", "rejecting.jsonl")
    path = folder / f"{name}.yaml"
    path.write_text(
        text.replace("  lora_rank: 4\n", f"  lora_rank: 4\n  {options.strip(', ').replace(', ', chr(10) + '  ')}\n")
    )
    return read_recipe(path)


def rejecting_batch(assembly, *indices: int):
    return assembly.data.collate([assembly.data.split("train")[index] for index in indices])


def test_rejecting_tokens_and_wrong_answers_are_where_they_were_written(rejecting):
    from zoo.engine.assembly import assemble

    torch.manual_seed(0)
    assembly = assemble(rejecting_recipe(rejecting))
    method, batch = assembly.method, rejecting_batch(assembly, 0, 2)
    context = method.context
    embeds = method.encode_images(batch["image"], method.encode_mask_features(batch["image"]))
    tokens = method.tokenize(batch["turns"], embeds)
    ids, labels = tokens["input_ids"], tokens["labels"]
    assert (ids == context.rej_token_id).sum(dim=1).tolist() == [1, 1], "one was written, one was added to 'None.'"
    assert tokens["seg_batch_idx"].tolist() == [0, 1] and tokens["present"].tolist() == [1, 0]
    assert tokens["present_idx"].tolist() == [0]
    positions = tokens["seg_batch_idx"], tokens["seg_token_idx"]
    assert (ids[positions] == context.seg_token_id).all() and (labels[positions] != -100).tolist() == [True, False]
    learned = context.tokenizer.decode(labels[1][labels[1] != -100].tolist())
    assert "None [REJ]." in learned and "block" not in learned


def test_every_loss_has_its_gradient(rejecting):
    from zoo.engine.assembly import assemble

    torch.manual_seed(0)
    assembly = assemble(rejecting_recipe(rejecting))
    method, batch = assembly.method.train(), rejecting_batch(assembly, 0, 2)
    losses = method.losses(batch)
    assert set(losses) == {"loss", "text", "bce", "dice", "presence"} and all(value > 0 for value in losses.values())
    torch.testing.assert_close(
        losses["loss"], losses["text"] + 2 * losses["bce"] + 0.5 * losses["dice"] + losses["presence"]
    )
    losses["presence"].backward()
    lora = [value for name, value in method.named_parameters() if "lora_B" in name]
    assert all(value.grad.any() for value in method.presence.parameters()) and any(value.grad.any() for value in lora)
    assert all(value.grad is None for value in method.grounding.kernel.parameters())
    only_wrong = {**batch, "turns": [batch["turns"][1][1:]], "image": batch["image"][1:], "masks": [batch["masks"][1]]}
    only_wrong.pop("image_hash")
    alone = method.losses(only_wrong)
    assert alone["text"] == alone["bce"] == alone["dice"] == 0 and alone["presence"] > 0


def test_a_card_without_the_reject_token_is_a_base_for_one_with_it(rejecting):
    """The new row keeps its initial value; what the card has learned is loaded."""
    from zoo.engine.assembly import assemble, load_matching_weights

    torch.manual_seed(0)
    card, method = (
        assemble(recipe).method for recipe in (recipe_of(rejecting, "unet", 1), rejecting_recipe(rejecting))
    )
    weights = {name: value + 1 for name, value in card.trained_state().items() if value.is_floating_point()}
    (rows,) = [name for name in weights if "trainable_tokens_delta" in name]
    initial = method.state_dict()[rows].clone()
    assert (len(weights[rows]), len(initial)) == (1, 2)
    assert load_matching_weights(method, weights, "a card") == []
    loaded = method.state_dict()
    torch.testing.assert_close(loaded[rows], torch.cat([weights[rows], initial[1:]]), rtol=0, atol=0)
    assert all(torch.equal(loaded[name], value) for name, value in weights.items() if name != rows)


def test_it_learns_to_reject_and_to_judge(rejecting):
    """The losses fall on one batch, and after it the presence of true and wrong answers lies on either side of a half."""
    from zoo.engine.assembly import assemble

    torch.manual_seed(0)
    assembly = assemble(rejecting_recipe(rejecting))
    method, batch = assembly.method.train(), rejecting_batch(assembly, 0, 1, 2, 3)
    optimizer = torch.optim.AdamW([value for value in method.parameters() if value.requires_grad], lr=1e-2)
    history = []
    for _ in range(25):
        optimizer.zero_grad()
        losses = method.losses(batch)
        losses["loss"].backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    assert all(history[-1][name] < 0.5 * history[0][name] for name in ("presence", "bce"))
    assert history[-1]["text"] < 0.99 * history[0]["text"], "of a language model that is frozen but for LoRA"
    assert history[-1]["presence"] < 0.35, "a constant score reaches 0.56 for one wrong answer of four"


def test_without_the_options_nothing_is_rejected(rejecting):
    """Written ``[REJ]`` is left out, wrong answers teach nothing, and the weights are those of the published method."""
    from zoo.engine.assembly import assemble

    torch.manual_seed(0)
    plain = assemble(rejecting_recipe(rejecting, "plain", ""))
    method, batch = plain.method, rejecting_batch(plain, 0, 2)
    assert method.context.rej_token_id is None and not any("presence" in name for name in method.state_dict())
    embeds = method.encode_images(batch["image"], method.encode_mask_features(batch["image"]))
    tokens = method.tokenize(batch["turns"], embeds)
    assert "present" not in tokens and tokens["seg_batch_idx"].tolist() == [0]
    text = method.context.tokenizer.decode(tokens["input_ids"][0].tolist())
    assert "Right: no." in text and "[REJ]" not in text
    assert set(method.losses(batch)) == {"loss", "text", "bce", "dice"}


@pytest.mark.parametrize(("threshold", "vetoed"), [(0.0, False), (1.1, True)])
def test_generation_with_both_tokens(rejecting, monkeypatch, threshold, vetoed):
    from zoo.engine.assembly import assemble

    torch.manual_seed(0)
    method = assemble(rejecting_recipe(rejecting)).method.eval()
    method.presence_threshold = threshold
    torch.nn.init.constant_(method.grounding.kernel.bias, 1.0)
    with torch.no_grad():
        method.grounding.kernel.bias[-1] = 50.0  # no mask is empty
    monkeypatch.setattr("zoo.language.global_context.GlobalContext.next_token_ids", scripted(f"{LEFT} {RIGHT}"))
    prediction = method.predict_image(torch.rand(1, 40, 40), "Both.")
    if vetoed:
        assert prediction.answer == "Left: the left block (no sign of it). Right: no."
        assert prediction.masks == () and prediction.rejected == ("the left block", "Right")
    else:
        assert prediction.answer == "Left: the left block [SEG]. Right: no." and len(prediction.masks) == 1
        assert prediction.rejected == ("Right",) == tuple(prediction.to_dict()["rejected"])
        assert prediction.labels == ["the left block"]


def test_a_rejecting_card_is_published_and_verified(rejecting, tmp_path, monkeypatch):
    """Its metrics are those of its weights after a round trip through the files, and count ``[REJ]``."""
    from zoo.engine.verification import verify

    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    torch.manual_seed(0)
    options = REJECTING + ", lora_targets: all, presence_threshold: 0.3"
    run = train(rejecting_recipe(rejecting, "published", options, epochs=2), tmp_path / "run")
    log = read_log(run)
    assert log["train_presence"].dropna().gt(0).all() and log["val_presence"].notna().any()
    publish(run, "tiny-reject", folder=tmp_path / "cards")
    checks = verify("tiny-reject", data_places(run))
    assert checks and all(check.holds for check in checks)
    evaluation = open_evaluation("tiny-reject", data_places(run), device="cpu")
    assert evaluation.method.presence_threshold == 0.3 and evaluation.method.context.rej_token_id
    measured = evaluate(evaluation, progress=False)
    assert {"missing_rej", "superfluous_rej", "vetoed", "absent_recognised"} <= set(measured)
    assert measured["giou"].n == 8, "wrong answers are not asked for"
