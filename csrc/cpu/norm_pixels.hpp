// Norms whose statistics [N, 1, H, W] are over the channels of each pixel: layer norm of rows, position norm of images.
#pragma once
#include "moments.hpp"

namespace bcos::BCOS_ISA {

// Where the lines of all samples make one, turn them into it: what is per pixel knows no samples.
template <class... Images>
void merge_samples(Extent& e, Images&... images) {
  if (e.h > 1) return;
  if (e.w == 1) {
    ((images.w = images.n), ...);
  } else if (!((images.n == e.w * images.w) && ...)) {
    return;
  }
  e.w *= e.n;
  e.n = 1;
}

template <class A>
struct PixelNorm {
  Extent e;
  Norm norm;
  A* mean;  // [N, 1, H, W]
  A* rstd;
  const A* weight;  // [C]
  int threads;

  bool large() const { return e.n * e.c * e.h * e.w >= parallel_from; }
  A centre(int64_t pixel) const { return norm.centred ? mean[pixel] : A(0); }

  // The factor of (x - mean) and what else is taken away, for the gradient of x.
  Two<A> backward_of(int64_t pixel, Two<A> sums) const {
    const A r = rstd[pixel], count = static_cast<A>(e.c);
    return {norm.centred ? r * sums.first / count : A(0), norm.held ? A(0) : r * r * r * sums.second / count};
  }
};

// Pixels of a row with its neighbours: as many as a thread takes at a time.
struct Run {
  int64_t pixel;  // the first, of the contiguous [N, H, W]
  int64_t n, row, w, length, number;
};

// Channel by channel, pixels are read more than once: a run with all its channels fits the second-level cache.
// Pixel by pixel, a run shares one place for its part of the weight's gradient.
inline int64_t longest_run_of(int64_t channels, bool channelwise) {
  return channelwise ? smaller(64, 8 + 32768 / channels) : smaller(512, 16 + 32768 / channels / 16 * 16);
}

inline int64_t runs_of(const Extent& e, bool channelwise) {
  return e.n * e.h * ceil_div(e.w, longest_run_of(e.c, channelwise));
}

template <class A, class Body>
void each_run(const PixelNorm<A>& k, bool channelwise, const Body& body) {
  const int64_t longest = longest_run_of(k.e.c, channelwise), across = ceil_div(k.e.w, longest);
  share(runs_of(k.e, channelwise), k.large() ? k.threads : 1, [&](int64_t number) {
    const int64_t w = number % across * longest, line = number / across;
    body(Run{line * k.e.w + w, line / k.e.h, line % k.e.h, w, smaller(longest, k.e.w - w), number});
  });
}

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

template <class T, bool adjoin>
void moments_of_run(const PixelNorm<accumulator_t<T>>& k, Image x, const Run& run) {
  using A = accumulator_t<T>;
  const int64_t step = adjoin ? 1 : x.w, length = run.length;
  const auto own = room<A>(2 * length);
  A *mean = own.get(), *squares = own.get() + length;
  const A count = static_cast<A>(k.e.c);
  if (k.norm.about_mean) {
    for (int64_t c = 0; c < k.e.c; ++c) {
      const T* from = at<const T>(x, run.n, c, run.row, run.w);
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) mean[i] += widen(from[i * step]);
    }
    for (int64_t i = 0; i < length; ++i) k.mean[run.pixel + i] = mean[i] /= count;
  }
  for (int64_t c = 0; c < k.e.c; ++c) {
    const T* from = at<const T>(x, run.n, c, run.row, run.w);
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const A distance = widen(from[i * step]) - mean[i];
      squares[i] += distance * distance;
    }
  }
  const A eps = static_cast<A>(k.norm.eps);
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) k.rstd[run.pixel + i] = 1 / std::sqrt(squares[i] / count + eps);
}

template <class T, bool adjoin>
void normalise_runs(const PixelNorm<accumulator_t<T>>& k, Image out, Image x) {
  using A = accumulator_t<T>;
  each_run(k, false, [&](const Run& run) {
    if (!k.norm.given) moments_of_run<T, adjoin>(k, x, run);
    if (!out.data) return;
    const int64_t length = run.length;
    const auto mean = room<A>(length);
    for (int64_t i = 0; i < length; ++i) mean[i] = k.centre(run.pixel + i);
    const A* r = k.rstd + run.pixel;
    const int64_t from_step = adjoin ? 1 : x.w, to_step = adjoin ? 1 : out.w;
    for (int64_t c = 0; c < k.e.c; ++c) {
      const T* from = at<const T>(x, run.n, c, run.row, run.w);
      T* to = at<T>(out, run.n, c, run.row, run.w);
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
  each_run(k, false, [&](const Run& run) {
    const int64_t length = run.length;
    const auto own = room<A>(4 * length);
    A *base = own.get(), *slope = base + length, *centre = slope + length, *mean = centre + length;
    const A* r = k.rstd + run.pixel;
    const int64_t up_step = adjoin ? 1 : grad.w, x_step = adjoin ? 1 : x.w, to_step = adjoin ? 1 : dx.w;
    for (int64_t i = 0; i < length; ++i) {
      centre[i] = k.centre(run.pixel + i);
      mean[i] = k.norm.about_mean ? k.mean[run.pixel + i] : A(0);
    }
    for (int64_t c = 0; c < k.e.c; ++c) {
      const T* up = at<const T>(grad, run.n, c, run.row, run.w);
      const T* value = at<const T>(x, run.n, c, run.row, run.w);
      const A weight = k.weight[c];
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) {
        const A weighted = widen(up[i * up_step]) * weight;
        base[i] += weighted;
        slope[i] += weighted * (widen(value[i * x_step]) - centre[i]);
      }
      if (!dw) continue;
      dw[run.number * k.e.c + c] = sum_of<A>(length, [&](int64_t i) {
        return widen(up[i * up_step]) * (widen(value[i * x_step]) - centre[i]) * r[i];
      });
    }
    if (!dx.data) return;
    for (int64_t i = 0; i < length; ++i) {
      const Two<A> part = k.backward_of(run.pixel + i, {base[i], slope[i]});
      base[i] = part.first;
      slope[i] = part.second;
    }
    for (int64_t c = 0; c < k.e.c; ++c) {
      const T* up = at<const T>(grad, run.n, c, run.row, run.w);
      const T* value = at<const T>(x, run.n, c, run.row, run.w);
      T* to = at<T>(dx, run.n, c, run.row, run.w);
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
