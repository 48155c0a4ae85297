"""The thresholds of `predict conf=`, and with conf=auto the calibrated scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.backends.load import Detector, keys_unlike_stored
from rtdetr_cli.config.confidence import parse_confidence
from rtdetr_cli.config.fields import parse
from rtdetr_cli.config.model_path import is_exported
from rtdetr_cli.config.settings.predict import DEFAULT_CONF, PredictSettings
from rtdetr_cli.core.class_names import class_indices
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.weights.calibration import Calibration


@dataclass(frozen=True)
class Thresholds:
    """Which detections are kept, and which scores they show.

    Attributes:
        scores: (K,) score of the network above which a detection of each class is kept.
        calibration: replaces the scores of the detections kept; None leaves them.
    """

    scores: NDArray[np.float32]
    calibration: Calibration | None = None

    def keep(self, found: Detections) -> NDArray[np.bool_]:
        """(N,) whether each detection is kept."""
        return found.scores > self.scores[found.labels]

    def shown(self, found: Detections) -> Detections:
        """The detections with the scores to show; their order stays."""
        if self.calibration is None:
            return found
        return replace(found, scores=self.calibration.probabilities(found.scores))


def find_thresholds(detector: Detector, settings: PredictSettings) -> Thresholds:
    """Thresholds of all classes of a detector.

    Raises:
        UsageError: conf=auto without a calibration in the file, or an unknown class.
    """
    conf, count = settings.conf, len(detector.names)
    if not isinstance(conf, str):
        return Thresholds(np.full(count, conf, np.float32))
    given = parse_confidence(conf)
    if given is not None:
        names = [key for text in given if isinstance(key := parse(text, int | str), int | str)]
        scores = np.full(count, DEFAULT_CONF, np.float32)
        scores[class_indices(names, detector.names, "model", "conf")] = [*given.values()]
        return Thresholds(scores)
    calibration = detector.calibration
    if calibration is None:
        weights = "best.pt" if is_exported(settings.model) else settings.model
        again = ", then export them again" if is_exported(settings.model) else ""
        if settings.backend != "torch":
            again = f"; backend={settings.backend} has none with imgsz or fewer layers or queries"
        raise UsageError(
            f"conf=auto: {settings.model} has no calibration; store one in the weights by `rtdetr "
            f"val model={weights} data=my.yaml calibrate=true`{again}"
        )
    changed = (
        keys_unlike_stored(detector, settings.imgsz, settings.decoder_layers, settings.num_queries)
        + ["augment"] * settings.augment
    )
    if changed:
        warn(f"conf=auto was calibrated without {', '.join(changed)}; scores may be off")
    return Thresholds(np.array(calibration.thresholds, np.float32), calibration)
