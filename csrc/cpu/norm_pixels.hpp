// Norms whose statistics [N, 1, H, W] are over the channels of each pixel: layer norm of rows, position norm of images.
#pragma once
#include "moments.hpp"

namespace bcos::BCOS_ISA {

constexpr int64_t rows_of_block = 64;  // pixels whose shares of the weight's gradient are summed in one place

template <class A>
struct PixelNorm {
  Extent e;
  Norm norm;
  A* mean;  // [N, 1, H, W]
  A* rstd;
  const A* weight;  // [C]
  int threads;

  bool large() const { return e.n * e.c * e.h * e.w >= parallel_from; }
  int64_t pixels() const { return e.n * e.h * e.w; }
  A centre(int64_t pixel) const { return norm.centred ? mean[pixel] : A(0); }

  // The factor of (x - mean) and what else is taken away, for the gradient of x.
  Two<A> backward_of(int64_t pixel, Two<A> sums) const {
    const A r = rstd[pixel], count = static_cast<A>(e.c);
    return {norm.centred ? r * sums.first / count : A(0), norm.held ? A(0) : r * r * r * sums.second / count};
  }
};

template <class T>
inline T* row_at(const Image& image, const Extent& e, int64_t pixel) {
  return at<T>(image, pixel / e.w / e.h, 0, pixel / e.w % e.h, pixel % e.w);
}

template <class T>
void normalise_rows(const PixelNorm<accumulator_t<T>>& k, Image out, Image x) {
  using A = accumulator_t<T>;
#pragma omp parallel for num_threads(k.threads) schedule(static) if (k.large())
  for (int64_t pixel = 0; pixel < k.pixels(); ++pixel) {
    const T* from = row_at<const T>(x, k.e, pixel);
    if (!k.norm.given) {
      Moments whole;
      for (int64_t c = 0; c < k.e.c; c += part_length) {
        join(whole, moments_of_part<T, true>(from + c, 1, smaller(part_length, k.e.c - c), k.norm.about_mean));
      }
      if (k.norm.about_mean) k.mean[pixel] = static_cast<A>(whole.mean);
      k.rstd[pixel] = static_cast<A>(inverse_root(whole, k.norm.eps));
    }
    if (!out.data) continue;
    T* to = row_at<T>(out, k.e, pixel);
    const A mean = k.centre(pixel), r = k.rstd[pixel];
#pragma omp simd
    for (int64_t c = 0; c < k.e.c; ++c) narrow((widen(from[c]) - mean) * r * k.weight[c], to[c]);
  }
}

// dw: [blocks, C] or null.
template <class T>
void differentiate_rows(const PixelNorm<accumulator_t<T>>& k, Image dx, Image grad, Image x, accumulator_t<T>* dw) {
  using A = accumulator_t<T>;
#pragma omp parallel for num_threads(k.threads) schedule(static) if (k.large())
  for (int64_t block = 0; block < ceil_div(k.pixels(), rows_of_block); ++block) {
    A* shares = dw ? dw + block * k.e.c : nullptr;
    for (int64_t pixel = block * rows_of_block; pixel < smaller(k.pixels(), (block + 1) * rows_of_block); ++pixel) {
      const T* up = row_at<const T>(grad, k.e, pixel);
      const T* value = row_at<const T>(x, k.e, pixel);
      const A centre = k.centre(pixel), r = k.rstd[pixel], mean = k.norm.about_mean ? k.mean[pixel] : A(0);
      if (dx.data) {
        const Two<A> part = k.backward_of(pixel, two_sums_of<A>(k.e.c, [&](int64_t c) {
          const A weighted = widen(up[c]) * k.weight[c];
          return Two<A>{weighted, weighted * (widen(value[c]) - centre)};
        }));
        T* to = row_at<T>(dx, k.e, pixel);
#pragma omp simd
        for (int64_t c = 0; c < k.e.c; ++c) {
          narrow(widen(up[c]) * k.weight[c] * r - (part.first + part.second * (widen(value[c]) - mean)), to[c]);
        }
      }
      if (!shares) continue;
#pragma omp simd
      for (int64_t c = 0; c < k.e.c; ++c) shares[c] += widen(up[c]) * (widen(value[c]) - centre) * r;
    }
  }
}

// Pixels of a run; with all their channels they fit the second-level cache, because they are read more than once.
inline int64_t run_of(int64_t channels) { return smaller(512, 16 + 32768 / channels / 16 * 16); }

// Calls body(first pixel of the contiguous [N, H, W], n, row, w, length, number of the run).
template <class A, class Body>
void each_run(const PixelNorm<A>& k, const Body& body) {
  const int64_t run = run_of(k.e.c), runs = ceil_div(k.e.w, run);
#pragma omp parallel for num_threads(k.threads) schedule(static) if (k.large())
  for (int64_t task = 0; task < k.e.n * k.e.h * runs; ++task) {
    const int64_t w = task % runs * run, line = task / runs;
    body(line * k.e.w + w, line / k.e.h, line % k.e.h, w, smaller(run, k.e.w - w), task);
  }
}

template <class T, bool adjoin>
void moments_of_run(const PixelNorm<accumulator_t<T>>& k, Image x, int64_t pixel, int64_t n, int64_t row, int64_t w,
                    int64_t length) {
  using A = accumulator_t<T>;
  const int64_t step = adjoin ? 1 : x.w;
  const auto own = room<A>(2 * length);
  A *mean = own.get(), *squares = own.get() + length;
  const A count = static_cast<A>(k.e.c);
  if (k.norm.about_mean) {
    for (int64_t c = 0; c < k.e.c; ++c) {
      const T* from = at<const T>(x, n, c, row, w);
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) mean[i] += widen(from[i * step]);
    }
    for (int64_t i = 0; i < length; ++i) k.mean[pixel + i] = mean[i] /= count;
  }
  for (int64_t c = 0; c < k.e.c; ++c) {
    const T* from = at<const T>(x, n, c, row, w);
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const A distance = widen(from[i * step]) - mean[i];
      squares[i] += distance * distance;
    }
  }
  const A eps = static_cast<A>(k.norm.eps);
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) k.rstd[pixel + i] = 1 / std::sqrt(squares[i] / count + eps);
}

