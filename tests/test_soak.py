"""The soak finds what grows, and nothing grows."""

from __future__ import annotations

import logging

import attrs
import pytest
from soak import Sample, growth, soak

STEADY = Sample(tasks=2, threads=9, descriptors=20, blocks=200_000, resident_bytes=50_000_000)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("tasks", 1),
        ("threads", 1),
        ("descriptors", 1),
        ("blocks", 2_000),
        ("resident_bytes", 2_000_000),
    ],
)
def test_soak_finds_what_grows(name: str, step: int) -> None:
    """What has a little more of something after each round is named; what swings is not."""
    samples = [
        attrs.evolve(STEADY, **{name: getattr(STEADY, name) + number * step})
        for number in range(16)
    ]
    assert [found.partition(":")[0] for found in growth(samples)] == [name]
    assert growth([samples[number % 4] for number in range(16)]) == []


def test_soak_leaves_no_task_no_thread_and_no_descriptor(caplog: pytest.LogCaptureFixture) -> None:
    """Some rounds of sessions of all habits, on a file: what runs for them is gone each time."""
    caplog.set_level(logging.CRITICAL)
    samples, problems = soak(sessions=15, seconds=0)
    of_memory = ("blocks", "resident_bytes")  # the caches of so short a soak are not full yet
    assert [each for each in problems if not each.startswith(of_memory)] == []
    for name in ("tasks", "threads", "descriptors"):
        assert len({getattr(each, name) for each in samples}) == 1, name
