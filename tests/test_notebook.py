"""What a notebook does: data, method and a plain Lightning Trainer in ten lines, public names only, no recipe and no ``zoo train``."""

import os
import subprocess
import sys

import pytest

from zoo.paths import PACKAGE

NOTEBOOK = """
from lightning import Trainer
import zoo
data = zoo.ImageFolder({folder!r}, image_size=32, loader=zoo.LoaderSpec(batch_size=12))
clip = zoo.SmallClip(image_size=32, patch_size=8, width=64, layers=2, text_width=32, text_layers=2, embedding=32)
method = zoo.{method}
method.optimizer_recipe = {{"name": "adamw", "lr": 0.05}}
trainer = Trainer(max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(method, data)
print(trainer.test(method, data, verbose=False)[0]["test_accuracy"])
print(method.predict_image(zoo.read_image({image!r})).label)
"""
METHODS = {
    "linear probe": "ClipClassification(clip, zoo.LinearProbe, data.class_names)",
    "nearl_clip": "NearlClip(clip, data.class_names, adapter=zoo.OrthogonalCrossAttention)",
}


@pytest.mark.parametrize("name", METHODS)
def test_ten_lines_train_test_and_predict(striped_folder, tmp_path, name):
    image = next((striped_folder / "test" / "stripes").iterdir())
    code = NOTEBOOK.format(folder=str(striped_folder), image=str(image), method=METHODS[name])
    assert len(code.strip().splitlines()) == 10
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    accuracy, label = done.stdout.split("\n")[-3:-1]
    assert 0 <= float(accuracy) <= 1 and label in ("stripes", "dots", "blank film")
    if name == "linear probe":
        assert float(accuracy) > 0.8 and label == "stripes", "stripes and dots are told apart by a linear probe"