template <class T, bool adjoin>
void normalise_runs(const PixelNorm<accumulator_t<T>>& k, Image out, Image x) {
  using A = accumulator_t<T>;
  each_run(k, [&](int64_t pixel, int64_t n, int64_t row, int64_t w, int64_t length, int64_t) {
    if (!k.norm.given) moments_of_run<T, adjoin>(k, x, pixel, n, row, w, length);
    if (!out.data) return;
    const auto mean = room<A>(length);
    for (int64_t i = 0; i < length; ++i) mean[i] = k.centre(pixel + i);
    const A* r = k.rstd + pixel;
    const int64_t from_step = adjoin ? 1 : x.w, to_step = adjoin ? 1 : out.w;
    for (int64_t c = 0; c < k.e.c; ++c) {
      const T* from = at<const T>(x, n, c, row, w);
      T* to = at<T>(out, n, c, row, w);
      const A weight = k.weight[c];
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) {
        narrow((widen(from[i * from_step]) - mean[i]) * r[i] * weight, to[i * to_step]);
      }
    }
  });
}

// dw: [runs, C] or null.
template <class T, bool adjoin>
void differentiate_runs(const PixelNorm<accumulator_t<T>>& k, Image dx, Image grad, Image x, accumulator_t<T>* dw) {
  using A = accumulator_t<T>;
  each_run(k, [&](int64_t pixel, int64_t n, int64_t row, int64_t w, int64_t length, int64_t task) {
    const auto own = room<A>(4 * length);
    A *base = own.get(), *slope = base + length, *centre = slope + length, *mean = centre + length;
    const A* r = k.rstd + pixel;
    const int64_t up_step = adjoin ? 1 : grad.w, x_step = adjoin ? 1 : x.w, to_step = adjoin ? 1 : dx.w;
    for (int64_t i = 0; i < length; ++i) {
      centre[i] = k.centre(pixel + i);
      mean[i] = k.norm.about_mean ? k.mean[pixel + i] : A(0);
    }
    for (int64_t c = 0; c < k.e.c; ++c) {
      const T* up = at<const T>(grad, n, c, row, w);
      const T* value = at<const T>(x, n, c, row, w);
      const A weight = k.weight[c];
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) {
        const A weighted = widen(up[i * up_step]) * weight;
        base[i] += weighted;
        slope[i] += weighted * (widen(value[i * x_step]) - centre[i]);
      }
      if (!dw) continue;
      dw[task * k.e.c + c] = sum_of<A>(length, [&](int64_t i) {
        return widen(up[i * up_step]) * (widen(value[i * x_step]) - centre[i]) * r[i];
      });
    }
    if (!dx.data) return;
    for (int64_t i = 0; i < length; ++i) {
      const Two<A> part = k.backward_of(pixel + i, {base[i], slope[i]});
      base[i] = part.first;
      slope[i] = part.second;
    }
    for (int64_t c = 0; c < k.e.c; ++c) {
      const T* up = at<const T>(grad, n, c, row, w);
      const T* value = at<const T>(x, n, c, row, w);
      T* to = at<T>(dx, n, c, row, w);
      const A weight = k.weight[c];
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) {
        const A rest = base[i] + slope[i] * (widen(value[i * x_step]) - mean[i]);
        narrow(widen(up[i * up_step]) * weight * r[i] - rest, to[i * to_step]);
      }
    }
  });
}

}  // namespace bcos::BCOS_ISA
