"""Frames between programs: what is written is read, and what is no frame is refused."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from understudy.core.errors import UserError
from understudy.stream import encode, read

fields = arrays(
    np.float32,
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    elements=st.floats(width=32, allow_nan=False),
)


@given(st.lists(st.tuples(st.floats(allow_nan=False), fields), max_size=4))
def test_frames_are_read_as_they_were_written(frames):
    found = list(read(io.BytesIO(b"".join(encode(t, field) for t, field in frames))))
    assert len(found) == len(frames)
    for (t, field), (expected_t, expected) in zip(found, frames, strict=True):
        assert t == expected_t and field.dtype == np.float32
        np.testing.assert_array_equal(field, expected)


def test_the_bytes_of_a_frame_are_those_of_the_documentation():
    expected = (
        b"USF1" + b"\x02\0\0\0" + np.float64(0.5).tobytes() + b"\x01\0\0\0\x02\0\0\0"
        + np.array([1.0, -2.0], "<f4").tobytes()
    )  # fmt: skip
    assert encode(0.5, torch.tensor([[1.0, -2.0]], dtype=torch.float64)) == expected


@given(st.binary(min_size=1, max_size=40))
def test_anything_else_is_refused_or_an_empty_end(noise):
    content = encode(0.0, np.zeros(3)) + (noise if noise[:4] != b"USF1" else b"no" + noise)
    with pytest.raises(UserError, match="frame"):
        list(read(io.BytesIO(content)))


@pytest.mark.parametrize("cut", [1, 10, 17, 25])
def test_a_frame_that_is_cut_short_is_refused(cut):
    with pytest.raises(UserError, match="frame"):
        list(read(io.BytesIO(encode(0.0, np.zeros((3, 2)))[:cut])))


def test_a_frame_of_an_absurd_size_is_refused_before_it_is_read():
    head = b"USF1" + b"\x02\0\0\0" + bytes(8) + b"\xff\xff\xff\xff" * 2
    with pytest.raises(UserError, match="too large"):
        list(read(io.BytesIO(head)))


def test_too_many_dimensions_are_refused():
    with pytest.raises(UserError, match="at most 8"):
        encode(0.0, np.zeros((1,) * 9))


def test_what_a_solver_prints_does_not_come_between_frames():
    program = (
        "from understudy.stream import send\n"
        "send(0.0, [1, 2]); print('step 1'); send(0.1, [3, 4]); print('done', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert [field.tolist() for _, field in read(io.BytesIO(done.stdout))] == [[1, 2], [3, 4]]
    assert done.stderr.split() == [b"step", b"1", b"done"]


def test_the_module_needs_no_torch():
    program = "import sys, understudy.stream; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
