// The B-cos scale of a linear response y = gain (w·x), its factor applied to something else, and its derivatives,
// each in one pass. The gain is 1/‖w‖, or 1.
//
// A backward pass starts from what the forward pass kept: the response w·x or, for b = 2, the output itself, which
// the next layer keeps anyway: |y| = sqrt(|out| n), so |cos| = sqrt(|out| / n).
#pragma once
#include <memory>

#include "power.hpp"
#include "traverse.hpp"

namespace bcos::BCOS_ISA {

template <class A>
void invert(const A* norms, A* inverses, int64_t length) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) inverses[i] = 1 / norms[i];
}

// 1/‖w‖ per unit from the lengths; 1 for a unit without length, and where there are no lengths.
template <class A>
std::unique_ptr<A[]> gains_of(const A* lengths, int64_t units) {
  std::unique_ptr<A[]> gains(new A[static_cast<size_t>(units)]);
  for (int64_t i = 0; i < units; ++i) gains[i] = lengths && lengths[i] != A(0) ? 1 / lengths[i] : A(1);
  return gains;
}

template <class T, Kind kind>
struct Scale {  // out = y |cos|^(b-1)
  Exponent<accumulator_t<T>> e;
  void operator()(T w_x, T, accumulator_t<T> inverse, accumulator_t<T> gain, T& out) const {
    const auto y = widen(w_x) * gain;
    narrow(y * power<kind>(cosine(y, inverse) + e.delta, e), out);
  }
};

template <class T, Kind kind>
struct ApplyFactor {  // out = gain v |cos|^(b-1), |cos| from what was kept
  Exponent<accumulator_t<T>> e;
  void operator()(T v, T kept, accumulator_t<T> inverse, accumulator_t<T> gain, T& out) const {
    if constexpr (kind == Kind::identity) {
      narrow(widen(v) * gain * std::sqrt(cosine(widen(kept), inverse)), out);
    } else {
      narrow(widen(v) * gain * power<kind>(cosine(widen(kept) * gain, inverse) + e.delta, e), out);
    }
  }
};

template <class T, Kind kind>
struct Differentiate {  // the gradient of w·x; returns the share of -c n² / (b-1)
  Exponent<accumulator_t<T>> e;
  accumulator_t<T> operator()(T grad, T kept, accumulator_t<T> inverse, accumulator_t<T> gain, T& grad_y) const {
    using A = accumulator_t<T>;
    if constexpr (kind == Kind::identity) {
      narrow(2 * widen(grad) * gain * std::sqrt(cosine(widen(kept), inverse)), grad_y);
      return widen(grad) * widen(kept);
    } else {
      const A y = widen(kept) * gain;
      const A u = cosine(y, inverse);
      const A v = u + e.delta;
      const A ratio = kind == Kind::one ? A(1) : (v == A(0) ? A(0) : u / v);
      const A scaled = widen(grad) * power<kind>(v, e);
      narrow(scaled * gain * (A(1) + e.p * ratio), grad_y);
      return scaled * y * ratio;
    }
  }
};

// out = one(v, kept) for every unit.
template <class T, class One>
void each_unit(Extent e, Image out, Image v, Image kept, const accumulator_t<T>* norms,
               const accumulator_t<T>* gains, const One& one, int threads) {
  merge_rows(e, out, v, kept);
  const int64_t channels = e.c / e.groups;
  if (channelwise_is_better(e, out, v, kept)) {
    return channelwise(e, threads, [&](int64_t n, int64_t row, int64_t w) {
      for (int64_t g = 0; g < e.groups; ++g) {
        const T* value = at<const T>(v, n, g * channels, row, w);
        const T* from = at<const T>(kept, n, g * channels, row, w);
        T* to = at<T>(out, n, g * channels, row, w);
        const auto* gain = gains + g * channels;
        const auto inverse = 1 / norms[factor_at(e, n, g, row, w)];
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) one(value[c], from[c], inverse, gain[c], to[c]);
      }
    });
  }
  const bool adjoin = pixels_adjoin(out, v, kept);
  planar(e, threads, [&](int64_t n, int64_t g, int64_t row, int64_t w, int64_t length) {
    accumulator_t<T> inverses[longest_run];
    invert(norms + factor_at(e, n, g, row, w), inverses, length);
    for (int64_t c = g * channels; c < (g + 1) * channels; ++c) {
      const T *value = at<const T>(v, n, c, row, w), *from = at<const T>(kept, n, c, row, w);
      T* to = at<T>(out, n, c, row, w);
      const auto gain = gains[c];
      if (adjoin) {
#pragma omp simd
        for (int64_t i = 0; i < length; ++i) one(value[i], from[i], inverses[i], gain, to[i]);
      } else {
        for (int64_t i = 0; i < length; ++i) one(value[i * v.w], from[i * kept.w], inverses[i], gain, to[i * out.w]);
      }
    }
  });
}

