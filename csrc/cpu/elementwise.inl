// Row operations: exponential, activations, normalisations, additions. One text for every instruction set.
#pragma once
#include "cpu/unit.inl"

namespace ke::cpu::KE_ISA {
namespace {

// e^x, relative error below 2e-7; 0 below -87.3 (no subnormal results), clamped at 88.
// x = n ln 2 + r, e^x = 2^n e^r; e^r is a minimax polynomial of degree 6 on |r| <= ln(2) / 2 (relative error 2e-9).
inline f32x16 exp(f32x16 x) {
  const f32x16 magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const f32x16 z = max(set1(-87.3f), min(set1(88.0f), x));  // this order lets NaN through
  const f32x16 t = fma(z, set1(1.44269504088896f), magic);
  const f32x16 n = sub(t, magic);
  f32x16 r = fma(n, set1(-0.693359375f), z);  // ln 2 in two parts; the first has 9 bits, so n times it is exact
  r = fma(n, set1(2.12194440054690e-4f), r);
  f32x16 p = set1(1.3836737974057e-3f);
  p = fma(p, r, set1(8.3748983408685e-3f));
  p = fma(p, r, set1(4.1668231874036e-2f));
  p = fma(p, r, set1(1.6666419190680e-1f));
  p = fma(p, r, set1(4.9999992031996e-1f));
  p = fma(p, r, set1(1.0000000365390f));
  p = fma(p, r, set1(1.0000000005586f));
  const f32x16 y = floats_of_bits(add(bits_of(p), shift_left<23>(bits_of(t))));
  return select_less(x, set1(-87.3f), zero(), y);
}

// x / 2 * (1 + erf(x / sqrt 2)) = x / 2 * (x < 0 ? e : 2 - e), e = erfc(|x| / sqrt 2); absolute error below 2e-7 |x|.
// ln erfc(z) / z on 0 <= z <= 5.4 is a polynomial of degree 9 (erfc is off by at most 9e-8); beyond, erfc < 3e-14.
inline f32x16 gelu_erf(f32x16 x) {
  const f32x16 z = min(set1(5.4f), mul(abs(x), set1(0.70710678118655f)));
  f32x16 p = set1(-2.796828036959e-7f);
  p = fma(p, z, set1(7.09528517614768e-6f));
  p = fma(p, z, set1(-7.52248738437881e-5f));
  p = fma(p, z, set1(4.20005372581603e-4f));
  p = fma(p, z, set1(-1.15045365388436e-3f));
  p = fma(p, z, set1(-5.2340748886853e-4f));
  p = fma(p, z, set1(1.9653656951818e-2f));
  p = fma(p, z, set1(-1.02970536129986e-1f));
  p = fma(p, z, set1(-6.36585308098536e-1f));
  p = fma(p, z, set1(-1.12838112440037f));
  const f32x16 e = exp(mul(p, z));
  return mul(mul(x, set1(0.5f)), select_less(x, zero(), e, sub(set1(2.0f), e)));
}

// x * sigmoid(1.702 x)
inline f32x16 quick_gelu(f32x16 x) { return div(x, add(set1(1.0f), exp(mul(x, set1(-1.702f))))); }

// x / 2 * (1 + tanh(u)) = x * sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3); absolute error below 3e-7 |x|.
inline f32x16 gelu_tanh(f32x16 x) {
  const f32x16 minus_2u = mul(mul(x, set1(-1.5957691216057f)), fma(mul(x, x), set1(0.044715f), set1(1.0f)));
  return div(x, add(set1(1.0f), exp(minus_2u)));
}

// x * sigmoid(x)
inline f32x16 silu(f32x16 x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

inline f32x16 activate(f32x16 x, Act act) {
  switch (act) {
    case Act::GeluErf:
      return gelu_erf(x);
    case Act::QuickGelu:
      return quick_gelu(x);
    case Act::Relu:
      return max(zero(), x);  // this order lets NaN through
    case Act::GeluTanh:
      return gelu_tanh(x);
    case Act::Silu:
      return silu(x);
    default:
      return x;
  }
}

// Sums n values of f(16 values at p) in 4 x 16 partial sums, so that each is n / 64 long.
template <class F>
inline float reduce(const float* p, int64_t n, F f) {
  f32x16 s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    s0 = add(s0, f(load(p + i)));
    s1 = add(s1, f(load(p + i + 16)));
    s2 = add(s2, f(load(p + i + 32)));
    s3 = add(s3, f(load(p + i + 48)));
  }
  for (; i + 16 <= n; i += 16) s0 = add(s0, f(load(p + i)));
  float tail = 0;
  if (i < n) {
    alignas(64) float rest[16];
    store(rest, f(load_n(p + i, static_cast<int>(n - i))));
    for (int64_t j = 0; j < n - i; ++j) tail += rest[j];
  }
  return sum(add(add(s0, s1), add(s2, s3))) + tail;
}

// Applies f(16 values, offset) and stores to y, whole vectors first.
template <class F>
inline void map(const float* x, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, f(load(x + i), i, 16));
  if (i < n)
    store_n(y + i, f(load_n(x + i, static_cast<int>(n - i)), i, static_cast<int>(n - i)), static_cast<int>(n - i));
}

// acc -> y for `count` outputs of one row (count < 16 in a matrix's last panel).
inline void finish(const Epilogue& e, f32x16 acc, int64_t row, int64_t output, int count) {
  if (e.bias) acc = add(acc, load(e.bias + output));  // padded to whole panels
  acc = activate(acc, e.act);
  float* y = e.y + row * e.y_stride + output;
  if (count == 16) {
    if (e.residual) acc = add(acc, load(e.residual + row * e.residual_stride + output));
    store(y, acc);
  } else {
    if (e.residual) acc = add(acc, load_n(e.residual + row * e.residual_stride + output, count));
    store_n(y, acc, count);
  }
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
