"""RetinaFace as others export it, with all its priors as outputs, gives what the embedded detector does."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from facelm_models import restore
from facelm_sdk import Detector

PICTURES = Path(__file__).resolve().parents[2] / "examples" / "pictures"


class Raw(nn.Module):
    """Pixels less their mean to encoded boxes, scores and points, as Pytorch_Retinaface's test phase."""

    def __init__(self) -> None:
        super().__init__()
        self.network = restore("retinaface_mnet025").eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        boxes, logits, points = self.network(images)
        return boxes, logits.softmax(-1), points


def test_the_embedded_network_exported_as_others_do(tmp_path):
    path = tmp_path / "mobilenet0.25_Final.onnx"
    program = torch.onnx.export(Raw().eval(), (torch.zeros(1, 3, 320, 480),), dynamo=True, verbose=False)
    program.save(path)
    image = cv2.resize(cv2.imread(str(PICTURES / "group.jpg")), (480, 320), interpolation=cv2.INTER_AREA)
    ours, theirs = (Detector(model, det_size=480)(image) for model in ("retinaface_mnet025", path))
    assert len(ours) == len(theirs) >= 4
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-3)
    np.testing.assert_allclose(theirs.boxes, ours.boxes, atol=0.05)
    np.testing.assert_allclose(theirs.kps, ours.kps, atol=0.05)
