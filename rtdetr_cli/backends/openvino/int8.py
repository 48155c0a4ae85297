"""INT8 for OpenVINO with NNCF: the convolutions of backbone and encoder.

Blocks are those of onnx/int8.py, found by operator names; everything else stays float.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rtdetr_cli.backends.graph_detector import Feed
from rtdetr_cli.backends.onnx.int8 import block_at
from rtdetr_cli.backends.openvino.package import needs_openvino_extra, same_signal_stack

_ATTENTION = "encoder/encoder/"
_CONVOLUTIONS = {"Convolution", "GroupConvolution"}


def blocks(model: Any) -> list[str]:  # noqa: ANN401
    """The blocks whose convolutions can be INT8, in graph order."""
    nodes = model.get_ordered_ops()
    found = [_block(node) for node in nodes if node.get_type_name() in _CONVOLUTIONS]
    return list(dict.fromkeys(block for block in found if block))


def quantize(model: Any, calibration: Iterable[Feed], kept_float: Collection[str] = ()) -> Any:  # noqa: ANN401
    """Return a quantised copy.

    The inputs of a concatenation keep separate scales: with NNCF's default, one common scale,
    HGNetv2 lost 18 points of AP (docs/benchmarks.md).

    Args:
        model: an openvino.Model by `write_onnx`.
        calibration: inputs of real images, iterated several times.
        kept_float: blocks that stay float.

    Raises:
        BackendError: NNCF is not installed.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # silences a warning about missing CUDA
    with needs_openvino_extra():
        import nncf
        from nncf.quantization.advanced_parameters import QuantizerPropagationRule
    ours = {block for block in blocks(model) if block not in kept_float}
    nodes = [node for node in model.get_ops() if node.get_type_name() not in {"Constant", "Result"}]
    floats = [node.get_friendly_name() for node in nodes if _block(node) not in ours]
    nncf.set_log_level(logging.ERROR)
    with same_signal_stack(), Path(os.devnull).open("w") as bars, redirect_stdout(bars):
        return nncf.quantize(
            model,
            nncf.Dataset(calibration),
            subset_size=sum(1 for _ in calibration),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=floats, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                quantizer_propagation_rule=QuantizerPropagationRule.DO_NOT_MERGE_BRANCHES,
                # 7-bit weights: with 8 bits, x86 without VNNI saturates sums of products.
                overflow_fix=nncf.OverflowFix.ENABLE,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),
            ),
        )


def _block(node: Any) -> str | None:  # noqa: ANN401
    name = node.get_friendly_name()
    return None if name.startswith(_ATTENTION) else block_at(name)
