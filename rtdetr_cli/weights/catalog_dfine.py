"""Published weights of D-FINE, DEIM, RT-DETRv4 and the DEIMv2 networks on HGNetv2.

AP, AP50, latency and addresses as printed by the authors: Peterande/D-FINE (4a1f73a),
Intellindust-AI-Lab/DEIM (09d35d5) and DEIMv2 (0fff8d4), RT-DETRs/RT-DETRv4 (df44122). RT-DETRv4
prints neither parameters nor GFLOPs; it is D-FINE's network.
"""

from __future__ import annotations

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.weights.licence import DFINE, DFINE_OBJECTS365, Licence, code_only
from rtdetr_cli.weights.published import Published

STORAGE = "https://github.com/Peterande/storage/releases/download/"
_DRIVE = "https://drive.google.com/file/d/"
"""Large files stand behind a page that asks for confirmation."""
_HUB = "https://huggingface.co/Intellindust/"
_DEIM = code_only("Intellindust-AI-Lab/DEIM")
_RTDETRV4 = code_only("RT-DETRs/RT-DETRv4")
_DEIMV2 = code_only("Intellindust-AI-Lab/DEIMv2")

_SIZES: dict[str, tuple[float, float]] = {
    "dfine-n": (4, 7),
    "dfine-s": (10, 25),
    "dfine-m": (19, 57),
    "dfine-l": (31, 91),
    "dfine-x": (62, 202),
    "rtdetr-r18": (20, 60),
    "rtdetr-r34": (31, 92),
    "rtdetr-r50m": (33, 100),
    "rtdetr-r50": (42, 136),
    "rtdetr-r101": (76, 259),
    "deimv2-atto": (0.5, 0.8),
    "deimv2-femto": (1.0, 1.7),
    "deimv2-pico": (1.5, 5.2),
    "deimv2-n": (3.6, 6.8),
}
"""Parameters (10^6) and GFLOPs of an architecture."""
_MS = {"dfine-n": 2.12, "dfine-s": 3.49, "dfine-m": 5.62, "dfine-l": 8.07, "dfine-x": 12.89}

_DFINE_COCO = (
    ("dfine-n", "dfine_n_coco", 42.8),
    ("dfine-s", "dfine_s_coco", 48.5),
    ("dfine-m", "dfine_m_coco", 52.3),
    ("dfine-l", "dfine_l_coco", 54.0),
    ("dfine-x", "dfine_x_coco", 55.8),
)
_DFINE_OBJECTS365_COCO = (
    ("dfine-s", "dfine_s_obj2coco", 50.7),
    ("dfine-m", "dfine_m_obj2coco", 55.1),
    ("dfine-l", "dfine_l_obj2coco_e25", 57.3),
    ("dfine-x", "dfine_x_obj2coco", 59.3),
)
# 366 classes: a row per id of Objects365, of which 0 is unused.
_DFINE_OBJECTS365 = (
    ("dfine-s", "dfine_s_obj365", 31.0),
    ("dfine-m", "dfine_m_obj365", 38.6),
    ("dfine-l", "dfine_l_obj365_e25", 44.7),
    ("dfine-x", "dfine_x_obj365", 49.5),
)
# name, architecture, place on Google Drive, AP, AP50, milliseconds
_DEIM_DFINE = (
    ("deim-dfine-n", "dfine-n", "1ZPEhiU9nhW4M5jLnYOFwTSLQC1Ugf62e", 43.0, None, 2.12),
    ("deim-dfine-s", "dfine-s", "1tB8gVJNrfb6dhFvoHJECKOF5VpkthhfC", 49.0, None, 3.49),
    ("deim-dfine-m", "dfine-m", "18Lj2a6UN6k_n_UzqnJyiaiLGpDzQQit8", 52.7, None, 5.62),
    ("deim-dfine-l", "dfine-l", "1PIRf02XkrA2xAD3wEiKE2FaamZgSGTAr", 54.7, None, 8.07),
    ("deim-dfine-x", "dfine-x", "1dPtbgtGgq1Oa7k_LgH1GXPelg1IVeu0j", 56.5, None, 12.89),
)
_DEIM_OBJECTS365 = (
    ("deim-dfine-x-o365", "dfine-x", "1RMNrHh3bYN0FfT5ZlWhXtQxkG23xb2xj", 59.5, None, 12.89),
)
_DEIM_RTDETRV2 = (
    ("deim-rtdetrv2-r18", "rtdetr-r18", "153_JKff6EpFgiLKaqkJsoDcLal_0ux_F", 49.0, None, 4.59),
    ("deim-rtdetrv2-r34", "rtdetr-r34", "1O9RjZF6kdFWGv1Etn1Toml4r-YfdMDMM", 50.9, None, 6.40),
    ("deim-rtdetrv2-r50m", "rtdetr-r50m", "10dLuqdBZ6H5ip9BbBiE6S7ZcmHkRbD0E", 53.2, None, 6.90),
    ("deim-rtdetrv2-r50", "rtdetr-r50", "1mWknAXD5JYknUQ94WCEvPfXz13jcNOTI", 54.3, None, 9.15),
    ("deim-rtdetrv2-r101", "rtdetr-r101", "1BIevZijOcBO17llTyDX32F_pYppBfnzu", 55.5, None, 13.66),
)
_RTDETRV4_COCO = (
    ("rtdetrv4-s", "dfine-s", "1jDAVxblqRPEWed7Hxm6GwcEl7zn72U6z", 49.8, 67.1, 3.66),
    ("rtdetrv4-m", "dfine-m", "1O-YpP4X-quuOXbi96y2TKkztbjroP5mX", 53.7, 71.0, 5.91),
    ("rtdetrv4-l", "dfine-l", "1shO9EzZvXZyKedE2urLsN4dwEv8Jqa_8", 55.4, 73.0, 8.07),
    ("rtdetrv4-x", "dfine-x", "19gnkMTgFveJsrOvSmEPQXCTG6v9oQHN3", 57.0, 74.6, 12.90),
)
# name, repository on Hugging Face, AP, milliseconds, side of the images
_DEIMV2_COCO = (
    ("deimv2-atto", "DEIMv2_HGNetv2_ATTO_COCO", 23.8, 1.10, 320),
    ("deimv2-femto", "DEIMv2_HGNetv2_FEMTO_COCO", 31.0, 1.45, 416),
    ("deimv2-pico", "DEIMv2_HGNetv2_PICO_COCO", 38.5, 2.13, 640),
    ("deimv2-n", "DEIMv2_HGNetv2_N_COCO", 43.0, 2.32, 640),
)

