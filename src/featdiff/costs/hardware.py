"""What a device can do: numbers of its data sheet, the shares of them that are reached, and seconds that every call,
step, model and request takes at least.

The numbers of all kinds are in `devices.json`; those that `featdiff plan --calibrate` measured on this machine go over
them. A share is what is reached of the peak of dense products in a language model (the rest of the time its other
operations take) or in a crosscoder. `cpu` is counted in cores: the defaults are those of one core of a Zen 5, whose
large products reach 210 GFLOP/s in float32, and a language model 55.
"""

import json
import os
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path

from featdiff.config.study import Study

CALIBRATION = "FEATDIFF_CALIBRATION"
Numbers = dict[str, float]


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
    fresh: float
    """Bytes per second that elementwise operations write into new tensors."""
    memory: float
    """Bytes."""
    link: float
    """Bytes per second that it sends to other devices."""
    model_share: float
    """Share of the peak that a language model reaches."""
    product_share: float
    """Share of the peak that the products of a crosscoder reach."""
    bandwidth_share: float
    """Share of the bandwidth, and of the link, that is reached."""
    call: float
    """Seconds that a transformer block takes at least, each time that it is called."""
    step: float
    """Seconds that a training step of a crosscoder takes beyond its products and its memory traffic."""
    load: float
    """Seconds to load a model, beyond reading its weights."""
    row: float
    """Seconds to build and tokenise one request of a task: a prompt with one of its choices."""
    disk: float
    """Bytes per second to and from the disk."""
    calibrated: bool = False
    """Whether numbers were measured on this machine."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is an accelerator."""
        return not self.kind.startswith("cpu")

    @property
    def words(self) -> str:
        """The numbers in words."""
        link = f"{self.link / 1e9:g} GB/s to others, " if self.devices > 1 else ""
        return (
            f"{self.bf16 / 1e12:.3g} TFLOP/s in bfloat16, {self.fp32 / 1e12:.3g} in float32, "
            f"{self.bandwidth / 1e9:.0f} GB/s, {link}{self.memory / 1e9:.0f} GB; reached: {self.model_share:.0%} in "
            f"models, {self.product_share:.0%} in the products of a crosscoder; "
            f"{'measured here' if self.calibrated else 'not measured here (featdiff plan --calibrate)'}"
        )


PER_CORE = ("bf16", "fp32", "bandwidth", "fresh", "link")


def kinds() -> tuple[str, ...]:
    """Names of the kinds of devices whose numbers are known."""
    return tuple(kind for kind in _packaged() if kind != "any")


def hardware_of(study: Study, kind: str | None, devices: int) -> Hardware:
    """`devices` devices of a kind; None: `cpu` for a study on the CPU, else H200.

    `cpu` is one device with as many cores as the study has `threads` (0: as this machine has) and this machine's
    memory. ValueError for an unknown kind, a number of devices that cannot be, and a calibration that cannot be read.
    """
    kind = kind or ("cpu" if study.lineup.device == "cpu" else "H200")
    known, measured = _packaged(), calibration().get(kind, {})
    if kind not in kinds():
        raise ValueError(f"--kind {kind} is not known; give one of {', '.join(kinds())}")
    if devices < 1 or (kind == "cpu" and devices > 1):
        raise ValueError(f"--gpus is {devices}; give at least 1, and just 1 with --kind cpu, which is a whole machine")
    machine = {"memory": float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))} if kind == "cpu" else {}
    numbers = known["any"] | machine | known[kind] | measured
    one = Hardware(kind=kind, devices=devices, **numbers, calibrated=bool(measured))
    cores = study.threads or os.cpu_count() or 1
    return _with_cores(one, cores) if kind == "cpu" else one


def gpu_is_here() -> bool:
    """Whether this machine shows an NVIDIA GPU; without torch, which takes seconds to load."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def calibration_file() -> Path:
    """Where this machine's measurements are: FEATDIFF_CALIBRATION, else the user's cache."""
    return Path(os.environ.get(CALIBRATION) or Path.home() / ".cache" / "featdiff" / "calibration.json")


def calibration() -> dict[str, Numbers]:
    """Numbers that were measured on this machine, by kind of device; empty where there are none."""
    file = calibration_file()
    return _numbers(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else {}


def _packaged() -> dict[str, Numbers]:
    return _numbers((files("featdiff.costs") / "devices.json").read_text(encoding="utf-8"), "devices.json")


def _numbers(text: str, where: str) -> dict[str, Numbers]:
    known = {field.name for field in fields(Hardware) if field.type is float}
    try:
        found = {kind: {name: float(number) for name, number in of.items()} for kind, of in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{where} is no table of numbers; measure again: featdiff plan --calibrate") from None
    for kind, of in found.items():
        if wrong := [f"{kind}.{name}={number:g}" for name, number in of.items() if name not in known or number <= 0]:
            raise ValueError(
                f"{where}: {wrong[0]} is unknown or not positive; measure again: featdiff plan --calibrate"
            )
    return found


def _with_cores(one: Hardware, cores: int) -> Hardware:
    return replace(
        one,
        kind=f"cpu of {cores} core{'s' if cores > 1 else ''}",
        **{name: cores * getattr(one, name) for name in PER_CORE},
    )
