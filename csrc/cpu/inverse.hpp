// The factor of a unit from its output, which the next layer keeps anyway: out = y (u + delta)^p with u = |y| / n, so
// t = |out| / n = u (u + delta)^p determines u. For b = 2, u = sqrt(t); else v = u + delta solves (v - delta) v^p = t.
#pragma once
#include "power.hpp"
#include "traverse.hpp"

namespace bcos::BCOS_ISA {

// t^(1/b) to start from: within 1% in float, by parabolas in place of logarithm and power.
inline float rough_root(float t, const Exponent<float>& e) {
  constexpr float bend = 0.3444f;  // log2(1 + m) is about m + bend m (1 - m)
  const bool tiny = t < std::numeric_limits<float>::min();
  const uint32_t bits = bits_of(tiny ? t * 0x1p25f : t);
  const float m = float_of((bits & 0x007fffffu) | 0x3f800000u) - 1.0f;
  const float whole = static_cast<float>(static_cast<int32_t>(bits >> 23)) - (tiny ? 152.0f : 127.0f);
  const float raised = (whole + m + bend * m * (1.0f - m)) * e.root + 127.0f;
  const float log = raised < 1.0f ? 1.0f : raised;  // what is no normal number
  const float f = log - static_cast<float>(static_cast<int32_t>(log));
  return float_of(static_cast<uint32_t>(static_cast<int32_t>((log - bend * f * (1.0f - f)) * 0x1p23f)));
}

inline double rough_root(double t, const Exponent<double>& e) { return std::pow(t, e.root); }

// v lies between max(t^(1/b), delta) and delta more; this is within 3% of it. NaN and infinity become NaN later on.
template <class A>
inline A start(A t, const Exponent<A>& e) {
  const A root = rough_root(t, e);
  const A base = root > e.delta ? root : e.delta;
  const A share = e.delta / base, small = t * e.per_crossing;
  const A r = small < share ? small : share;
  return base * (1 + r / (1 + e.p * (1 - share + A(0.55) * r)));
}

// Chebyshev's step, by which share of itself v changes: what it leaves of an error is of third order.
template <class A>
inline A step(A t, A v, A s, const Exponent<A>& e) {
  const A u = v - e.delta, inverse = 1 / (v + e.p * u);
  const A off = (u - t / s) * inverse;
  return -off * (1 + off * e.p * (v + A(0.5) * (e.p - 1) * u) * inverse);
}

// use(begin, end, s_at, ratio_at) for stretches of `length` units, of which t_at(i) is known: s = v^p, ratio = u / v,
// by two functions, because a structure of both would not vectorise. A solution is a long chain of operations that wait for
// each other, so each part of it is done for a whole stretch.
template <Kind kind, class A, class TAt, class Use>
void with_aligned(int64_t length, const Exponent<A>& e, const TAt& t_at, const Use& use) {
  const auto always_one = [](int64_t) { return A(1); };
  if constexpr (kind == Kind::one) {
    use(int64_t{0}, length, always_one, always_one);
  } else if constexpr (kind == Kind::identity) {
    use(int64_t{0}, length, [&](int64_t i) { return std::sqrt(t_at(i)); }, always_one);
  } else {
    constexpr int64_t stretch = 128;
    constexpr int steps = sizeof(A) == sizeof(float) ? 2 : 4;
    const A at_zero = e.at_zero;
    A t[stretch], v[stretch], s[stretch], change[stretch], ratio[stretch];
    for (int64_t begin = 0; begin < length; begin += stretch) {
      const int64_t count = smaller(stretch, length - begin);
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {
        t[i] = t_at(begin + i);
        v[i] = start(t[i], e);
      }
      for (int round = 0; round < steps; ++round) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) s[i] = power<kind>(v[i], e);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
          change[i] = step(t[i], v[i], s[i], e);
          v[i] *= 1 + change[i];
        }
      }
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {  // v^p follows the last step by its series
        const bool zero = t[i] == A(0);
        const A last = s[i] * (1 + e.p * change[i] * (1 + A(0.5) * (e.p - 1) * change[i]));
        const A share = t[i] / (last * v[i]);  // before the selections: loads and divisions under a condition
        ratio[i] = zero ? A(0) : share;        // would keep the loop from vectorising
        s[i] = zero ? at_zero : last;
      }
      use(begin, begin + count, [&](int64_t i) { return s[i - begin]; }, [&](int64_t i) { return ratio[i - begin]; });
    }
  }
}

}  // namespace bcos::BCOS_ISA
