// The factor of a B-cos unit, (u + delta)^(b - 1) with u = |cos|, and what its derivative needs.
#pragma once
#include <cmath>

#include "number.cuh"

namespace bcos::cuda {

enum class Kind { one, root, identity, general };  // b = 1, 1.5, 2, other

template <class A>
struct Power {
  Kind kind;
  A exponent, delta;

  explicit Power(Alignment alignment)
      : kind(alignment.b == 1     ? Kind::one
             : alignment.b == 1.5 ? Kind::root
             : alignment.b == 2   ? Kind::identity
                                  : Kind::general),
        exponent(static_cast<A>(alignment.b - 1)),
        delta(alignment.b == 2 ? A(0) : static_cast<A>(alignment.delta)) {}

  // All threads take the same branch.
  __device__ A operator()(A v) const {
    if (kind == Kind::one) return A(1);
    if (kind == Kind::root) return std::sqrt(v);
    if (kind == Kind::identity) return v;
    return std::pow(v, exponent);
  }
};

// The same from an output, out = y (u + delta)^p: with t = |out| / n = u (u + delta)^p, v = u + delta solves
// (v - delta) v^p = t. See `aligned` in bcos_kernels/ops/epilogue/reference.py.
template <class A>
struct Aligned {
  Power<A> power;
  A root, at_zero;

  explicit Aligned(Alignment alignment)
      : power(alignment), root(static_cast<A>(1 / alignment.b)),
        at_zero(static_cast<A>(std::pow(static_cast<double>(power.delta), alignment.b - 1))) {}

  // v^p; ratio: u / v.
  __device__ A operator()(A t, A& ratio) const {
    constexpr int steps = sizeof(A) == sizeof(float) ? 2 : 4;
    const A p = power.exponent, delta = power.delta;
    ratio = A(1);
    if (power.kind == Kind::one) return A(1);
    if (power.kind == Kind::identity) return std::sqrt(t);
    if (t == A(0)) {
      ratio = A(0);
      return at_zero;
    }
    const A first = std::pow(t, root), base = first > delta ? first : delta;
    const A share = delta / base, small = delta == A(0) ? share : t / (at_zero * delta), r = small < share ? small : share;
    A v = base * (1 + r / (1 + p * (1 - share + A(0.55) * r))), s = v, change = v;
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      s = power(v);
      const A u = v - delta, inverse = 1 / (v + p * u), off = (u - t / s) * inverse;
      change = -off * (1 + off * p * (v + A(0.5) * (p - 1) * u) * inverse);
      v *= 1 + change;
    }
    s *= 1 + p * change * (1 + A(0.5) * (p - 1) * change);  // follows the last step by its series
    ratio = t / (s * v);
    return s;
  }
};

// 1 / length; 1 for a length of 0, where the response is 0 too.
template <class A>
__device__ inline A inverse_of(A length) {
  return length == A(0) ? A(1) : A(1) / length;
}

// 1 / ‖w‖ of a unit; 1 where responses are not divided by lengths.
template <class A>
__device__ inline A gain_of(const A* lengths, int64_t unit) {
  return lengths == nullptr ? A(1) : inverse_of(lengths[unit]);
}

}  // namespace bcos::cuda
