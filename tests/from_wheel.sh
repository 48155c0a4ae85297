#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh environment and runs the four commands in an empty
# folder and home. PYTHON=python3.13 selects the interpreter; ENVIRONMENT=folder keeps the environment.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
environment=${ENVIRONMENT:-$work/environment}
[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
pip() { "$environment/bin/python" -m pip --disable-pip-version-check "$@"; }
pip wheel --quiet --no-deps --wheel-dir "$work" "$root"
pip install --quiet --constraint "$root/constraints.txt" "$(ls "$work"/*.whl)[onnx]"

mkdir "$work/empty"; cd "$work/empty"
export RTDETR_HOME=$work/home PATH=$environment/bin:$PATH
small="data=small.yaml device=cpu"
printf 'source: shapes\nnum_train: 24\nnum_val: 8\nnum_test: 0\nsize: 96\n' > small.yaml
rtdetr --version
rtdetr train model=rtdetr-n.yaml $small epochs=1 imgsz=96 batch=8
rtdetr val model=runs/train/weights/best.pt $small
rtdetr export model=runs/train/weights/best.pt format=onnx
rtdetr val model=runs/train/weights/best.onnx $small name=val-onnx
rtdetr predict model=runs/train/weights/best.pt source="$(find "$RTDETR_HOME" -path '*val*' -name '*.jpg' | head -1)"
python - <<'PYTHON'
import importlib.resources, rtdetr_cli
from importlib.metadata import distributions
assert "site-packages" in rtdetr_cli.__file__, rtdetr_cli.__file__
assert (importlib.resources.files("rtdetr_cli") / "py.typed").is_file()
def megabytes(one):
    return sum(f.locate().stat().st_size for f in one.files or () if f.locate().is_file()) / 1e6
found = {one.metadata["Name"].lower(): megabytes(one) for one in distributions()}
ours = found.pop("rtdetr-cli")
torch = {name: size for name, size in found.items() if name in {"torch", "torchvision", "triton"} or name.startswith(("nvidia", "cuda"))}
rest = {name: size for name, size in found.items() if name not in torch}
print(f"rtdetr-cli {ours:.1f} MB; {len(rest)} packages besides torch's own, {sum(rest.values()):.0f} MB; torch and its own: {len(torch)}, {sum(torch.values()):.0f} MB")
PYTHON
