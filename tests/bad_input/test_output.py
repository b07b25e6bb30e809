"""Output that nobody reads any more ends no run."""

import io
import os
import sys

import pytest

from bilo_ppl._output import put
from bilo_ppl.cli import main
from bilo_ppl.run.record import warn


@pytest.fixture
def pipe():
    """A stdout whose reader has gone, as that of `| head`."""
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    yield stream
    stream.close()


def test_a_closed_pipe_is_written_to_once_and_then_no_more(pipe):
    for _ in range(3):
        put(pipe, "a line" * 1000)
    # The stream now leads nowhere: closing it, as Python does at the end, raises nothing.
    os.write(pipe.fileno(), b"more")


def test_the_help_into_a_closed_pipe(pipe, monkeypatch):
    monkeypatch.setattr(sys, "stdout", pipe)
    with pytest.raises(SystemExit) as end:
        main(["run", "--help"])
    assert end.value.code == 0
    os.write(pipe.fileno(), b"more")


def test_a_stream_without_a_file_is_replaced(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    warn("once")
    assert not isinstance(sys.stderr, Closed)
    warn("twice")
    sys.stderr.close()


def test_no_stream_at_all():
    put(None, "nothing")
