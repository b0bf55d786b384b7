// Sum of squares over the channels of each group: one read of x.
#pragma once
#include "traverse.hpp"

namespace bcos::BCOS_ISA {

template <class A>
inline A finished(A sum, Finish finish, A eps) {
  if (finish == Finish::none) return sum;
  return finish == Finish::root_plus_eps ? std::sqrt(sum) + eps : std::sqrt(sum + eps);
}

template <class T>
inline accumulator_t<T> squared(T value) {
  const auto wide = widen(value);
  return wide * wide;
}

template <class T, bool adjoin>
void sum_run(const T* x, int64_t channels, int64_t channel_stride, int64_t pixel_stride, accumulator_t<T>* sums,
             int64_t length) {
  const int64_t step = adjoin ? 1 : pixel_stride;
  for (int64_t i = 0; i < length; ++i) sums[i] = 0;
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4, x += 4 * channel_stride) {  // four at a time: a quarter of the traffic to sums
    const T *x0 = x, *x1 = x + channel_stride, *x2 = x + 2 * channel_stride, *x3 = x + 3 * channel_stride;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      sums[i] += (squared(x0[i * step]) + squared(x1[i * step])) + (squared(x2[i * step]) + squared(x3[i * step]));
    }
  }
  for (; c < channels; ++c, x += channel_stride) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) sums[i] += squared(x[i * step]);
  }
}

template <class T>
void reduce_squares_of(Extent e, Image x, accumulator_t<T>* sums, Finish finish, double eps, int threads) {
  using A = accumulator_t<T>;
  merge_rows(e, x);
  const int64_t channels = e.c / e.groups;
  if (channelwise_is_better(e, x)) {
    return channelwise(e, threads, [&](int64_t n, int64_t row, int64_t w) {
      for (int64_t g = 0; g < e.groups; ++g) {
        const T* first = at<const T>(x, n, g * channels, row, w);
        const A sum = sum_of<A>(channels, [&](int64_t c) { return squared(first[c]); });
        sums[factor_at(e, n, g, row, w)] = finished(sum, finish, static_cast<A>(eps));
      }
    });
  }
  planar(e, threads, [&](int64_t n, int64_t g, int64_t row, int64_t w, int64_t length) {
    A* run = sums + factor_at(e, n, g, row, w);
    const T* first = at<const T>(x, n, g * channels, row, w);
    if (pixels_adjoin(x)) {
      sum_run<T, true>(first, channels, x.c, 1, run, length);
    } else {
      sum_run<T, false>(first, channels, x.c, x.w, run, length);
    }
    if (finish == Finish::none) return;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) run[i] = finished(run[i], finish, static_cast<A>(eps));
  });
}

inline void reduce_squares(Dtype dtype, Extent e, Image x, void* sums, Finish finish, double eps, int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    reduce_squares_of<T>(e, x, static_cast<accumulator_t<T>*>(sums), finish, eps, threads);
  });
}

}  // namespace bcos::BCOS_ISA
