// (u + delta)^(b - 1), the scale of a B-cos unit, without a call to pow where b is 1, 1.5 or 2.
#pragma once
#include "number.hpp"

namespace bcos::BCOS_ISA {

enum class Kind { one, root, identity, general };  // b = 1, 1.5, 2, other

template <class A>
struct Exponent {
  A p, delta;
  A root, at_zero, per_crossing;  // 1 / b, delta^p, delta^-b: what inverse.hpp starts from
  float high, low;                // p = high + low, and high times a binary exponent is exact

  explicit Exponent(Alignment alignment)
      : p(static_cast<A>(alignment.b - 1)), delta(alignment.b == 2 ? A(0) : static_cast<A>(alignment.delta)),
        root(static_cast<A>(1 / alignment.b)),
        at_zero(static_cast<A>(std::pow(static_cast<double>(delta), alignment.b - 1))),
        per_crossing(static_cast<A>(std::pow(static_cast<double>(delta), -alignment.b))) {
    high = float_of(bits_of(static_cast<float>(alignment.b - 1)) & 0xffff0000u);
    low = static_cast<float>(alignment.b - 1 - high);
  }
};

inline Kind kind_of(double b) {
  return b == 1 ? Kind::one : b == 1.5 ? Kind::root : b == 2 ? Kind::identity : Kind::general;
}

inline double raise(double v, const Exponent<double>& e) { return std::pow(v, e.p); }

// v^p = 2^(p log2 v) for v >= 0, within a few units in the last place. The exponent of v is kept apart from
// its mantissa, so a large logarithm costs no precision. Polynomials: Cephes logf, exp2f (S. Moshier).
inline float raise(float v, const Exponent<float>& e) {
  const bool tiny = v < std::numeric_limits<float>::min();
  const uint32_t bits = bits_of(tiny ? v * 0x1p25f : v);
  const uint32_t shifted = bits - 0x3f3504f3u;  // sqrt(1/2): the mantissa then lies in [0.707, 1.414)
  const float exponent = static_cast<float>(static_cast<int32_t>(shifted) >> 23) - (tiny ? 25.0f : 0.0f);
  const float z = float_of((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const float z2 = z * z, z4 = z2 * z2;  // pairs, not one long chain: the additions of a chain wait for each other
  const float log_low = (3.3333331174e-1f - 2.4999993993e-1f * z) + (2.0000714765e-1f - 1.6668057665e-1f * z) * z2;
  const float log_high = (1.4249322787e-1f - 1.2420140846e-1f * z) + (1.1676998740e-1f - 1.1514610310e-1f * z) * z2;
  float log = log_low + z4 * (log_high + z4 * 7.0376836292e-2f);
  log = (z - z2 * (0.5f - z * log)) * 1.44269504f;

  constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
  const float coarse = e.high * exponent;
  const float coarse_whole = (coarse + rounder) - rounder;
  const float fine = (coarse - coarse_whole) + (e.low * exponent + e.p * log);
  const float fine_whole = (fine + rounder) - rounder;
  const float f = fine - fine_whole;
  float whole = coarse_whole + fine_whole;
  whole = whole < -252.0f ? -252.0f : whole;
  whole = whole > 254.0f ? 254.0f : whole;

  const float f2 = f * f;
  const float exp2_high = (5.550332471162809e-2f + 9.618437357674640e-3f * f) +
                          (1.339887440266574e-3f + 1.535336188319500e-4f * f) * f2;
  const float exp2 = (1.0f + 6.931472028550421e-1f * f) + (2.402264791363012e-1f + f * exp2_high) * f2;
  const int32_t half = static_cast<int32_t>(whole) / 2;
  const int32_t rest = static_cast<int32_t>(whole) - half;
  const float result = exp2 * float_of(static_cast<uint32_t>(half + 127) << 23) *
                       float_of(static_cast<uint32_t>(rest + 127) << 23);
  const float positive = v < std::numeric_limits<float>::infinity() ? result : v;  // inf and NaN pass through
  return v == 0.0f ? 0.0f : positive;
}

template <Kind kind, class A>
inline A power(A v, const Exponent<A>& e) {
  if constexpr (kind == Kind::one) return A(1);
  if constexpr (kind == Kind::root) return std::sqrt(v);
  if constexpr (kind == Kind::identity) return v;
  if constexpr (kind == Kind::general) return raise(v, e);
}

// |cos| of the angle between input and weight; a zero input has none. The inverse of the norm is shared by the
// channels of a pixel, so that each costs a product and not a division.
template <class A>
inline A cosine(A y, A inverse_norm) {
  const A magnitude = std::fabs(y);
  return magnitude == A(0) ? A(0) : magnitude * inverse_norm;
}

// Calls body(std::integral_constant-like tag) with the kind known at compile time.
template <Kind k>
struct KindTag {
  static constexpr Kind value = k;
};

template <class Body>
void with_kind(double b, const Body& body) {
  switch (kind_of(b)) {
    case Kind::one:
      return body(KindTag<Kind::one>{});
    case Kind::root:
      return body(KindTag<Kind::root>{});
    case Kind::identity:
      return body(KindTag<Kind::identity>{});
    case Kind::general:
      return body(KindTag<Kind::general>{});
  }
}

}  // namespace bcos::BCOS_ISA
