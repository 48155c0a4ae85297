from __future__ import annotations

import io
import os
import random
import tracemalloc
import zipfile
from contextlib import suppress

import pytest
import torch

from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.archive import TorchArchive


def open_all(path):
    with TorchArchive(path) as archive:
        return archive.materialise(archive.tree)


def rewrite(source, target, change, **options):
    """Copy a zip archive entry by entry; `change(name, data)` may return other data."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.fixture
def tensors():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {
        "plain": base,
        "view": base[1:3, ::2],
        "transposed": base.T,
        "half": base.half() / 3,
        "brain": base.bfloat16(),
        "double": base.double() / 3,
        "integers": torch.tensor([2**40, -1]),
        "bytes": torch.get_rng_state()[:7],
        "mask": torch.tensor([True, False]),
        "scalar": torch.tensor(7.0),
        "empty": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(base.clone()),
        "nested": [{"deep": (base[0], "text", None)}],
    }


@pytest.fixture
def saved(tensors, tmp_path):
    path = tmp_path / "saved.pt"
    torch.save(tensors, path)
    return path


def test_every_tensor_equals_the_one_torch_loads(saved):
    expected = torch.load(saved, weights_only=True)
    found = open_all(saved)
    deep, expected_deep = found.pop("nested")[0]["deep"], expected.pop("nested")[0]["deep"]
    assert torch.equal(deep[0], expected_deep[0])
    assert deep[1:] == expected_deep[1:]
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
        assert found[name].is_contiguous()


def test_only_floating_point_tensors_are_cast(saved, tensors):
    with TorchArchive(saved) as archive:
        found = archive.materialise(archive.tree, torch.float64)
    assert torch.equal(found["half"], tensors["half"].double())
    assert found["double"].dtype == torch.float64
    assert found["integers"].dtype == torch.int64


def test_every_truncation_is_a_one_line_error(saved, tmp_path):
    data, path = saved.read_bytes(), tmp_path / "cut.pt"
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"^cut\.pt is "):
            open_all(path)


def test_mutated_files_open_or_are_rejected(tmp_path):
    good, path = tmp_path / "good.pt", tmp_path / "mutated.pt"
    torch.save({"weight": torch.ones(3, 2), "step": 5}, good)
    data, choice = good.read_bytes(), random.Random(0)
    for _ in range(300):
        mutated = bytearray(data)
        for _ in range(choice.randint(1, 3)):
            mutated[choice.randrange(len(mutated))] = choice.randrange(256)
        path.write_bytes(mutated)
        with suppress(WeightsError):
            open_all(path)


def test_random_bytes_are_rejected(tmp_path):
    path = tmp_path / "noise.pt"
    path.write_bytes(random.Random(0).randbytes(5000))
    with pytest.raises(WeightsError, match=r"noise\.pt is damaged"):
        open_all(path)


def test_a_zip_without_a_checkpoint_is_reported(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../cat.jpg", b"meow")
    with pytest.raises(WeightsError, match="a zip archive but not a torch checkpoint"):
        open_all(path)
    assert not (tmp_path.parent / "cat.jpg").exists()


def test_a_compressed_archive_is_rejected(saved, tmp_path):
    path = tmp_path / "bomb.pt"
    rewrite(saved, path, lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed"):
        open_all(path)


def test_a_storage_larger_than_its_entry_is_rejected_before_allocation(tmp_path):
    good, path = tmp_path / "good.pt", tmp_path / "huge.pt"
    torch.save({"weight": torch.ones(3, 2)}, good)
    huge = b"J\xff\xff\xff\x7f"  # 2**31 - 1 for 6 elements of the storage and for 3 rows
    inflate = {"good/data.pkl": lambda data: data.replace(b"K\x06", huge).replace(b"K\x03", huge)}
    rewrite(good, path, lambda name, data: inflate.get(name, bytes)(data))
    tracemalloc.start()
    with pytest.raises(WeightsError, match="should have 8589934588 bytes and has 24"):
        open_all(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_tensor_larger_than_its_storage_is_rejected(tmp_path):
    good, path = tmp_path / "good.pt", tmp_path / "wide.pt"
    torch.save({"weight": torch.ones(3, 2)}, good)
    rewrite(good, path, lambda n, d: d.replace(b"K\x03", b"K\x04") if n.endswith("data.pkl") else d)
    with pytest.raises(WeightsError, match="larger than its storage"):
        open_all(path)


def test_one_storage_used_a_thousand_times_is_rejected(tmp_path):
    base, path = torch.zeros(10_000), tmp_path / "repeated.pt"
    torch.save([base[:] for _ in range(1000)], path)
    with pytest.raises(WeightsError, match="its tensors are larger than the file"):
        open_all(path)


def test_a_pickled_module_is_not_a_plain_tree(tmp_path):
    path = tmp_path / "module.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(WeightsError, match=r"a torch\.nn\.modules\.linear\.Linear instead"):
        open_all(path)


def test_a_canary_in_an_archive_never_runs(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch canary",)

    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"model": Evil()}, buffer)
    path = tmp_path / "evil.pt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError, match=r"evil\.pt wants \w+\.system"):
        open_all(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_a_one_line_error(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pt does not exist"):
        TorchArchive(tmp_path / "absent.pt")
