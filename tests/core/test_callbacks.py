"""Functions by event: added, called in order, removed; events that do not exist are named."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.callbacks import EVENTS, Callbacks
from rtdetr_cli.core.errors import UsageError

# The names in the documentation of Ultralytics' callbacks, for detection.
THEIRS = """
on_pretrain_routine_start on_pretrain_routine_end on_train_start on_train_epoch_start
on_train_batch_start optimizer_step on_before_zero_grad on_train_batch_end on_train_epoch_end
on_fit_epoch_end on_model_save on_train_end on_params_update teardown
on_val_start on_val_batch_start on_val_batch_end on_val_end
on_predict_start on_predict_batch_start on_predict_postprocess_end on_predict_batch_end
on_predict_end on_export_start on_export_end
"""


def test_the_events_are_those_of_ultralytics():
    assert set(EVENTS) == set(THEIRS.split())


def test_functions_are_called_in_order_until_they_are_cleared():
    callbacks, seen = Callbacks(), []
    callbacks.add("on_val_end", lambda state: seen.append(("first", state)))
    callbacks.add("on_val_end", lambda state: seen.append(("second", state)))
    callbacks.add("on_val_start", lambda state: pytest.fail("another event"))
    copied = callbacks.copy()
    callbacks.call("on_val_end", 7)
    assert seen == [("first", 7), ("second", 7)]
    callbacks.clear("on_val_end")
    callbacks.call("on_val_end", 8)
    assert len(seen) == 2
    assert copied.has("on_val_end")
    assert not callbacks.has("on_val_end", "on_train_start")
    assert callbacks.has("on_train_start", "on_val_start")


def test_an_unknown_event_is_named_with_the_nearest():
    sentence = "is not an event; did you mean on_train_end?"
    with pytest.raises(UsageError, match=f"add_callback: on_train_ends {sentence}"):
        Callbacks().add("on_train_ends", print)
    with pytest.raises(UsageError, match=f"clear_callback: on_train_ends {sentence}"):
        Callbacks().clear("on_train_ends")
    with pytest.raises(UsageError, match="events are on_pretrain_routine_start, "):
        Callbacks().add("qqq", print)


def test_settings_cannot_be_changed_in_a_callback():
    """As the documentation of Ultralytics does with `predictor.args.save`."""
    callbacks = Callbacks()
    callbacks.add("on_predict_postprocess_end", lambda args: setattr(args, "save", True))
    sentence = (
        r"changes a setting \(cannot assign to field 'save'\); settings hold for the whole run"
    )
    with pytest.raises(UsageError, match=f"a callback of on_predict_postprocess_end {sentence}"):
        callbacks.call("on_predict_postprocess_end", PredictSettings(source="x"))
