"""``--from``: a checkpoint's conventions become the exported file's contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facelm_export import export, exporter
from facelm_models import create, official
from facelm_sdk.errors import InputError

from .conftest import disturbed


class Traced(Exception):
    """Raised in the place of tracing, with what would have been traced."""

    def __init__(self, fused, spec):
        super().__init__(spec.name)
        self.fused, self.spec = fused, spec


@pytest.fixture
def reached(monkeypatch):
    """What an export has come to when it begins to trace."""

    def trace(fused, spec, **options):
        raise Traced(fused, spec)

    monkeypatch.setattr(exporter, "to_onnx", trace)

    def run(*args, **options):
        with pytest.raises(Traced) as caught:
            export(*args, **options)
        return caught.value

    return run


def checkpoint(tmp_path, source, network):
    own = network.state_dict()
    state = {theirs: own[ours] for theirs, ours in official.get(source).keys(network).items()}
    path = tmp_path / f"{source}.pth"
    torch.save(state, path)
    return path


def test_hrnet(tmp_path, reached):
    path = checkpoint(tmp_path, "hrnet", create("hrnet18", num_landmarks=29))
    found = reached("hrnet18", weights=path, source="hrnet", markup="cofw29", out=tmp_path)
    crop = found.spec.crop
    assert (crop.kind, crop.side, crop.scale, crop.size) == ("box", "max", 1.25, 256)
    assert found.spec.has_scores and found.spec.num_landmarks == 29
    assert (found.fused.decoding, found.fused.offset) == ("argmax", 0.5)


def test_slpt_with_its_mean_face(tmp_path, reached, caplog):
    path = checkpoint(tmp_path, "slpt", create("slpt_hrnet18", num_landmarks=29))
    face = np.random.default_rng(0).uniform(0.2, 0.8, (29, 2)).astype(np.float32)
    files = [tmp_path / name for name in ("face.npy", "face.npz", "face.txt")]
    np.save(files[0], face)
    np.savez(files[1], init_face=face)
    np.savetxt(files[2], face)
    files.append(tmp_path / "init_29.npz")
    np.savez(files[3], init_face=256.0 * face)  # pixels, as SLPT's own
    for file in files:
        found = reached("slpt_hrnet18", weights=path, source="slpt", markup="cofw29", mean_face=file, out=tmp_path)
        np.testing.assert_allclose(found.fused.network.mean_shape.numpy(), face, rtol=1e-6)
        assert "stays as it was" not in caplog.text
    assert (found.spec.crop.side, found.spec.crop.scale, found.fused.offset) == ("max", 1.2, 0.0)
    middle = found.spec.crop.transform(box=(10, 20, 110, 140)).apply(np.array([[60.0, 80.0]]))
    np.testing.assert_allclose(middle, [[128, 128]])


def test_slpt_without_a_fitting_mean_face(tmp_path, reached):
    options = {"weights": checkpoint(tmp_path, "slpt", create("slpt_hrnet18", num_landmarks=29)), "markup": "cofw29"}
    options |= {"source": "slpt", "out": tmp_path}
    with pytest.raises(InputError, match="--mean-face FILE"):
        export("slpt_hrnet18", **options)
    file = tmp_path / "face.npy"
    np.save(file, np.zeros((68, 2)))
    with pytest.raises(InputError, match=r"not a mean face of shape \(29, 2\)"):
        export("slpt_hrnet18", mean_face=file, **options)
    np.save(file, np.full((29, 2), 128.0))
    with pytest.raises(InputError, match=r"fractions of the crop .* from an \.npz whose array is init_face"):
        export("slpt_hrnet18", mean_face=file, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.npy", "slpt.pth"]


def test_the_1mb_detector_has_its_own_priors(tmp_path, reached):
    options = official.get("retinaface_1mb").overrides
    path = checkpoint(tmp_path, "retinaface_1mb", disturbed("retinaface_mnet025", **options))
    one, other = (
        reached("retinaface_mnet025", weights=path, source=source, out=tmp_path).fused.network.config
        for source in ("retinaface_1mb", "retinaface")
    )
    assert (one.leaky, one.min_sizes[0]) == (0.0, (10, 20))
    assert (other.leaky, other.min_sizes[0]) == (0.1, (16, 32))


def test_what_does_not_go_together(tmp_path, reached):
    path = checkpoint(tmp_path, "retinaface", create("retinaface_mnet025"))
    with pytest.raises(InputError, match="checkpoints of fan fit fan2, fan4, not hrnet18"):
        export("hrnet18", weights=path, source="fan")
    with pytest.raises(InputError, match="'pfld' are known; sources: fan"):
        export("fan2", weights=path, source="pfld")
    with pytest.raises(InputError, match="give the checkpoint that comes from fan"):
        export("fan2", source="fan")
    with pytest.raises(InputError, match=r"(?s)do not fit FAN:.*missing: conv1\.weight.*shape of|missing: conv1"):
        export("fan2", weights=path, source="fan")
    with pytest.raises(InputError, match=r"not a \.safetensors file.*hrnet"):
        export("retinaface_mnet025", weights=path)
    with pytest.raises(
        InputError, match=r"lotr_m does not give \(n, L, h, w\) heatmaps, which decoding 'argmax' takes"
    ):
        export("lotr_m", random=True, decoding="argmax")
    with pytest.raises(InputError, match=r"'softmax'; decodings: coordinates, argmax.*register_decoder"):
        export("fan2", random=True, decoding="softmax")