DriveRow = tuple[str, str, str, float, float | None, float]


def _dfine(row: tuple[str, str, float], suffix: str, data: str, licence: Licence) -> Published:
    architecture, file, ap = row
    parameters_m, gflops = _SIZES[architecture]
    return Published(
        name=f"{architecture}{suffix}.pt",
        architecture=architecture,
        file=f"dfinev1.0/{file}.pth",
        storage=STORAGE,
        ap=ap,
        ap50=None,
        data=data,
        family="D-FINE",
        parameters_m=parameters_m,
        gflops=gflops,
        latency_ms=_MS[architecture],
        licence=licence,
    )


def _on_drive(row: DriveRow, family: str, data: str, licence: Licence) -> Published:
    name, architecture, place, ap, ap50, latency_ms = row
    parameters_m, gflops = _SIZES[architecture]
    return Published(
        name=f"{name}.pt",
        architecture=architecture,
        file=place,
        storage=_DRIVE,
        saved_as=f"{name}.pth",  # its start says the family
        ap=ap,
        ap50=ap50,
        data=data,
        family=family,
        parameters_m=parameters_m,
        gflops=gflops,
        latency_ms=latency_ms,
        licence=licence,
        is_fetched=False,
    )


def _deimv2(row: tuple[str, str, float, float, int]) -> Published:
    name, repository, ap, latency_ms, side = row
    parameters_m, gflops = _SIZES[name]
    return Published(
        name=f"{name}.pt",
        architecture=name,
        file=f"{repository}/resolve/main/model.safetensors",
        storage=_HUB,
        saved_as=f"{name}.safetensors",
        ap=ap,
        ap50=None,
        family="DEIMv2",
        parameters_m=parameters_m,
        gflops=gflops,
        latency_ms=latency_ms,
        licence=_DEIMV2,
        preprocessing=Preprocessing((side, side)),
    )


DETECTORS: tuple[Published, ...] = (
    *(_dfine(row, "", "COCO", DFINE) for row in _DFINE_COCO),
    *(_dfine(row, "-o365", "Objects365, COCO", DFINE_OBJECTS365) for row in _DFINE_OBJECTS365_COCO),
    *(_dfine(row, "-o365-only", "Objects365", DFINE_OBJECTS365) for row in _DFINE_OBJECTS365),
    *(_on_drive(row, "DEIM", "COCO", _DEIM) for row in _DEIM_DFINE),
    *(_on_drive(row, "DEIM", "Objects365, COCO", _DEIM) for row in _DEIM_OBJECTS365),
    *(_on_drive(row, "DEIM", "COCO", _DEIM) for row in _DEIM_RTDETRV2),
    *(_on_drive(row, "RT-DETRv4", "COCO", _RTDETRV4) for row in _RTDETRV4_COCO),
    *(_deimv2(row) for row in _DEIMV2_COCO),
)
