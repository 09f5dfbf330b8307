"""What the driver says of a CUDA device: `python bench/cuda/cuda_card.py [NUMBER]` prints a line of JSON.

The bandwidth is that of its memory's clock and bus, two transfers a clock: what no kernel can exceed.
"""

import ctypes
import json
import sys
from typing import Any

# CUdevice_attribute
MULTIPROCESSORS, MEMORY_CLOCK_KHZ, MEMORY_BUS_BITS, MAJOR, MINOR = 16, 36, 37, 75, 76


def bandwidth(clock_khz: int, bus_bits: int) -> float:
    """Bytes per second of double data rate memory."""
    return 2.0 * clock_khz * 1e3 * bus_bits / 8


def card(number: int = 0) -> dict[str, Any]:
    """Name, compute capability, multiprocessors, bytes of memory and bytes/s of a device; OSError if there is none."""
    driver = ctypes.CDLL("libcuda.so.1")

    def ask(name: str, *arguments: Any) -> None:
        error = getattr(driver, name)(*arguments)
        if error:
            raise OSError(f"{name}: CUDA error {error}")

    ask("cuInit", 0)
    device, version, name, memory = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    ask("cuDeviceGet", ctypes.byref(device), number)
    ask("cuDriverGetVersion", ctypes.byref(version))
    ask("cuDeviceGetName", name, len(name), device)
    ask("cuDeviceTotalMem_v2", ctypes.byref(memory), device)

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        ask("cuDeviceGetAttribute", ctypes.byref(value), which, device)
        return value.value

    return {
        "card": name.value.decode(),
        "capability": f"{attribute(MAJOR)}.{attribute(MINOR)}",
        "multiprocessors": attribute(MULTIPROCESSORS),
        "memory": memory.value,
        "bandwidth": bandwidth(attribute(MEMORY_CLOCK_KHZ), attribute(MEMORY_BUS_BITS)),
        "driver": f"CUDA {version.value // 1000}.{version.value % 1000 // 10}",
    }


if __name__ == "__main__":
    try:
        print(json.dumps(card(int(sys.argv[1]) if len(sys.argv) > 1 else 0)))
    except OSError as error:
        sys.exit(f"no card: {error}")
