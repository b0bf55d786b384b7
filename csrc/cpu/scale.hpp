// The B-cos scale of a linear response y = gain (w·x), its factor applied to something else, and its derivatives,
// each in one pass. The gain is 1/‖w‖, or 1.
//
// A backward pass starts from the output, which the next layer keeps anyway (inverse.hpp).
#pragma once
#include <memory>

#include "inverse.hpp"
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
struct FromResponse {  // |cos|^(b-1) of a response w·x
  using A = accumulator_t<T>;
  Exponent<A> e;
  A size(T w_x, A inverse, A gain) const { return cosine(widen(w_x) * gain, inverse); }
  template <class At, class Use>
  void stretches(int64_t length, const At& u_at, const Use& use) const {
    use(int64_t{0}, length, [&](int64_t i) { return power<kind>(u_at(i) + e.delta, e); }, nullptr);
  }
};

template <class T, Kind kind>
struct FromOutput {
  using A = accumulator_t<T>;
  Exponent<A> e;
  A size(T out, A inverse, A) const { return cosine(widen(out), inverse); }
  template <class At, class Use>
  void stretches(int64_t length, const At& t_at, const Use& use) const {
    with_aligned<kind>(length, e, t_at, use);
  }
};

template <class T, class A>
inline void apply(T v, A gain, A s, T& out) {
  narrow(widen(v) * gain * s, out);
}

// The gradient of w·x; returns the share of -c n² / (b-1).
template <class T, class A>
inline A differentiate(T grad, T kept, A gain, A p, A s, A ratio, T& grad_y) {
  narrow(widen(grad) * s * gain * (A(1) + p * ratio), grad_y);
  return widen(grad) * widen(kept) * ratio;
}

// out = gain v |cos|^(b-1) for every unit, by what `source` makes of kept.
template <class T, class Source>
void each_unit(Extent e, Image out, Image v, Image kept, const accumulator_t<T>* norms,
               const accumulator_t<T>* gains, const Source& source, int threads) {
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
        const auto size_at = [&](int64_t c) { return source.size(from[c], inverse, gain[c]); };
        source.stretches(channels, size_at, [&](int64_t begin, int64_t end, const auto& s_at, const auto&) {
#pragma omp simd
          for (int64_t c = begin; c < end; ++c) apply(value[c], gain[c], s_at(c), to[c]);
        });
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
        const auto size_at = [&](int64_t i) { return source.size(from[i], inverses[i], gain); };
        source.stretches(length, size_at, [&](int64_t begin, int64_t end, const auto& s_at, const auto&) {
#pragma omp simd
          for (int64_t i = begin; i < end; ++i) apply(value[i], gain, s_at(i), to[i]);
        });
      } else {
        const auto size_at = [&](int64_t i) { return source.size(from[i * kept.w], inverses[i], gain); };
        source.stretches(length, size_at, [&](int64_t begin, int64_t end, const auto& s_at, const auto&) {
          for (int64_t i = begin; i < end; ++i) apply(value[i * v.w], gain, s_at(i), to[i * out.w]);
        });
      }
    }
  });
}

template <class A>
inline A coefficient(A sum, A inverse, A p) {
  return sum == A(0) ? A(0) : -p * (sum * inverse) * inverse;
}

// The gradient of every response, with a sum over the units of each group, of which the coefficients are made.
template <class T, class Source>
void each_gradient(Extent e, Image grad_y, Image grad, Image kept, const accumulator_t<T>* norms,
                   const accumulator_t<T>* gains, accumulator_t<T>* coefficients, const Source& source, int threads) {
  using A = accumulator_t<T>;
  merge_rows(e, grad_y, grad, kept);
  const int64_t channels = e.c / e.groups;
  const A p = source.e.p;
  if (channelwise_is_better(e, grad_y, grad, kept)) {
    return channelwise(e, threads, [&](int64_t n, int64_t row, int64_t w) {
      for (int64_t g = 0; g < e.groups; ++g) {
        const T* upstream = at<const T>(grad, n, g * channels, row, w);
        const T* from = at<const T>(kept, n, g * channels, row, w);
        T* to = at<T>(grad_y, n, g * channels, row, w);
        const A* gain = gains + g * channels;
        const int64_t index = factor_at(e, n, g, row, w);
        const A inverse = 1 / norms[index];
        A sum = 0;
        const auto size_at = [&](int64_t c) { return source.size(from[c], inverse, gain[c]); };
        source.stretches(channels, size_at, [&](int64_t begin, int64_t end, const auto& s_at, const auto& ratio_at) {
          sum += sum_of<A>(end - begin, [&](int64_t i) {
            const int64_t c = begin + i;
            return differentiate(upstream[c], from[c], gain[c], p, s_at(c), ratio_at(c), to[c]);
          });
        });
        coefficients[index] = coefficient(sum, inverse, p);
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
        const auto size_at = [&](int64_t i) { return source.size(from[i], inverses[i], gain); };
        source.stretches(length, size_at, [&](int64_t begin, int64_t end, const auto& s_at, const auto& ratio_at) {
#pragma omp simd
          for (int64_t i = begin; i < end; ++i) {
            sums[i] += differentiate(upstream[i], from[i], gain, p, s_at(i), ratio_at(i), to[i]);
          }
        });
      } else {
        const auto size_at = [&](int64_t i) { return source.size(from[i * kept.w], inverses[i], gain); };
        source.stretches(length, size_at, [&](int64_t begin, int64_t end, const auto& s_at, const auto& ratio_at) {
          for (int64_t i = begin; i < end; ++i) {
            sums[i] +=
                differentiate(upstream[i * grad.w], from[i * kept.w], gain, p, s_at(i), ratio_at(i), to[i * grad_y.w]);
          }
        });
      }
    }
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) sums[i] = coefficient(sums[i], inverses[i], p);
  });
}

inline void scale(Dtype dtype, Extent e, Image y, const void* norms, const void* lengths, Alignment alignment,
                  int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = accumulator_t<T>;
    const auto gains = gains_of(static_cast<const A*>(lengths), e.c);
    with_kind(alignment.b, [&](auto kind) {
      const FromResponse<T, decltype(kind)::value> source{Exponent<A>(alignment)};
      each_unit<T>(e, y, y, y, static_cast<const A*>(norms), gains.get(), source, threads);
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
      const FromOutput<T, decltype(kind)::value> source{Exponent<A>(alignment)};
      each_unit<T>(e, out, v, kept, static_cast<const A*>(norms), gains.get(), source, threads);
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
      const FromOutput<T, decltype(kind)::value> source{Exponent<A>(alignment)};
      each_gradient<T>(e, grad_y, grad, kept, static_cast<const A*>(norms), gains.get(),
                       static_cast<A*>(coefficients), source, threads);
    });
  });
}

}  // namespace bcos::BCOS_ISA
