"""The list of networks that needs no torch."""

from __future__ import annotations

import subprocess
import sys

from facelm_models import catalogue, default_weights, info, list_models, restore


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
