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
