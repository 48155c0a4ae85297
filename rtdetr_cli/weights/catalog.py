"""Published weights by name; catalog_dfine.py has those of D-FINE, DEIM, RT-DETRv4 and DEIMv2.

Torch-free; store.py downloads and opens the files.
"""

from __future__ import annotations

from rtdetr_cli.weights.catalog_dfine import DETECTORS, STORAGE
from rtdetr_cli.weights.licence import ASKED, copied
from rtdetr_cli.weights.published import Published, PublishedBackbone

# Source of AP and addresses: lyuwenyu/RT-DETR, README.md of rtdetrv2_pytorch, rtdetr_pytorch and
# rtdetr_paddle; for the files trained on Objects365 alone, issue 42 there (AP of the Paddle code).
# The last four have 1 to 4 sampling points per level (RT-DETRv2 section 3.4, table 3).
_COCO = (
    ("rtdetr-l", "l", "v0.1/rtdetrv2_hgnetv2_l_6x_coco_from_paddle", 52.9, 71.5),
    ("rtdetr-x", "x", "v0.1/rtdetrv2_hgnetv2_x_6x_coco_from_paddle", 54.7, 72.9),
    ("rtdetr-h", "h", "v0.1/rtdetrv2_hgnetv2_h_6x_coco_from_paddle", 56.3, 74.8),
    ("rtdetr-r18", "r18", "v0.1/rtdetr_r18vd_dec3_6x_coco_from_paddle", 46.4, 63.7),
    ("rtdetr-r34", "r34", "v0.1/rtdetr_r34vd_dec4_6x_coco_from_paddle", 48.9, 66.8),
    ("rtdetr-r50m", "r50m", "v0.1/rtdetr_r50vd_m_6x_coco_from_paddle", 51.3, 69.5),
    ("rtdetr-r50", "r50", "v0.1/rtdetr_r50vd_6x_coco_from_paddle", 53.1, 71.2),
    ("rtdetr-r101", "r101", "v0.1/rtdetr_r101vd_6x_coco_from_paddle", 54.3, 72.8),
    ("rtdetrv2-r18", "r18", "v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1", 48.1, 65.1),
    ("rtdetrv2-r34", "r34", "v0.1/rtdetrv2_r34vd_120e_coco_ema", 49.9, 67.5),
    ("rtdetrv2-r50m", "r50m", "v0.1/rtdetrv2_r50vd_m_7x_coco_ema", 51.9, 69.9),
    ("rtdetrv2-r50", "r50", "v0.1/rtdetrv2_r50vd_6x_coco_ema", 53.4, 71.6),
    ("rtdetrv2-r101", "r101", "v0.1/rtdetrv2_r101vd_6x_coco_from_paddle", 54.3, 72.8),
    ("rtdetrv2-r18-sp1", "r18", "v0.1/rtdetrv2_r18vd_sp1_120e_coco", 47.3, 64.3),
    ("rtdetrv2-r18-sp2", "r18", "v0.1/rtdetrv2_r18vd_sp2_120e_coco", 47.7, 64.7),
    ("rtdetrv2-r18-sp3", "r18", "v0.1/rtdetrv2_r18vd_sp3_120e_coco", 47.8, 64.8),
    ("rtdetrv2-r18-sp4", "r18", "v0.1/rtdetrv2_r18vd_120e_coco", 47.9, 64.9),
)
_OBJECTS365_COCO = (
    ("rtdetr-r18-o365", "r18", "v0.1/rtdetr_r18vd_5x_coco_objects365_from_paddle", 49.0, 66.5),
    ("rtdetr-r50-o365", "r50", "v0.1/rtdetr_r50vd_2x_coco_objects365_from_paddle", 55.2, 73.4),
    ("rtdetr-r101-o365", "r101", "v0.1/rtdetr_r101vd_2x_coco_objects365_from_paddle", 56.2, 74.5),
    ("rtdetrv2-r18-o365", "r18", "v0.1/rtdetrv2_r18vd_5x_coco_objects365_from_paddle", 49.0, 66.5),
    ("rtdetrv2-r50-o365", "r50", "v0.1/rtdetrv2_r50vd_2x_coco_objects365_from_paddle", 55.2, 73.4),
    (
        "rtdetrv2-r101-o365",
        "r101",
        "v0.1/rtdetrv2_r101vd_2x_coco_objects365_from_paddle",
        56.2,
        74.5,
    ),
)
# 365 classes, for fine-tuning.
_OBJECTS365 = (
    ("rtdetr-r18-o365-only", "r18", "v0.1/rtdetr_r18vd_1x_objects365_from_paddle", 22.9, 31.2),
    ("rtdetr-r50-o365-only", "r50", "v0.1/rtdetr_r50vd_1x_objects365_from_paddle", 35.1, 46.2),
    ("rtdetr-r101-o365-only", "r101", "v0.1/rtdetr_r101vd_1x_objects365_from_paddle", 36.8, 48.3),
)
# Discrete sampling (RT-DETRv2 section 2.1): dsp has 4 points per level, dsp1 has 1.
_DISCRETE = (
    ("rtdetrv2-r18-dsp", "r18", "v0.1/rtdetrv2_r18vd_dsp_3x_coco", 47.4, 64.8),
    ("rtdetrv2-r34-dsp", "r34", "v0.1/rrtdetrv2_r34vd_dsp_1x_coco", 49.2, 67.1),
    ("rtdetrv2-r50m-dsp", "r50m", "v0.1/rtdetrv2_r50vd_m_dsp_3x_coco", 51.4, 69.7),
    ("rtdetrv2-r50-dsp", "r50", "v0.1/rtdetrv2_r50vd_dsp_1x_coco", 52.9, 71.3),
    ("rtdetrv2-r18-dsp1", "r18", "v0.1/rtdetrv2_r18vd_dsp1_1x_coco", 46.3, 63.9),
    ("rtdetrv2-r18-dsp1-120e", "r18", "v0.1/rtdetrv2_r18vd_dsp1_120e_coco", 45.5, 63.0),
)
# Those whose model card was read; the cards of the others were not.
_COPIES = {
    "rtdetr-r18.pt": "rtdetr_r18vd",
    "rtdetr-r50.pt": "rtdetr_r50vd",
    "rtdetr-r18-o365.pt": "rtdetr_r18vd_coco_o365",
}
_SHA256 = {
    "rtdetr-r18.pt": "3ba8b5c909c9a1c4f21e96d0a7251ab1a485093955ca327d0061fef8d33c66f0",
    "rtdetrv2-r18.pt": "2ace52184b620204004509b72752ac7bfe64aadaf7fc1d076b18df8ab5a5c77e",
}