template <class A>
inline A coefficient(A sum, A inverse, A p) {
  return sum == A(0) ? A(0) : -p * (sum * inverse) * inverse;
}

// The same with a sum over the units of each group, of which the coefficients are made.
template <class T, class One>
void each_unit_summed(Extent e, Image grad_y, Image grad, Image kept, const accumulator_t<T>* norms,
                      const accumulator_t<T>* gains, accumulator_t<T>* coefficients, const One& one, int threads) {
  using A = accumulator_t<T>;
  merge_rows(e, grad_y, grad, kept);
  const int64_t channels = e.c / e.groups;
  if (channelwise_is_better(e, grad_y, grad, kept)) {
    return channelwise(e, threads, [&](int64_t n, int64_t row, int64_t w) {
      for (int64_t g = 0; g < e.groups; ++g) {
        const T* upstream = at<const T>(grad, n, g * channels, row, w);
        const T* from = at<const T>(kept, n, g * channels, row, w);
        T* to = at<T>(grad_y, n, g * channels, row, w);
        const A* gain = gains + g * channels;
        const int64_t index = factor_at(e, n, g, row, w);
        const A inverse = 1 / norms[index];
        const A sum =
            sum_of<A>(channels, [&](int64_t c) { return one(upstream[c], from[c], inverse, gain[c], to[c]); });
        coefficients[index] = coefficient(sum, inverse, one.e.p);
      }
    });
  }
  const bool adjoin = pixels_adjoin(grad_y, grad, kept);
  planar(e, threads, [&](int64_t n, int64_t g, int64_t row, int64_t w, int64_t length) {
    A inverses[longest_run];
    invert(norms + factor_at(e, n, g, row, w), inverses, length);
    A* sums = coefficients + factor_at(e, n, g, row, w);
    for (int64_t i = 0; i < length; ++i) sums[i] = 0;
    for (int64_t c = g * channels; c < (g + 1) * channels; ++c) {
      const T *upstream = at<const T>(grad, n, c, row, w), *from = at<const T>(kept, n, c, row, w);
      T* to = at<T>(grad_y, n, c, row, w);
      const A gain = gains[c];
      if (adjoin) {
#pragma omp simd
        for (int64_t i = 0; i < length; ++i) sums[i] += one(upstream[i], from[i], inverses[i], gain, to[i]);
      } else {
        for (int64_t i = 0; i < length; ++i) {
          sums[i] += one(upstream[i * grad.w], from[i * kept.w], inverses[i], gain, to[i * grad_y.w]);
        }
      }
    }
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) sums[i] = coefficient(sums[i], inverses[i], one.e.p);
  });
}

inline void scale(Dtype dtype, Extent e, Image out, Image w_x, const void* norms, const void* lengths,
                  Alignment alignment, int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = accumulator_t<T>;
    const auto gains = gains_of(static_cast<const A*>(lengths), e.c);
    with_kind(alignment.b, [&](auto kind) {
      const Scale<T, decltype(kind)::value> one{Exponent<A>(alignment)};
      each_unit<T>(e, out, w_x, w_x, static_cast<const A*>(norms), gains.get(), one, threads);
    });
  });
}

inline void apply_factor(Dtype dtype, Extent e, Image out, Image v, Image kept, const void* norms,
                         const void* lengths, Alignment alignment, int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = accumulator_t<T>;
    const auto gains = gains_of(static_cast<const A*>(lengths), e.c);
    with_kind(alignment.b, [&](auto kind) {
      const ApplyFactor<T, decltype(kind)::value> one{Exponent<A>(alignment)};
      each_unit<T>(e, out, v, kept, static_cast<const A*>(norms), gains.get(), one, threads);
    });
  });
}

inline void scale_backward(Dtype dtype, Extent e, Image grad_y, Image grad, Image kept, const void* norms,
                           const void* lengths, void* coefficients, Alignment alignment, int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = accumulator_t<T>;
    const auto gains = gains_of(static_cast<const A*>(lengths), e.c);
    with_kind(alignment.b, [&](auto kind) {
      const Differentiate<T, decltype(kind)::value> one{Exponent<A>(alignment)};
      each_unit_summed<T>(e, grad_y, grad, kept, static_cast<const A*>(norms), gains.get(),
                          static_cast<A*>(coefficients), one, threads);
    });
  });
}

}  // namespace bcos::BCOS_ISA
