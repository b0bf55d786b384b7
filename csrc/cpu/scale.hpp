// The B-cos factor s = (|y|/n + delta)^(b-1) applied to v, which is y itself in a forward pass, and the derivatives
// of s y in one pass.
#pragma once
#include "power.hpp"
#include "traverse.hpp"

namespace bcos::BCOS_ISA {

template <class A>
void invert(const A* norms, A* inverses, int64_t length) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) inverses[i] = 1 / norms[i];
}

template <class T, Kind kind>
inline void apply_one(T v, T y, accumulator_t<T> inverse, const Exponent<accumulator_t<T>>& e, T& out) {
  narrow(widen(v) * power<kind>(cosine(widen(y), inverse) + e.delta, e), out);
}

template <class T, Kind kind, bool adjoin>
void apply_run(const T* v, int64_t v_step, const T* y, int64_t y_step, T* out, int64_t out_step,
               const accumulator_t<T>* inverses, int64_t length, const Exponent<accumulator_t<T>>& e) {
  const int64_t a = adjoin ? 1 : v_step, b = adjoin ? 1 : y_step, to = adjoin ? 1 : out_step;
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) apply_one<T, kind>(v[i * a], y[i * b], inverses[i], e, out[i * to]);
}

template <class T, Kind kind>
void apply_factor_of(Extent e, Image out, Image v, Image y, const accumulator_t<T>* norms, Alignment alignment,
                     int threads) {
  const Exponent<accumulator_t<T>> exponent(alignment);
  merge_rows(e, out, v, y);
  const int64_t channels = e.c / e.groups;
  if (channelwise_is_better(e, out, v, y)) {
    return channelwise(e, threads, [&](int64_t n, int64_t row, int64_t w) {
      for (int64_t g = 0; g < e.groups; ++g) {
        const T* value = at<const T>(v, n, g * channels, row, w);
        const T* from = at<const T>(y, n, g * channels, row, w);
        T* to = at<T>(out, n, g * channels, row, w);
        const auto inverse = 1 / norms[factor_at(e, n, g, row, w)];
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) apply_one<T, kind>(value[c], from[c], inverse, exponent, to[c]);
      }
    });
  }
  const bool adjoin = pixels_adjoin(out, v, y);
  planar(e, threads, [&](int64_t n, int64_t g, int64_t row, int64_t w, int64_t length) {
    accumulator_t<T> inverses[longest_run];
    invert(norms + factor_at(e, n, g, row, w), inverses, length);
    for (int64_t c = g * channels; c < (g + 1) * channels; ++c) {
      const T *value = at<const T>(v, n, c, row, w), *from = at<const T>(y, n, c, row, w);
      T* to = at<T>(out, n, c, row, w);
      if (adjoin) {
        apply_run<T, kind, true>(value, 1, from, 1, to, 1, inverses, length, exponent);
      } else {
        apply_run<T, kind, false>(value, v.w, from, y.w, to, out.w, inverses, length, exponent);
      }
    }
  });
}

// Writes the gradient of one y and returns its share of -c n² / (b-1).
template <class T, Kind kind>
inline accumulator_t<T> backward_one(T grad, T y, accumulator_t<T> inverse, const Exponent<accumulator_t<T>>& e,
                                     T& grad_y) {
  using A = accumulator_t<T>;
  const A wide = widen(y);
  const A u = cosine(wide, inverse);
  const A v = u + e.delta;
  const A ratio = kind == Kind::identity || kind == Kind::one ? A(1) : (v == A(0) ? A(0) : u / v);
  const A scaled = widen(grad) * power<kind>(v, e);
  narrow(scaled * (A(1) + e.p * ratio), grad_y);
  return scaled * wide * ratio;
}

template <class A>
inline A coefficient(A sum, A inverse, A p) {
  return sum == A(0) ? A(0) : -p * (sum * inverse) * inverse;
}

template <class T, Kind kind, bool adjoin>
void backward_run(const T* grad, int64_t grad_step, const T* y, int64_t y_step, T* grad_y, int64_t grad_y_step,
                  const accumulator_t<T>* inverses, accumulator_t<T>* sums, int64_t length,
                  const Exponent<accumulator_t<T>>& e) {
  const int64_t a = adjoin ? 1 : grad_step, b = adjoin ? 1 : y_step, to = adjoin ? 1 : grad_y_step;
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) {
    sums[i] += backward_one<T, kind>(grad[i * a], y[i * b], inverses[i], e, grad_y[i * to]);
  }
}

template <class T, Kind kind>
void scale_backward_of(Extent e, Image grad_y, Image grad, Image y, const accumulator_t<T>* norms,
                       accumulator_t<T>* coefficients, Alignment alignment, int threads) {
  using A = accumulator_t<T>;
  const Exponent<A> exponent(alignment);
  merge_rows(e, grad_y, grad, y);
  const int64_t channels = e.c / e.groups;
  if (channelwise_is_better(e, grad_y, grad, y)) {
    return channelwise(e, threads, [&](int64_t n, int64_t row, int64_t w) {
      for (int64_t g = 0; g < e.groups; ++g) {
        const T* upstream = at<const T>(grad, n, g * channels, row, w);
        const T* from = at<const T>(y, n, g * channels, row, w);
        T* to = at<T>(grad_y, n, g * channels, row, w);
        const int64_t index = factor_at(e, n, g, row, w);
        const A inverse = 1 / norms[index];
        const A sum = sum_of<A>(
            channels, [&](int64_t c) { return backward_one<T, kind>(upstream[c], from[c], inverse, exponent, to[c]); });
        coefficients[index] = coefficient(sum, inverse, exponent.p);
      }
    });
  }
  const bool adjoin = pixels_adjoin(grad_y, grad, y);
  planar(e, threads, [&](int64_t n, int64_t g, int64_t row, int64_t w, int64_t length) {
    A inverses[longest_run];
    invert(norms + factor_at(e, n, g, row, w), inverses, length);
    A* sums = coefficients + factor_at(e, n, g, row, w);
    for (int64_t i = 0; i < length; ++i) sums[i] = 0;
    for (int64_t c = g * channels; c < (g + 1) * channels; ++c) {
      const T *upstream = at<const T>(grad, n, c, row, w), *from = at<const T>(y, n, c, row, w);
      T* to = at<T>(grad_y, n, c, row, w);
      if (adjoin) {
        backward_run<T, kind, true>(upstream, 1, from, 1, to, 1, inverses, sums, length, exponent);
      } else {
        backward_run<T, kind, false>(upstream, grad.w, from, y.w, to, grad_y.w, inverses, sums, length, exponent);
      }
    }
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) sums[i] = coefficient(sums[i], inverses[i], exponent.p);
  });
}

inline void apply_factor(Dtype dtype, Extent e, Image out, Image v, Image y, const void* norms, Alignment alignment,
                         int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    with_kind(alignment.b, [&](auto kind) {
      apply_factor_of<T, decltype(kind)::value>(e, out, v, y, static_cast<const accumulator_t<T>*>(norms), alignment,
                                                threads);
    });
  });
}

inline void scale_backward(Dtype dtype, Extent e, Image grad_y, Image grad, Image y, const void* norms,
                           void* coefficients, Alignment alignment, int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = accumulator_t<T>;
    with_kind(alignment.b, [&](auto kind) {
      scale_backward_of<T, decltype(kind)::value>(e, grad_y, grad, y, static_cast<const A*>(norms),
                                                  static_cast<A*>(coefficients), alignment, threads);
    });
  });
}

}  // namespace bcos::BCOS_ISA
