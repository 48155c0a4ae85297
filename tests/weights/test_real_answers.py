"""Published files of D-FINE against what their authors' networks answer on one image of COCO.

../shared/reference/dfine_real_answers.json has the first three queries of 13 files (from the tests
of transformers, Apache-2.0). The files themselves are not on the machines of this project: a file
is tested where it is among the weights of the user, for example
`~/.cache/rtdetr/weights/dfine_n_coco.pth`, as `rtdetr predict model=dfine-n.pt` leaves it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from rtdetr_cli.backends.torch import build_network
from rtdetr_cli.weights.catalog import CATALOG
from rtdetr_cli.weights.published import weights_home
from rtdetr_cli.weights.reader import open_weights

ANSWERS = Path(__file__).resolve().parents[3] / "shared" / "reference" / "dfine_real_answers.json"
FOUND = json.loads(ANSWERS.read_text())["models"] if ANSWERS.is_file() else {}
WEIGHTS = weights_home()  # before tests set another one


def image_of_two_cats(folder):
    image = Image.open(folder / "media" / "000000039769.png").convert("RGB")
    resized = functional.resize(image, [640, 640], InterpolationMode.BILINEAR, antialias=True)
    return functional.pil_to_tensor(resized)[None] / 255


@pytest.mark.skipif(not FOUND, reason="the answers are not on this machine")
def test_the_catalog_has_the_files_whose_answers_are_known():
    published = {Path(entry.file).stem for entry in CATALOG.values() if entry.family == "D-FINE"}
    # the answers are of the file before the 25th epoch, the catalog has the later one
    assert FOUND.keys() - published == {"dfine_l_obj365"}


@pytest.mark.parametrize("name", FOUND)
def test_a_published_file_answers_as_its_authors_do(name, shared_data):
    path = WEIGHTS / f"{name}.pth"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    checkpoint = open_weights(path)
    network = build_network(checkpoint.config, len(checkpoint.names), checkpoint.weights).eval()
    with torch.inference_mode():
        output = network(image_of_two_cats(shared_data))
    expected = {key: torch.tensor(values) for key, values in FOUND[name].items()}
    logits, boxes = output.pred_logits[0, :3, :3], output.pred_boxes[0, :3, :3]
    torch.testing.assert_close(logits, expected["logits"], atol=1e-3, rtol=0)
    torch.testing.assert_close(boxes, expected["boxes"], atol=1e-4, rtol=0)
