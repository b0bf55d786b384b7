// dx += x * factor, one factor per pixel and group.
#pragma once
#include "traverse.hpp"

namespace bcos::BCOS_ISA {

template <class T>
inline void add_one(T& dx, T x, accumulator_t<T> factor) {
  narrow(widen(dx) + widen(x) * factor, dx);
}

template <class T>
void add_scaled_of(Extent e, Image dx, Image x, const accumulator_t<T>* factor, int threads) {
  merge_rows(e, dx, x);
  const int64_t channels = e.c / e.groups;
  if (channelwise_is_better(e, dx, x)) {
    return channelwise(e, threads, [&](int64_t n, int64_t row, int64_t w) {
      for (int64_t g = 0; g < e.groups; ++g) {
        const T* from = at<const T>(x, n, g * channels, row, w);
        T* to = at<T>(dx, n, g * channels, row, w);
        const auto shared = factor[factor_at(e, n, g, row, w)];
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) add_one(to[c], from[c], shared);
      }
    });
  }
  const bool adjoin = pixels_adjoin(dx, x);
  planar(e, threads, [&](int64_t n, int64_t g, int64_t row, int64_t w, int64_t length) {
    const auto* run = factor + factor_at(e, n, g, row, w);
    for (int64_t c = g * channels; c < (g + 1) * channels; ++c) {
      const T* from = at<const T>(x, n, c, row, w);
      T* to = at<T>(dx, n, c, row, w);
      if (adjoin) {
#pragma omp simd
        for (int64_t i = 0; i < length; ++i) add_one(to[i], from[i], run[i]);
      } else {
        for (int64_t i = 0; i < length; ++i) add_one(to[i * dx.w], from[i * x.w], run[i]);
      }
    }
  });
}

inline void add_scaled(Dtype dtype, Extent e, Image dx, Image x, const void* factor, int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    add_scaled_of<T>(e, dx, x, static_cast<const accumulator_t<T>*>(factor), threads);
  });
}

}  // namespace bcos::BCOS_ISA
