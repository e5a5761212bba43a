"""Training an image tokenizer, at its smallest."""

import torch

from zoo.config.recipe import read_recipe
from zoo.decoders.vq_image import VQImage
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import read_log, train
from zoo.methods.vq_tokenizer import VQTokenizer, edges

RECIPE = """
data: {name: chest_drr, size: 32, image_size: 32, batch_size: 8, render_workers: 2}
method:
  name: vq_tokenizer
  tokenizer: {name: vq_image, resolution: 32, codes: 32, embed_dim: 16, base_channels: 32, channel_multiplier: [1, 1, 1], res_blocks: 1}
optimizer: {name: adamw, lr: 2.0e-3}
trainer: {max_epochs: 4, enable_progress_bar: false, accelerator: cpu}
"""


def test_a_tokenizer_learns_and_reports_its_codebook(tmp_path):
    (tmp_path / "vq.yaml").write_text(RECIPE)
    folder = train(read_recipe(tmp_path / "vq.yaml"), tmp_path / "run")
    losses = read_log(folder)["train_loss"].dropna().tolist()
    assert losses[-1] < 0.7 * losses[0]
    evaluation = open_evaluation(folder)
    measured = evaluate(evaluation, progress=False)
    assert measured["psnr"].value > 8 and 0 < measured["codebook_use"].value <= 1
    image = evaluation.data.split("test")[0]["image"]
    prediction = evaluation.method.predict_image(image)
    assert len(prediction.codes) == 64 and prediction.psnr > 5
    assert prediction.save(tmp_path, "r") == tmp_path / "r.png"
    assert (tmp_path / "r.png").stat().st_size > 3000


def test_psnr_and_codebook_use_by_hand():
    tokenizer = VQImage(resolution=16, codes=8, embed_dim=16, base_channels=32, channel_multiplier=[1, 1], res_blocks=1)
    outputs = {"squared_error": torch.tensor([0.01, 0.0001]), "codes": torch.tensor([[0, 1], [1, 1]])}
    metrics = VQTokenizer(tokenizer).metrics()
    assert abs(metrics["psnr"](outputs) - 30.0) < 1e-4
    assert metrics["codebook_use"](outputs) == 2 / 8


def test_edges_of_a_step():
    image = torch.zeros(1, 1, 4, 4)
    image[..., 2:] = 1
    across, down = edges(image)
    assert across.sum() == 4 and down.abs().sum() == 0
