"""The keys of Ultralytics' modes, and what each does here; docs/from-ultralytics.md is made of it.

foreign_values.py translates with this table. Names and default values are those of 8.4.190.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Same:
    """A key of ours of the same name; values that are written differently are translated."""

    difference: str = ""


@dataclass(frozen=True)
class Renamed:
    """A key that is called `to` here and accepted under both names."""

    to: str
    difference: str = ""


@dataclass(frozen=True)
class NoEffect:
    """A key that is accepted and does nothing; why is printed once.

    `only` limits the values; another one is refused, because it would change the result.
    """

    why: str
    only: tuple[object, ...] = ()
    otherwise: str = ""


@dataclass(frozen=True)
class Refused:
    """A key that is not supported; a neutral value asks for what happens anyway."""

    why: str
    neutral: tuple[object, ...] = ()


Rule = Same | Renamed | NoEffect | Refused

FOREIGN_MODES = ("train", "val", "predict", "track", "export", "benchmark")

_OFF = (False, None)
_DETECTED = "RT-DETR needs no NMS: it is trained to find each object with one query"
_RESIZED = "every image is resized to the input size of the network"
_FIXED_LOSS = "the loss weights are the paper's: class 1, L1 5, GIoU 2"
_OTHER_TASK = "it belongs to another task than detection"
_CLASSIFY = "Ultralytics uses it for classification only"
_WINDOW = "only `rtdetr predict` and `track` have a window"
_TEST_TIME = "it is for val and predict; leave it out"
_FEATURES = "feature maps are not drawn; leave it out"
_LAYOUT = "the memory layout is chosen by rtdetr and does not change results"
_PREDICT_WRITES = "`rtdetr predict` writes it"
_NO_FOLDER = "an export has no run folder; give output="
_PATH = "give the parent folder as project= and the folder as name="
_CLASSES = "classes of Ultralytics are not used; model.add_callback acts on a run"
_RUNTIME = "open the exported file, which ONNX Runtime, OpenVINO or TensorRT runs"
_GEOMETRY = "rtdetr has no such augmentation; it has zoom_out, iou_crop, flip, mosaic and mixup"
_COLORS = "photometric= is the probability of color changes; photometric=0 turns them off"
_SMALLER = "zoom_out= and iou_crop= are the probabilities of a smaller or shifted image"
_RECIPE = "the recipe's photometric, zoom_out and iou_crop change colors, size and place"
_OUTPUT = "log output goes to stderr, results go to stdout; their amount is fixed"
_ONLY_NMS = "Ultralytics uses it for NMS inside the exported file; RT-DETR needs none"
_PRECISION = "16 is half=true; 32 is the default"
_LR = (
    "the recipe's is 1e-4 with AdamW; 0.01, Ultralytics' default, has no effect without optimizer="
)
_RESCALED = "batch= is used as given; accumulate= sums the gradients of several batches"
_WARM_UP = "the warm-up raises all learning rates from 0 and keeps the momentum"

_ROWS: tuple[tuple[str, str, Rule], ...] = (
    ("train val predict export benchmark", "model", Same()),
    ("train val export benchmark", "data", Same()),
    ("train val predict benchmark", "project", Same("the default is runs, not runs/detect")),
    ("train val predict benchmark", "name", Same()),
    ("train val predict benchmark", "exist_ok", Same()),
    ("train val predict export benchmark", "device", Same("-1, an idle GPU, is refused")),
    ("train val", "workers", Same("the default is one per core, at most 4 (Ultralytics: 8)")),
    ("train val predict", "classes", Same()),
    ("train val", "single_cls", Same()),
    ("train val", "plots", Same()),
    (
        "train val predict export benchmark",
        "imgsz",
        Same("rounded up to a multiple of 32; two numbers are height,width in every mode"),
    ),
    # the length, the batch and the machine of training
    ("train", "epochs", Same("the default is 72 (Ultralytics: 100)")),
    ("train", "time", Same()),
    ("train", "patience", Same("the default is 0, never (Ultralytics: 100)")),
    ("train", "batch", Same("-1 and fractions use 80 % of the free memory of a CUDA device")),
    ("train", "seed fraction resume val", Same()),
    ("train", "save_period", Same("-1 is 0")),
    ("train", "cache", Same("True is ram, False is off")),
    ("train", "amp", Same("True is auto, False is off")),
    ("train", "compile", Same("true or false; there are no modes of torch.compile")),
    ("train", "pretrained", Same("True: the weights of model=; False needs model=NAME.yaml")),
    ("train", "save", Refused("a run always writes best.pt and last.pt", (True, None))),
    (
        "train",
        "cls_remap",
        NoEffect(
            "class rows of a checkpoint are kept by name",
            (True, None),
            "class rows of a checkpoint are always kept by name; leave it out",
        ),
    ),
    ("train", "deterministic", NoEffect("what a run draws depends on seed= alone")),
    ("train", "rect", Refused("every batch has one size, height,width of imgsz", _OFF)),
    ("train", "profile", Refused("`rtdetr benchmark` measures the speed of all formats", _OFF)),
    (
        "train",
        "freeze",
        Same("1 to 4 are stages of the backbone, 8 and 10 the layers of Ultralytics' rtdetr-l"),
    ),
    ("train", "quantize", Refused("export the trained weights with int8=true", _OFF)),
    ("train", "distill_model", Refused("there is no distillation; leave it out", _OFF)),
    ("train", "dis", NoEffect("there is no distillation")),
    # the optimizer and the loss of training
    ("train", "optimizer", Same("auto is adamw, the recipe's; AdamW, SGD and Muon in any case")),
    ("train", "lr0", Renamed("lr", _LR)),
    (
        "train",
        "lrf",
        NoEffect(
            "schedule=cosine ends at 1 % of lr",
            (0.01,),
            "schedule=cosine ends at 1 % of lr, flat_cosine at 50 %; leave it out",
        ),
    ),
    ("train", "cos_lr", Renamed("schedule", "True is schedule=cosine, False leaves the recipe's")),
    ("train", "momentum", Same("momentum of sgd, beta1 of adamw; the default is 0.9")),
    ("train", "weight_decay", Same("the default is 1e-4 (Ultralytics: 5e-4)")),
    ("train", "warmup_epochs", Same("the default is a twentieth of the run, at most 2000 steps")),
    ("train", "warmup_momentum warmup_bias_lr", NoEffect(_WARM_UP)),
    ("train", "nbs", NoEffect(_RESCALED)),
    ("train", "box cls dfl", NoEffect(_FIXED_LOSS)),
    ("train", "cls_pw", Refused("classes are not weighted by their frequency", _OFF)),
    ("train", "pose kobj rle angle dlog dgrad dlam", NoEffect(_OTHER_TASK)),
    ("train", "overlap_mask mask_ratio", NoEffect(_OTHER_TASK)),
    ("train", "label_smoothing", Refused("the class target is the IoU of the box", _OFF)),
    ("train", "dropout", NoEffect(_CLASSIFY)),
    # the augmentation of training
    ("train", "fliplr", Renamed("flip")),
    ("train", "multi_scale", Same("the default is 0.25, for R18 0")),
    ("train", "mosaic", Same("the default is 0; starts after 4 epochs, ends after half of them")),
    ("train", "mixup", Same("blends the images of a batch in pairs; in the epochs of mosaic")),
    (
        "train",
        "close_mosaic",
        Renamed("dense_epochs", "N is dense_epochs=0,EPOCHS-N, and needs mosaic or mixup"),
    ),
    ("train", "hsv_h", NoEffect(_RECIPE, (0.015, 0, None), f"{_COLORS}; leave it out")),
    ("train", "hsv_s", NoEffect(_RECIPE, (0.7, 0, None), f"{_COLORS}; leave it out")),
    ("train", "hsv_v", NoEffect(_RECIPE, (0.4, 0, None), f"{_COLORS}; leave it out")),
    ("train", "translate", NoEffect(_RECIPE, (0.1, 0, None), f"{_SMALLER}; leave it out")),
    ("train", "scale", NoEffect(_RECIPE, (0.5, 0, None), f"{_SMALLER}; leave it out")),
    ("train", "degrees shear perspective bgr cutmix copy_paste", Refused(_GEOMETRY, _OFF)),
    ("train", "flipud", Refused("only left and right are flipped, by flip=", _OFF)),
    ("train", "copy_paste_mode", NoEffect("there is no copy_paste")),
    ("train", "auto_augment erasing crop_fraction", NoEffect(_CLASSIFY)),
    ("train", "augmentations", Refused(f"lists of transforms are not read; {_GEOMETRY}", _OFF)),
    # what the validation of a training uses
    ("train", "split", Refused("training validates on the val split", ("val", None))),
    ("train", "save_json", Refused("give it to `rtdetr val`", _OFF)),
    ("train", "conf", Refused("validation counts all detections", (None, 0, 0.001))),
    (
        "train",
        "max_det",
        Refused("validation counts the best 100 of a class, as COCO", (300, None)),
    ),
    ("train", "half", Refused("give amp=auto, bf16 or fp16", _OFF)),
    ("train", "save_txt save_conf save_crop", Refused(_PREDICT_WRITES, _OFF)),
    ("train val predict", "tracker", Refused("`rtdetr track` has it; leave it out", ())),
    # val
    ("val", "save_json", Same()),
    ("val", "conf", Same("the default is 0 (Ultralytics: 0.001)")),
    ("val predict", "max_det", Same()),
    ("val predict", "half", Same()),
    ("val", "split", Same()),
    ("val", "batch", Same("-1 is the default")),
    ("val", "fraction", Refused("validation uses the whole split", (1, None))),
    ("val", "save_txt save_conf save_crop", Refused(_PREDICT_WRITES, _OFF)),
    ("val", "show_labels show_conf show_boxes line_width", NoEffect("val draws sample batches")),
    ("val", "save", NoEffect("the run folder is always written")),
    # predict
    ("predict", "source", Same("YouTube addresses need `pip install yt-dlp`")),
    ("predict", "conf save save_txt save_crop show_labels show_conf show_boxes", Same()),
    ("predict", "line_width", Same()),
    ("predict", "batch", Same("-1 is the default")),
    ("predict", "save_conf", Same("has no effect without save_txt")),
    ("predict", "hide_labels", Renamed("show_labels", "negated")),
    ("predict", "hide_conf", Renamed("show_conf", "negated")),
    ("predict", "line_thickness", Renamed("line_width")),
    ("predict", "boxes", Renamed("show_boxes")),
    ("predict", "font_size", Refused("in Python use Results.plot(font_size=)", (None,))),
    ("predict", "data", NoEffect("class names come from the weights")),
    ("predict", "vid_stride", Same("frames 1, 1+n, 1+2n, with their numbers in the file")),
    ("predict", "save_frames stream_buffer", Same()),
    ("predict", "show_fps", Refused("frames per second are printed, not drawn", _OFF)),
    ("predict", "persist", Refused("`rtdetr track` has it; leave it out", _OFF)),
    ("predict", "stream", NoEffect("the command reads one batch of images at a time")),
    ("predict", "retina_masks", NoEffect(_OTHER_TASK)),
    ("predict", "embed", Refused("in Python use RTDETR.embed(source)", _OFF)),
    ("predict", "save_json", Same("COCO results of the whole run")),
    # export and benchmark
    ("export", "format", Same("the default is onnx; tensorrt is engine")),
    ("export", "half dynamic", Same()),
    ("export", "int8", Same("needs data= to calibrate on")),
    ("export", "opset", Same("17 to 19")),
    ("export", "workspace", Same("has no effect without format=engine")),
    ("export", "batch", Same("the default is any batch size for onnx (Ultralytics: 1)")),
    ("export", "simplify", NoEffect("runtimes simplify the graph when they load it")),
    ("export", "keras optimize", Refused("there is no such format; leave it out", _OFF)),
    ("export", "nms", Refused(f"{_DETECTED}; leave it out", _OFF)),
    ("export", "fraction", Refused("verify_images= is the number of images", (1, None))),
    ("export", "split", NoEffect("int8 calibrates on the train split")),
    ("export", "conf iou max_det agnostic_nms", NoEffect(_ONLY_NMS)),
    ("export", "project name exist_ok save_dir", Refused(_NO_FOLDER, _OFF)),
    ("export", "quantize", Renamed("half", f"{_PRECISION}; 8 is int8=true")),
    ("benchmark", "batch", Same("-1 is the default")),
    ("benchmark", "half", Refused("give formats=torch-half,onnx-half,engine-half", _OFF)),
    ("benchmark", "int8", Refused("give formats=onnx-int8,openvino-int8 and data=", _OFF)),
    ("benchmark", "quantize", Refused("give formats=onnx-half or onnx-int8", (None, 32))),
    ("benchmark", "format", Renamed("formats", "-half and -int8 are part of the name")),
    ("benchmark", "conf", Refused("AP counts all detections", (None, 0, 0.001))),
    ("benchmark", "eps", NoEffect("rates are measured, without a constant in the denominator")),
    # several modes
    ("train val", "iou agnostic_nms nms", NoEffect(_DETECTED)),
    ("predict", "iou", NoEffect(f"{_DETECTED}; nms=0.7 adds it")),
    ("predict", "nms", Same("the IoU above which a box is dropped; False is off, True is refused")),
    ("predict", "agnostic_nms", Same("has no effect without nms=")),
    ("train val predict export", "end2end", NoEffect(_DETECTED)),
    ("val", "rect", NoEffect(_RESIZED)),
    ("predict", "rect", Same("the input has the shape of the image, where Ultralytics stretches")),
    ("val predict", "quantize", Renamed("half", _PRECISION)),
    ("train", "augment", Refused(_TEST_TIME, _OFF)),
    ("val predict", "augment", Same("averages the boxes of mirrored and scaled images")),
    ("train val predict", "visualize", Refused(_FEATURES, _OFF)),
    ("train val", "show", Refused(_WINDOW, _OFF)),
    ("predict", "show", Same("an image stays until a key is pressed")),
    ("train val predict", "dnn", Refused(_RUNTIME, _OFF)),
    ("train val predict", "save_dir", Refused(_PATH, (None,))),
    ("train val predict", "trainer validator predictor", Refused(_CLASSES, (None,))),
    ("train val", "save_hybrid", Refused("labels and detections are not mixed", _OFF)),
    ("val predict", "compile", NoEffect("only training compiles; an exported file is faster")),
    ("train val predict", "channels_last", NoEffect(_LAYOUT)),
    ("train val predict export", "verbose", NoEffect(_OUTPUT)),
    ("benchmark", "verbose", NoEffect(_OUTPUT, (True, False, None), "no AP is required")),
    (
        "train val predict export benchmark",
        "task",
        Refused("rtdetr detects objects", ("detect", None)),
    ),
    ("train val predict export benchmark", "cfg", Same("also their default.yaml and args.yaml")),
)
_TRACK: dict[str, Rule] = {
    "conf": Same("0.1 by default as there; only boxes with an id are shown"),
    "tracker": Same(
        "the default is bytetrack; bytetrack.yaml, ocsort.yaml, botsort.yaml or a file of its own"
    ),
    "nms": Same("the default is 0.7, for the detections below the usual conf"),
    "agnostic_nms": Same("the default is True, because an object has one id"),
    "persist": NoEffect("each source has its tracker; in Python it is an argument of track"),
}
"""What `track` has besides the keys of `predict`."""


def _expanded() -> dict[tuple[str, str], Rule]:
    table: dict[tuple[str, str], Rule] = {}
    for modes, keys, rule in _ROWS:
        table |= {(mode, key): rule for mode in modes.split() for key in keys.split()}
    for mode in FOREIGN_MODES:
        table[mode, "mode"] = Refused(
            f"the command is {mode}; its first word is the mode", (mode, None)
        )
    shared = {
        ("track", key): rule
        for (mode, key), rule in table.items()
        if mode == "predict" and key != "mode"
    }
    return table | shared | {("track", key): rule for key, rule in _TRACK.items()}


FOREIGN_KEYS = _expanded()
"""What each key does here, by mode and key."""
