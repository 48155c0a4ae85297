"""SIGTERM ends a command as Ctrl-C does, once; ignored signals remain ignored."""

import signal
from importlib import import_module

import pytest

from rtdetr_cli.cli.main import run
from rtdetr_cli.core.termination import Terminated, termination_as_interrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_raises_and_the_second_would_end_the_process(number):
    with termination_as_interrupt():
        with pytest.raises(Terminated) as caught:
            signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_DFL
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt)


def test_handlers_are_restored_and_ignored_signals_stay_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_as_interrupt():
            signal.raise_signal(signal.SIGHUP)
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize(("mode", "number"), [("predict", "SIGTERM"), ("track", "SIGHUP")])
def test_the_exit_code_names_the_signal(mode, number, monkeypatch):
    number = getattr(signal, number)
    module = import_module(f"rtdetr_cli.engine.{mode}")
    monkeypatch.setattr(module, mode, lambda settings: signal.raise_signal(number))
    assert run([mode, "source=a.jpg"]) == 128 + number
