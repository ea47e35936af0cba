"""What can be listed, and an honest account of the machine."""

from __future__ import annotations

import socket

import pytest

from netzip_mlflow import techniques
from netzip_mlflow.errors import InputError
from netzip_mlflow.stages import catalogue


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("techniques", {"ptq", "dynamic_int8", "half", "prune_l1", "prune_random", "finetune"}),
        ("models", {"resnet8", "lenet5", "resnet20_cifar", "resnet110_cifar"}),
        ("data", {"digits", "npz", "imagefolder", "CIFAR10", "GTSRB"}),
        ("metrics", {"accuracy/top1", "speed/latency_ms", "size/disk_bytes", "score/ocs"}),
    ],
)
def test_each_list_has_names_and_what_they_mean(what, some):
    found = catalogue.listing(what)
    assert some <= set(found)
    assert all(len(text) > 5 for text in found.values())


def test_the_list_of_techniques_is_the_table():
    assert set(techniques.TABLE) <= set(catalogue.listing("techniques"))


def test_no_such_list():
    with pytest.raises(InputError, match=r"'technique' is no list; .* mean 'techniques'\?"):
        catalogue.listing("technique")


class TestExamine:
    def test_versions_cores_and_sources_of_energy(self, tmp_path):
        import onnxruntime

        facts = catalogue.examine(f"sqlite:///{tmp_path}/mlflow.db")
        assert facts["onnxruntime"] == onnxruntime.__version__
        assert int(facts["cores"]) >= 1
        energy = {k: v for k, v in facts.items() if k.startswith("energy: ")}
        assert set(energy) == {"energy: rapl", "energy: nvml"}
        assert all(v.startswith(("yes: ", "no: ")) and len(v) > 6 for v in energy.values())

    def test_a_store_that_can_be_used_and_ones_that_cannot(self, tmp_path):
        usable = f"sqlite:///{tmp_path}/mlflow.db"
        assert catalogue.examine(usable)["tracking store"] == f"{usable} (usable)"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert "refused" in catalogue.examine(closed)["tracking store"]
        nowhere = f"sqlite:///{tmp_path}/no/folder/mlflow.db"
        assert "(usable)" not in catalogue.examine(nowhere)["tracking store"]
