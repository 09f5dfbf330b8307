"""What the kernels of each instruction set reach: the fixed efficiencies of the cost model (predict.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HOST_MS = 5.0  # a JPEG of 640 x 480 decoded and resized


@dataclass(frozen=True)
class Kernels:
    """Efficiencies, each of one of the machine's rates.

    many: of the int8 peak, matrices of a type met by 64 rows or more. one: of the read bandwidth, one row. float32: of
    the float32 peak, attention's values and float matrices. element: in the time of how many float32
    multiply-accumulates one element passes (a norm, a residual, GELU, softmax or the quantizer). step_s: seconds of a
    token that are neither (threads that wait for one another). i8: the tower's Q6_K is re-encoded to 8 bits.
    """

    many: Mapping[str, float]
    one: Mapping[str, float]
    float32: float
    element: float
    step_s: float
    i8: bool

    def many_of(self, dtype: str) -> float:
        """Of a storage type."""
        return self.many[LIKE.get(dtype, dtype)]

    def one_of(self, dtype: str) -> float:
        """Of a storage type."""
        return self.one[LIKE.get(dtype, dtype)]


# Types that were not measured for the model take the figures of the nearest one that was.
LIKE = {name: "Q4_K" for name in ("Q2_K", "Q3_K", "Q5_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS")}
LIKE |= {name: "Q8_0" for name in ("F32", "F16", "BF16")}  # vectors beside quantized matrices

# Fitted to `kosmos-edge bench` of the full-size KOSMOS-2, q4_k_m, on an Intel Xeon of family 6, model 207, nothing else
# running: each instruction set with one and two threads, three runs in turn, whose rates moved by up to a quarter.
# Where there are tile registers the int8 peak is theirs, eight times the vector units': efficiencies are small.
KERNELS = {
    "avx512amx": Kernels(
        many={"I8": 0.22, "Q4_K": 0.112, "Q6_K": 0.10, "Q8_0": 0.05},
        one={"Q4_K": 0.94, "Q6_K": 0.96, "Q8_0": 0.97},
        float32=0.8,
        element=20.0,
        step_s=1.0e-3,
        i8=True,
    ),
    "avx512vnni": Kernels(
        many={"I8": 0.69, "Q4_K": 0.55, "Q6_K": 0.48, "Q8_0": 0.40},
        one={"Q4_K": 0.94, "Q6_K": 0.96, "Q8_0": 0.97},
        float32=0.8,
        element=27.0,
        step_s=1.0e-3,
        i8=True,
    ),
    "avx2": Kernels(
        many={"Q4_K": 0.84, "Q6_K": 0.71, "Q8_0": 0.40},
        one={"Q4_K": 0.76, "Q6_K": 0.79, "Q8_0": 0.93},
        float32=0.8,
        element=25.0,
        step_s=1.0e-3,
        i8=False,
    ),
}
