"""Your own landmark network: registered, exported with its report, and run by Aligner."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

from facelm_export import export
from facelm_models import ModelInfo, register
from facelm_models.weights import save
from facelm_sdk import Aligner

POINTS = 68  # of the markup, here ibug68


class MyNet(nn.Sequential):
    """float (n, 3, 96, 96) -> (n, 68, 2): points as fractions of the crop, 0 the left or upper edge, 1 the other."""

    def __init__(self, config: object = None) -> None:
        convs = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((3, 16), (16, 32), (32, 64), (64, 64))]
        super().__init__(*convs, nn.Flatten(), nn.Linear(64 * 6 * 6, POINTS * 2), nn.Unflatten(1, (POINTS, 2)))


# mean and std, of 0..255 values, go into the graph; heatmaps instead of points: decoding="argmax" and the like.
pixels = {"channels": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3}
register(ModelInfo(name="my_net", task="landmarks", build=MyNet, config=None, input_size=96, **pixels))

if __name__ == "__main__":
    save("my_net.safetensors", MyNet(), {"data": "none: not trained yet", "licence": "yours"})  # after your training
    done = export("my_net", weights="my_net.safetensors", markup="ibug68")
    print(done.report_path.with_suffix(".md").read_text())
    picture = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("pictures") / "collins.jpg"
    for face in Aligner(landmarks=done.path)(picture):
        print(face, face.landmarks.shape)
