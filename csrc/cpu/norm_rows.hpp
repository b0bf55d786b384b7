// The norms of norm_pixels.hpp where the channels of a pixel adjoin (rows, channels_last): sums are over rows.
#pragma once
#include "norm_pixels.hpp"

namespace bcos::BCOS_ISA {

template <class T>
void normalise_rows(const PixelNorm<accumulator_t<T>>& k, Image out, Image x) {
  using A = accumulator_t<T>;
  each_run(k, true, [&](const Run& run) {
    for (int64_t i = 0; i < run.length; ++i) {
      const int64_t pixel = run.pixel + i;
      const T* from = at<const T>(x, run.n, 0, run.row, run.w + i);
      if (!k.norm.given) {
        Moments whole;
        for (int64_t c = 0; c < k.e.c; c += part_length) {
          join(whole, moments_of_part<T, true>(from + c, 1, smaller(part_length, k.e.c - c), k.norm.about_mean));
        }
        if (k.norm.about_mean) k.mean[pixel] = static_cast<A>(whole.mean);
        k.rstd[pixel] = static_cast<A>(inverse_root(whole, k.norm.eps));
      }
      if (!out.data) continue;
      T* to = at<T>(out, run.n, 0, run.row, run.w + i);
      const A mean = k.centre(pixel), r = k.rstd[pixel];
#pragma omp simd
      for (int64_t c = 0; c < k.e.c; ++c) narrow((widen(from[c]) - mean) * r * k.weight[c], to[c]);
    }
  });
}

// dw: [runs, C] or null.
template <class T>
void differentiate_rows(const PixelNorm<accumulator_t<T>>& k, Image dx, Image grad, Image x, accumulator_t<T>* dw) {
  using A = accumulator_t<T>;
  each_run(k, true, [&](const Run& run) {
    A* shares = dw ? dw + run.number * k.e.c : nullptr;
    for (int64_t i = 0; i < run.length; ++i) {
      const T* up = at<const T>(grad, run.n, 0, run.row, run.w + i);
      const T* value = at<const T>(x, run.n, 0, run.row, run.w + i);
      const int64_t pixel = run.pixel + i;
      const A centre = k.centre(pixel), r = k.rstd[pixel], mean = k.norm.about_mean ? k.mean[pixel] : A(0);
      if (dx.data) {
        const Two<A> part = k.backward_of(pixel, two_sums_of<A>(k.e.c, [&](int64_t c) {
          const A weighted = widen(up[c]) * k.weight[c];
          return Two<A>{weighted, weighted * (widen(value[c]) - centre)};
        }));
        T* to = at<T>(dx, run.n, 0, run.row, run.w + i);
#pragma omp simd
        for (int64_t c = 0; c < k.e.c; ++c) {
          narrow(widen(up[c]) * k.weight[c] * r - (part.first + part.second * (widen(value[c]) - mean)), to[c]);
        }
      }
      if (!shares) continue;
#pragma omp simd
      for (int64_t c = 0; c < k.e.c; ++c) shares[c] += widen(up[c]) * (widen(value[c]) - centre) * r;
    }
  });
}

}  // namespace bcos::BCOS_ISA
