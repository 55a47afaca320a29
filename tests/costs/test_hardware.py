"""Work is bound by one of three things; devices come from a table, every number of which can be replaced."""

import os

import pytest
from tiny_study import changed

from featdiff.config.study import Study
from featdiff.config.study_file import validated
from featdiff.costs.hardware import Hardware, Work, hardware_of

SLOW = Hardware("x", 2, bf16=100.0, fp32=10.0, bandwidth=20.0, memory=1.0, link=5.0, launch=0.5)


@pytest.fixture
def study() -> Study:
    sources = [{"path": "o/text", "share": 1.0}]
    lineup = {"base": "o/base", "tuned": {"rl": "o/rl"}}
    return validated({"name": "x", "lineup": lineup, "corpus": {"sources": sources}}, "test")


def test_work_takes_as_long_as_what_binds_it() -> None:
    assert Work(flops=8.0, moved=9.0).seconds(SLOW) == 8 / (0.4 * 10)
    assert Work(flops=8.0, moved=90.0).seconds(SLOW) == 90 / (0.9 * 20)
    assert Work(flops=8.0, moved=9.0, sent=30.0).seconds(SLOW) == 30 / (0.9 * 5)
    assert Work(flops=8.0, moved=9.0, calls=7).seconds(SLOW) == 7 * 0.5
    assert Work(flops=8.0, precision="bf16", of="crosscoder").seconds(SLOW) == 8 / (0.65 * 100)


def test_devices_divide_the_work() -> None:
    work = Work(flops=80.0, moved=1.0, calls=3)
    assert work.seconds(SLOW, devices=4) == work.seconds(SLOW) / 4


def test_the_kind_follows_the_studys_device(study: Study) -> None:
    assert hardware_of(study, None, 1, {}).kind.startswith("cpu")
    assert hardware_of(changed(study, lineup__device="cuda"), None, 1, {}).kind == "H200"
    assert hardware_of(study, "A100", 3, {}).devices == 3


def test_a_cpu_has_the_studys_threads_and_the_machines_memory(study: Study) -> None:
    one, four = (hardware_of(changed(study, threads=threads), "cpu", 1, {}) for threads in (1, 4))
    assert four.fp32 == 4 * one.fp32 and four.bandwidth == 4 * one.bandwidth
    assert one.memory == four.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_every_number_can_be_replaced(study: Study) -> None:
    found = hardware_of(study, "H100", 1, {"memory": 94.0, "bandwidth": 3900.0, "launch": 0.1, "model_share": 0.5})
    assert (found.memory, found.bandwidth, found.launch, found.model_share) == (94e9, 3900e9, 1e-4, 0.5)
    assert found.bf16 == hardware_of(study, "H100", 1, {}).bf16


@pytest.mark.parametrize(
    ("kind", "devices", "changes", "said"),
    [
        ("T1000", 1, {}, "--kind T1000 is not known; give one of H200, H100"),
        ("H200", 0, {}, "--gpus is 0"),
        ("cpu", 2, {}, "just 1 with --kind cpu"),
        ("H200", 1, {"memory": 0.0}, "memory=0 is not positive"),
    ],
)
def test_what_cannot_be_is_refused(study: Study, kind: str, devices: int, changes: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hardware_of(study, kind, devices, changes)
