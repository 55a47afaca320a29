"""What a device can do: peaks of its data sheet, the shares of them that are reached, and seconds of a call.

The numbers of all kinds are in `devices.json`; those that `featdiff plan --calibrate` measured on this machine go over
them. `cpu` is counted in cores: the defaults are those of one core of a Zen 5.
"""

import json
import os
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path

from featdiff.config.study import Study

Numbers = dict[str, float]


@dataclass(frozen=True)
class Hardware:
    """`devices` devices of one kind; the numbers are those of one of them, in FLOP/s, bytes and seconds."""

    kind: str
    devices: int
    bf16: float
    """Peak of matrix products in bfloat16."""
    fp32: float
    bandwidth: float
    memory: float
    link: float  # bytes per second that it sends to other devices
    model_share: float  # share of the peak that a language model reaches
    product_share: float  # share of the peak that the products of a crosscoder reach
    call: float  # seconds that a transformer block takes at least, each time that it is called
    disk: float  # bytes per second
    calibrated: bool = False  # whether numbers were measured on this machine

    @property
    def on_gpu(self) -> bool:
        """Whether the device is an accelerator."""
        return not self.kind.startswith("cpu")

    @property
    def words(self) -> str:
        """The numbers in words."""
        measured = "measured here" if self.calibrated else "not measured here (featdiff plan --calibrate)"
        return (
            f"{self.bf16 / 1e12:.3g} TFLOP/s in bfloat16, {self.fp32 / 1e12:.3g} in float32, {self.bandwidth / 1e9:.0f}"
            f" GB/s, {self.memory / 1e9:.0f} GB; reached: {self.model_share:.0%} in models, {self.product_share:.0%} in"
            f" the products of a crosscoder; {measured}"
        )


def kinds() -> tuple[str, ...]:
    """Names of the kinds of devices whose numbers are known."""
    return tuple(kind for kind in _packaged() if kind != "any")


def hardware_of(study: Study, kind: str | None, devices: int) -> Hardware:
    """`devices` devices of a kind; None: `cpu`, this machine, for a study on the CPU, else H200.

    ValueError for an unknown kind, a number of devices that cannot be, and a calibration that cannot be read.
    """
    kind = kind or ("cpu" if study.lineup.device == "cpu" else "H200")
    if kind not in kinds():
        raise ValueError(f"--kind {kind} is not known; give one of {', '.join(kinds())}")
    if devices < 1 or (kind == "cpu" and devices > 1):
        raise ValueError(f"--gpus is {devices}; give at least 1, and just 1 with --kind cpu, which is a whole machine")
    measured = calibration().get(kind, {})
    machine = {"memory": float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))}
    numbers = machine | _packaged()["any"] | _packaged()[kind] | measured
    one = Hardware(kind=kind, devices=devices, **numbers, calibrated=bool(measured))
    cores = study.threads or os.cpu_count() or 1
    rates = {name: cores * getattr(one, name) for name in ("bf16", "fp32", "bandwidth", "link")}
    return one if one.on_gpu else replace(one, kind=f"cpu of {cores} core{'s' if cores > 1 else ''}", **rates)


def gpu_is_here() -> bool:
    """Whether this machine shows an NVIDIA GPU; without torch, which takes seconds to load."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def calibration_file() -> Path:
    """Where this machine's measurements are: FEATDIFF_CALIBRATION, else the user's cache."""
    return Path(os.environ.get("FEATDIFF_CALIBRATION") or Path.home() / ".cache" / "featdiff" / "calibration.json")


def calibration() -> dict[str, Numbers]:
    """Numbers that were measured on this machine, by kind of device. ValueError where their file is broken."""
    file, known = calibration_file(), {field.name for field in fields(Hardware) if field.type is float}
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        numbers = {kind: {name: float(number) for name, number in of.items()} for kind, of in found.items()}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{file} is no table of numbers; measure again: featdiff plan --calibrate") from None
    if any(name not in known or number <= 0 for of in numbers.values() for name, number in of.items()):
        raise ValueError(f"{file} has unknown or no positive numbers; measure again: featdiff plan --calibrate")
    return numbers


def _packaged() -> dict[str, Numbers]:
    return json.loads((files("featdiff.costs") / "devices.json").read_text(encoding="utf-8"))