# Parameters (10^6), GFLOPs and frames per second as printed in the same READMEs.
_SIZES = {
    "r18": (20, 60, 217),
    "r34": (31, 92, 161),
    "r50m": (36, 100, 145),
    "r50": (42, 136, 108),
    "r101": (76, 259, 74),
    "l": (32, 110, 114),
    "x": (67, 234, 74),
    "h": (123, 490, 40),
}


def _published(row: tuple[str, str, str, float, float], data: str, sampling: str) -> Published:
    name, size, file, ap, ap50 = row
    parameters_m, gflops, frames_per_second = _SIZES[size]
    is_timed = "sp" not in name
    return Published(
        name=f"{name}.pt",
        architecture=f"rtdetr-{size}",
        file=f"{file}.pth",
        ap=ap,
        ap50=ap50,
        data=data,
        family="RT-DETRv2" if name.startswith("rtdetrv2") else "RT-DETR",
        parameters_m=parameters_m,
        gflops=gflops,
        latency_ms=round(1000 / frames_per_second, 2) if is_timed else None,
        sampling=sampling,
        licence=copied(_COPIES[f"{name}.pt"]) if f"{name}.pt" in _COPIES else ASKED,
        sha256=_SHA256.get(f"{name}.pt"),
    )


CATALOG: dict[str, Published] = {
    entry.name: entry
    for entry in (
        *(_published(row, "COCO", "bilinear") for row in _COCO),
        *(_published(row, "Objects365, COCO", "bilinear") for row in _OBJECTS365_COCO),
        *(_published(row, "Objects365", "bilinear") for row in _OBJECTS365),
        *(_published(row, "COCO", "discrete") for row in _DISCRETE),
        *DETECTORS,
    )
}

# lyuwenyu/RT-DETR, rtdetrv2_pytorch/src/nn/backbone/hgnetv2.py and presnet.py: the files
# behind `pretrained: True` in the official configs. ssld: distilled from a larger classifier.
BACKBONES: dict[str, PublishedBackbone] = {
    name: PublishedBackbone(name, f"rtdetr-{size}", f"v0.1/{file}_from_paddle.pth", megabytes)
    for name, size, file, megabytes in (
        ("hgnetv2-l", "l", "PPHGNetV2_L_ssld_pretrained", 54.4),
        ("hgnetv2-x", "x", "PPHGNetV2_X_ssld_pretrained", 133.7),
        ("hgnetv2-h", "h", "PPHGNetV2_H_ssld_pretrained", 276.7),
        ("presnet18", "r18", "ResNet18_vd_pretrained", 44.8),
        ("presnet34", "r34", "ResNet34_vd_pretrained", 85.3),
        ("presnet50", "r50", "ResNet50_vd_ssld_v2_pretrained", 94.3),
        ("presnet101", "r101", "ResNet101_vd_ssld_pretrained", 170.5),
    )
}
# Source: Peterande/D-FINE, src/nn/backbone/hgnetv2.py. B4, B5 and B6 are L, X and H.
BACKBONES |= {
    f"hgnetv2-{size.lower()}": PublishedBackbone(
        f"hgnetv2-{size.lower()}",
        architecture,
        f"dfinev1.0/PPHGNetV2_{size}_stage1.pth",
        megabytes,
        storage=STORAGE,
    )
    for size, architecture, megabytes in (
        ("B0", "rtdetr-n", 7.5),
        ("B2", "dfine-m", 24.2),
        ("B4", "dfine-l", 54.4),
        ("B5", "dfine-x", 133.7),
        ("B6", "rtdetr-h", 276.7),
    )
}


def find_published(name: str) -> Published | None:
    """Find an entry by name, with or without `.pt`, or by the published file name."""
    by_file = (entry for entry in CATALOG.values() if entry.original.name == name)
    return CATALOG.get(name) or CATALOG.get(f"{name}.pt") or next(by_file, None)


def find_backbone(name: str) -> PublishedBackbone | None:
    """Find a backbone by name or by the published file name."""
    by_file = (entry for entry in BACKBONES.values() if entry.original.name == name)
    return BACKBONES.get(name) or next(by_file, None)
