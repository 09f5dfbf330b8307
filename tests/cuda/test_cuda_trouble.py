"""Trouble with a CUDA device, injected into the emulated one: memory refused, calls that fail, devices that are lost or
not there. A typed error, nothing leaks, no wrong answer, and the same process answers on the CPU.

Every allocation and every call of the runtime, from load to close (half an hour), instead of a selection:
KOSMOS_EDGE_EVERY_FAULT=1 pytest tests/cuda/test_cuda_trouble.py; every fifth: KOSMOS_EDGE_EVERY_FAULT=5.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.api_model import picture, png
from helpers.cuda_emulated import EmulatedDevice, lend_device, use_cuda
from helpers.tiny import TinyConfig, write_tiny

from kosmos_edge import Model, _core, load
from kosmos_edge.errors import DeviceUnavailable, InvalidRequest, KosmosError, OutOfMemory

EVERY = int(os.environ.get("KOSMOS_EDGE_EVERY_FAULT", "0"))  # 0: a selection


# Errors of CUDA's runtime.
MEMORY, OLD_DRIVER, BUSY, NO_DEVICE, NO_KERNEL, NEW_PTX, ILLEGAL_ADDRESS, LAUNCH = 2, 35, 46, 100, 209, 222, 700, 719
SMALL = TinyConfig(
    layers=1, width=256, ff_width=256, heads=4, latents=4, vision_layers=1, vision_width=64, vision_ff_width=64,
    vision_heads=2, image_size=28, context=64, max_new_tokens=16,
)  # fmt: skip

Outcome = list[int] | KosmosError


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedDevice]:
    """See lend_device."""
    yield from lend_device(use_cuda(monkeypatch))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    path = tmp_path_factory.mktemp("trouble") / "tiny.gguf"
    write_tiny(path, "Q4_K", seed=2, config=SMALL)
    return path


@pytest.fixture(scope="module")
def right(model_file: Path) -> list[list[int]]:
    """What all is answered without trouble; the device gives the processor's answers (test_cuda_emulated.py)."""
    with load(model_file, device="cpu", threads=1) as model:
        return answers(model)  # type: ignore[return-value]


def answers(model: Model) -> list[Outcome]:
    """A caption, then three side by side, two at a time: ids, or the error."""
    out: list[Outcome] = []
    try:
        out.append(model.caption(picture(1), max_tokens=5).token_ids)
    except KosmosError as error:
        out.append(error)
    for result in model.batch([picture(1), picture(2), picture(3)], max_tokens=4, batch_size=2):
        out.append(result.token_ids if result.ok else result.error)
    return out


def everything(path: Path, device: str = "cuda") -> list[Outcome]:
    """Load, answer, close; one error if it cannot be loaded."""
    try:
        model = load(path, device=device, threads=1)
    except KosmosError as error:
        return [error]
    with model:
        return answers(model)


def errors_of(outcomes: list[Outcome], right: list[list[int]]) -> list[KosmosError]:
    """The errors; everything else is the right answer, and errors are one line."""
    errors = [o for o in outcomes if isinstance(o, KosmosError)]
    assert all(isinstance(o, KosmosError) or o == want for o, want in zip(outcomes, right, strict=False))
    assert len(outcomes) == len(right) or len(outcomes) == len(errors) == 1
    assert all(str(e) and "\n" not in str(e) for e in errors)
    return errors


def check_nothing_is_left(device: EmulatedDevice) -> None:
    """All memory, streams and graphs were given back."""
    gc.collect()
    assert (device.bytes(), device.handles()) == (0, 0)


