"""The list of networks that needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from facelm_models import catalogue, default_weights, info, list_models, restore
from facelm_models.weights import WeightsError
from facelm_sdk.errors import InputError


def test_each_file_registers_the_variants_that_it_is_listed_with():
    assert [entry.name for entry in catalogue.entries()] == list_models()
    for module, names in catalogue.ARCHITECTURES.items():
        assert {info(name).build.__module__.rpartition(".")[2] for name in names} == {module}


def test_weights_are_told_with_their_points_size_and_score():
    found = {entry.name: entry for entry in catalogue.entries() if entry.accuracy is not None}
    assert found.keys() == {name for name in list_models() if default_weights(name)} >= {"lotr_m_128"}
    entry, network = found["lotr_m_128"], restore("lotr_m_128")
    assert (entry.points, entry.size) == (network.config.num_landmarks, network.config.size) == (68, 128)
    assert "nme" in str(entry.accuracy)


def test_the_list_imports_no_torch():
    code = "import sys; from facelm_models import catalogue; catalogue.entries(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_weights_wheel_the_line_to_type_is_told(monkeypatch, tmp_path, capsys):
    from facelm_export.build import build
    from facelm_export.cli import ExportOptions, _list

    monkeypatch.setattr(catalogue, "CHECKOUT", tmp_path / "nowhere")
    monkeypatch.setattr(catalogue, "WEIGHTS_PACKAGE", "facelm_no_weights")
    assert catalogue.weights_folder() is None and not any(entry.has_weights for entry in catalogue.entries())
    with pytest.raises(
        WeightsError, match="lotr_m_128: facelm-weights is not installed; type: pip install facelm-weights"
    ):
        restore("lotr_m_128")
    with pytest.raises(
        InputError, match=r"type: pip install facelm-weights; or give a weights file \(--weights FILE\)"
    ):
        build("lotr_m_128")
    _list(ExportOptions())
    listed = capsys.readouterr().out.splitlines()
    assert listed[-1].endswith("type: pip install facelm-weights") and "no weights" in listed[0]


def test_with_it_those_that_have_weights_are_told():
    with pytest.raises(
        WeightsError, match=r"no weights of slpt_resnet34 come with facelm-weights; those of .*lotr_m_128"
    ):
        restore("slpt_resnet34")
