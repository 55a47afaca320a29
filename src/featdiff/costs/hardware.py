"""What a device can do, and how long a piece of work takes on it.

seconds = max(FLOPs / (share x peak), bytes / (share x bandwidth), bytes sent / (share x link), calls x launch)

A piece of work is bound by its products, by what it reads and writes, by what devices tell each other, or by the number
of times that it is started; the others hide behind the largest. Peaks are those of data sheets, for dense matrices. The
shares are what is reached of them. On an accelerator: 65 % in the large products of a crosscoder and 40 % in a language
model, whose other operations take the rest of the time; 90 % of the bandwidth.

`cpu` is counted in cores of a server with AVX-512. The constants reproduce what one core of a Zen 5 was measured to do:
large products 210 GFLOP/s in float32 and 425 in bfloat16, a language model 55 (60 to 95 alone on one core), memory 40
GB/s, a block of a small model 0.2 ms for a single token. An older core does half of that: say so with `--hardware`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from featdiff.config.study import Study

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Hardware:
    """`devices` devices of one kind; the numbers are those of one of them."""

    kind: str
    devices: int
    bf16: float
    """Peak of matrix products in bfloat16, FLOP/s."""
    fp32: float
    """Peak of matrix products in float32, FLOP/s."""
    bandwidth: float
    """Bytes per second to and from its memory."""
    memory: float
    """Bytes."""
    link: float
    """Bytes per second that it sends to other devices."""
    launch: float = 0.4e-3
    """Seconds that a transformer block takes at least, each time that it is called."""
    model_share: float = 0.40
    """Share of the peak that a language model reaches."""
    product_share: float = 0.65
    """Share of the peak that the products of a crosscoder reach."""
    bandwidth_share: float = 0.90
    """Share of the bandwidth, and of the link, that is reached."""

    @property
    def words(self) -> str:
        """The numbers in words."""
        link = f"{self.link / 1e9:g} GB/s to others, " if self.devices > 1 else ""
        return (
            f"{self.bf16 / 1e12:g} TFLOP/s in bfloat16, {self.fp32 / 1e12:g} in float32, "
            f"{self.bandwidth / 1e9:g} GB/s, {link}{self.memory / 1e9:.0f} GB; reached: "
            f"{self.model_share:.0%} in models, {self.product_share:.0%} in the products of a crosscoder, "
            f"{self.bandwidth_share:.0%} of the bandwidth; "
            f"{self.launch * 1e3:g} ms at least per block and call"
        )


@dataclass(frozen=True)
class Work:
    """Something that a stage does, over the whole stage and all devices."""

    flops: float = 0.0
    moved: float = 0.0
    """Bytes read and written that no product hides."""
    sent: float = 0.0
    """Bytes that devices send each other."""
    calls: float = 0.0
    """Transformer blocks that are started."""
    precision: Precision = "fp32"
    of: Literal["model", "crosscoder"] = "model"

    def seconds(self, hardware: Hardware, devices: int = 1) -> float:
        """Time on `devices` devices that divide the work evenly."""
        peak = hardware.bf16 if self.precision == "bf16" else hardware.fp32
        share = hardware.model_share if self.of == "model" else hardware.product_share
        bounds = (
            self.flops / (share * peak),
            self.moved / (hardware.bandwidth_share * hardware.bandwidth),
            self.sent / (hardware.bandwidth_share * hardware.link),
            self.calls * hardware.launch,
        )
        return max(bounds) / devices


# TFLOP/s in bfloat16 and in float32, GB/s, GB, GB/s in one direction of the link
SHEETS = {
    "H200": (989.0, 67.0, 4800.0, 141.0, 450.0),
    "H100": (989.0, 67.0, 3350.0, 80.0, 450.0),
    "A100": (312.0, 19.5, 2039.0, 80.0, 300.0),
    "L40S": (362.0, 91.6, 864.0, 48.0, 32.0),
    "RTX4090": (165.0, 82.6, 1008.0, 24.0, 32.0),
}
CORE = (0.5, 0.25, 45.0)  # of one core; the machine's memory is its own
KINDS = (*SHEETS, "cpu")
UNITS = {
    "bf16": 1e12,
    "fp32": 1e12,
    "bandwidth": 1e9,
    "memory": 1e9,
    "link": 1e9,
    "launch": 1e-3,
    "model_share": 1.0,
    "product_share": 1.0,
    "bandwidth_share": 1.0,
}


def hardware_of(study: Study, kind: str | None, devices: int, changes: Mapping[str, float]) -> Hardware:
    """`devices` devices of a kind; None: `cpu` for a study on the CPU, else H200.

    `cpu` is one device with as many cores as the study has `threads` (0: as this machine has) and this machine's
    memory. `changes` replace numbers of one device: bf16 and fp32 in TFLOP/s, bandwidth and link in GB/s, memory in
    GB, launch in ms, shares between 0 and 1. ValueError for an unknown kind and for a number that is not positive.
    """
    kind = kind or ("cpu" if study.lineup.device == "cpu" else "H200")
    if kind not in KINDS:
        raise ValueError(f"--kind {kind} is not known; give one of {', '.join(KINDS)}, and --hardware for its numbers")
    if devices < 1 or (kind == "cpu" and devices > 1):
        raise ValueError(f"--gpus is {devices}; give at least 1, and just 1 with --kind cpu, which is a whole machine")
    if wrong := [f"{name}={value:g}" for name, value in changes.items() if value <= 0]:
        raise ValueError(f"--hardware {wrong[0]} is not positive; give a positive number")
    known = _machine(study.threads or os.cpu_count() or 1) if kind == "cpu" else _accelerator(kind, devices)
    return replace(known, **{name: value * UNITS[name] for name, value in changes.items()})


def gpu_is_here() -> bool:
    """Whether this machine shows an NVIDIA GPU; without torch, which takes seconds to load."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _accelerator(kind: str, devices: int) -> Hardware:
    bf16, fp32, bandwidth, memory, link = SHEETS[kind]
    return Hardware(kind, devices, bf16 * 1e12, fp32 * 1e12, bandwidth * 1e9, memory * 1e9, link * 1e9)


def _machine(cores: int) -> Hardware:
    bf16, fp32, bandwidth = (cores * number for number in CORE)
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Hardware(
        f"cpu of {cores} core{'s' if cores > 1 else ''}",
        1,
        bf16 * 1e12,
        fp32 * 1e12,
        bandwidth * 1e9,
        memory,
        link=bandwidth * 1e9,
        launch=0.2e-3,
        model_share=0.22,
        product_share=0.85,
    )