def some(count: int, number: int) -> list[int]:
    """About `number` of the first `count` numbers, or as many as are asked for; the last one is among them."""
    return sorted({*range(0, count, EVERY or max(1, count // number)), count - 1})


def test_memory_refused_at_every_allocation(device: EmulatedDevice, model_file: Path, right: list[list[int]]) -> None:
    """Whichever allocation fails: OutOfMemory for what needed it and nothing else; the model goes on afterwards."""
    assert everything(model_file) == right
    check_nothing_is_left(device)
    count, went_on = device.allocations(), 0
    assert count > 60
    for n in some(count, 9):
        device.fail_allocation(n)
        errors = errors_of(everything(model_file), right)
        assert len(errors) <= 2, "those that were computed side by side"
        went_on += not errors
        assert all(isinstance(e, OutOfMemory) and "on the device" in str(e) for e in errors)
        check_nothing_is_left(device)
    assert went_on <= count // 20, "what is kept for requests to come, which is done without"
    assert everything(model_file) == right


@pytest.mark.parametrize("error", [MEMORY, LAUNCH])
def test_a_call_that_fails_once(device: EmulatedDevice, model_file: Path, right: list[list[int]], error: int) -> None:
    """Whichever call of the runtime fails: a typed error or the right answer, never a wrong one."""
    assert everything(model_file) == right
    count, went_on = device.calls(), 0
    assert count > 600
    for n in some(count, 6):
        device.fail_call(n, error)
        errors = errors_of(everything(model_file), right)
        went_on += not errors
        # One that has no memory to say how many there are is not there.
        kinds = (OutOfMemory, DeviceUnavailable) if error == MEMORY else (DeviceUnavailable,)
        assert all(isinstance(e, kinds) for e in errors)
        check_nothing_is_left(device)
    device.fail_call(-1)
    assert went_on < count // 10, "those that make graphs, which it does without"
    assert everything(model_file) == right


def test_a_device_lost_at_any_call(device: EmulatedDevice, model_file: Path, right: list[list[int]]) -> None:
    """A reset: from some call on all fail. What was answered before is right, the rest DeviceUnavailable, and the same
    process answers on the processor, by itself where the device was not asked for by name."""
    assert everything(model_file) == right
    count = device.calls()
    for n in some(count, 6):
        device.fail_call(n, ILLEGAL_ADDRESS, loses=True)
        outcomes = everything(model_file)
        errors = errors_of(outcomes, right)
        assert all(isinstance(e, DeviceUnavailable) for e in errors)
        assert outcomes[len(outcomes) - len(errors) :] == errors, "nothing is answered after the loss"
        check_nothing_is_left(device)
        with load(model_file, threads=1) as model:
            assert model.device == "cpu"
            # what says so depends on the call that failed: the device, or the driver when it is asked for its devices
            assert model.fallback.startswith("cuda is not used: ")
            assert "an illegal memory access" in model.fallback and "\n" not in model.fallback
            assert answers(model) == right
        device.lose(0)
    device.fail_call(-1)
    assert everything(model_file) == right


def test_a_lost_device_and_models_that_are_open(
    device: EmulatedDevice, model_file: Path, right: list[list[int]]
) -> None:
    """Everybody who uses it hears of it, again and again, and can close."""
    with load(model_file, device="cuda", threads=1) as first, load(model_file, device="cuda", threads=1) as second:
        encoded = first.encode(picture(1))
        device.lose(ILLEGAL_ADDRESS)
        for model in (first, second, first):
            outcomes = answers(model)
            assert len(outcomes) == len(right)
            assert all(isinstance(o, DeviceUnavailable) and "illegal memory access" in str(o) for o in outcomes)
        with pytest.raises(DeviceUnavailable):
            first.caption(encoded)
        assert everything(model_file, "cpu") == right
    del encoded  # keys and values that are kept with it lie on the device
    check_nothing_is_left(device)


def test_a_launch_that_fails_is_told_again(device: EmulatedDevice, model_file: Path, right: list[list[int]]) -> None:
    """Launches are put off: whoever asks next must hear that some were dropped, until the model is loaded anew."""
    with load(model_file, device="cuda", threads=1) as model:
        device.architecture(90, LAUNCH)
        with pytest.raises(DeviceUnavailable, match="launch failure"):
            model.caption(picture(1), max_tokens=5)
        device.architecture(90)
        with pytest.raises(DeviceUnavailable, match="launch failure"):
            model.caption(picture(1), max_tokens=5)
    assert everything(model_file) == right
    check_nothing_is_left(device)


@pytest.mark.parametrize(
    ("capability", "kernel", "words"),
    [
        (61, 0, r"has compute capability 6.1, 7.5 or later is needed"),
        (72, NO_KERNEL, r"has compute capability 7.2"),
        (80, NO_KERNEL, r"compute capability 8.0\) cannot run this build's kernels: no kernel image is available"),
        (120, NEW_PTX, r"compute capability 12.0\) cannot run this build's kernels: the provided PTX was compiled"),
    ],
)
def test_the_wrong_architecture(
    device: EmulatedDevice, model_file: Path, right: list[list[int]], capability: int, kernel: int, words: str
) -> None:
    """Found while the model is loaded, so that device "auto" gives way."""
    device.architecture(capability, kernel)
    with pytest.raises(DeviceUnavailable, match=words):
        load(model_file, device="cuda")
    with load(model_file, threads=1) as model:
        assert model.device == "cpu"
        assert model.fallback.startswith("cuda is not used: cuda-emulated:0 (emulated on the processor")
        assert answers(model) == right
    check_nothing_is_left(device)


def test_no_device(device: EmulatedDevice, model_file: Path) -> None:
    """No driver, an old one, no card, a busy one, a number that is not there: DeviceUnavailable with the reason."""
    with pytest.raises(DeviceUnavailable, match="no device cuda:7: this machine has 1"):
        load(model_file, device="cuda:7")
    for wrong in ("cuda:", "cuda:x", "cuda:-1", "cuda:1e"):
        with pytest.raises(InvalidRequest, match="the device's number"):
            load(model_file, device=wrong)
    for error, driver, words in [
        (NO_DEVICE, 13000, "there is no NVIDIA device"),
        (0, 13000, "there is no NVIDIA device"),
        (OLD_DRIVER, 11040, "the NVIDIA driver is too old: it supports CUDA 11.4"),
        (OLD_DRIVER, 0, "no NVIDIA driver is installed"),
        (BUSY, 13000, "the NVIDIA driver reports: CUDA-capable device(s) is/are busy or unavailable"),
    ]:
        device.devices(0, error)
        device.driver(driver)
        with pytest.raises(DeviceUnavailable) as caught:
            load(model_file, device="cuda")
        assert words in str(caught.value)
        assert words in dict(_core.devices())["cuda"]
        with load(model_file) as model:
            assert (model.device, model.fallback.split(": ", 1)[0]) == ("cpu", "cuda is not used")
            assert words in model.fallback
            assert "\n" not in model.fallback


def test_auto_gives_way_to_the_processor(device: EmulatedDevice, model_file: Path) -> None:
    """Device "auto": the device where it can be used, else the processor, with the reason in a line."""
    with load(model_file) as model:
        assert (model.device, model.fallback) == ("cuda-emulated:0", "")
    device.fail_allocation(20)
    with load(model_file) as model:
        assert model.device == "cpu"
        assert model.fallback.startswith("cuda is not used: not enough memory on the device")
    device.fail_allocation(-1)
    assert _core.Engine(str(model_file), isa=_core.isa()).device == "cpu"
    check_nothing_is_left(device)


def test_the_command_says_why_in_a_line(model_file: Path, tmp_path: Path) -> None:
    """On stderr, once, with the answer on stdout as ever; a device that was asked for by name is an error."""
    broken = tmp_path / "libkosmos_edge_cuda.so"
    broken.write_bytes(b"nothing")
    environment = os.environ | {"KOSMOS_EDGE_CUDA_LIBRARY": str(broken)}
    photo = tmp_path / "photo.png"
    photo.write_bytes(png(1))

    def run(*more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "kosmos_edge", "caption", str(photo), "--model", str(model_file)]
        return subprocess.run(
            [*command, "--max-tokens", "3", *more], capture_output=True, text=True, env=environment, check=False
        )

    made = run()
    assert made.returncode == 0 and made.stdout.strip(), made.stderr
    (said,) = [line for line in made.stderr.splitlines() if "cuda" in line]
    assert "runs on the cpu: cuda is not used: the CUDA backend cannot be loaded" in said
    refused = run("--device", "cuda")
    assert refused.returncode != 0 and not refused.stdout and "cannot be loaded" in refused.stderr
