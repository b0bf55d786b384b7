// The norms of norm_groups.hpp where the channels of a pixel adjoin (channels_last): sums are vectors over channels.
#pragma once
#include "norm_groups.hpp"

namespace bcos::BCOS_ISA {

// Pixels that are read twice stay in the first-level cache; blocks of them are what threads share.
struct Blocks {
  int64_t few, block, count;

  Blocks(int64_t pixels, int64_t channels) {
    few = smaller(64, 1 + 4096 / channels);
    block = 8 * few;
    count = ceil_div(pixels, block);
  }
};

template <class T>
inline T* pixel_of(const Image& image, const Extent& e, int64_t n, int64_t p) {
  return at<T>(image, n, 0, e.h == 1 ? 0 : p / e.w, e.h == 1 ? p : p % e.w);
}

// Mean and squares per channel of the pixels first ... last - 1.
template <class T, class A = accumulator_t<T>>
void moments_of_block(const GroupNorm<A>& k, Image x, int64_t n, int64_t first, int64_t last, int64_t few, A* mean,
                      A* squares) {
  const int64_t channels = k.e.c;
  const auto own = room<A>(2 * channels);
  A *part_mean = own.get(), *part_squares = own.get() + channels;
  for (int64_t start = first; start < last; start += few) {
    const int64_t end = smaller(start + few, last);
    for (int64_t c = 0; c < 2 * channels; ++c) own[c] = 0;
    if (k.norm.about_mean) {
      for (int64_t p = start; p < end; ++p) {
        const T* from = pixel_of<const T>(x, k.e, n, p);
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) part_mean[c] += widen(from[c]);
      }
      const A share = A(1) / static_cast<A>(end - start);
      for (int64_t c = 0; c < channels; ++c) part_mean[c] *= share;
    }
    for (int64_t p = start; p < end; ++p) {
      const T* from = pixel_of<const T>(x, k.e, n, p);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const A distance = widen(from[c]) - part_mean[c];
        part_squares[c] += distance * distance;
      }
    }
    const A before = static_cast<A>(start - first), count = static_cast<A>(end - start);
    const A share = count / (before + count), spread = before * share;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const A apart = part_mean[c] - mean[c];
      mean[c] += apart * share;
      squares[c] += part_squares[c] + apart * apart * spread;
    }
  }
}

template <class T, class A = accumulator_t<T>>
void moments_of_sample(const GroupNorm<A>& k, Image x, int64_t n, int threads) {
  const int64_t channels = k.e.c, pixels = k.pixels();
  const Blocks blocks(pixels, channels);
  const auto parts = room<A>(2 * channels * blocks.count);  // [blocks, (mean, squares), C]
  share(blocks.count, threads, [&](int64_t b) {
    A* own = parts.get() + 2 * channels * b;
    moments_of_block<T>(k, x, n, b * blocks.block, smaller(pixels, (b + 1) * blocks.block), blocks.few, own,
                        own + channels);
  });
  const auto totals = room<double>(2 * channels);
  double *mean = totals.get(), *squares = totals.get() + channels;
  for (int64_t b = 0; b < blocks.count; ++b) {
    const double share = static_cast<double>(smaller(blocks.block, pixels - b * blocks.block)) / pixels;
    const A* own = parts.get() + 2 * channels * b;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) mean[c] += share * own[c];
  }
  for (int64_t b = 0; b < blocks.count; ++b) {
    const double count = static_cast<double>(smaller(blocks.block, pixels - b * blocks.block));
    const A* own = parts.get() + 2 * channels * b;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const double apart = own[c] - mean[c];
      squares[c] += own[channels + c] + count * apart * apart;
    }
  }
  for (int64_t g = 0; g < k.e.groups; ++g) {
    Moments whole;
    for (int64_t c = g * k.members(); c < (g + 1) * k.members(); ++c) {
      join(whole, {static_cast<double>(pixels), mean[c], squares[c]});
    }
    k.keep(n, g, whole);
  }
}

template <class T>
void normalise_channels(const GroupNorm<accumulator_t<T>>& k, Image out, Image x) {
  using A = accumulator_t<T>;
  each_unit_of(k, true, [&](int64_t n, int64_t, int threads) {
    if (!k.norm.given) moments_of_sample<T>(k, x, n, threads);
    if (!out.data) return;
    const int64_t channels = k.e.c;
    const auto own = room<A>(2 * channels);
    A *gain = own.get(), *mean = own.get() + channels;
    for (int64_t c = 0; c < channels; ++c) {
      const auto channel = k.forward_of(n, c);
      gain[c] = channel.gain;
      mean[c] = channel.mean;
    }
    share(k.pixels(), threads, [&](int64_t p) {
      const T* from = pixel_of<const T>(x, k.e, n, p);
      T* to = pixel_of<T>(out, k.e, n, p);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) narrow((widen(from[c]) - mean[c]) * gain[c], to[c]);
    });
  });
}

template <class T, class A = accumulator_t<T>>
void sums_of_sample(const GroupNorm<A>& k, Image grad, Image x, int64_t n, Two<double>* sums, int threads) {
  const int64_t channels = k.e.c, pixels = k.pixels();
  const Blocks blocks(pixels, channels);
  const auto parts = room<A>(2 * channels * blocks.count);  // [blocks, 2, C]
  const auto centre = room<A>(channels);
  for (int64_t c = 0; c < channels; ++c) centre[c] = k.centre(n, c);
  share(blocks.count, threads, [&](int64_t b) {
    A *first = parts.get() + 2 * channels * b, *second = first + channels;
    for (int64_t p = b * blocks.block; p < smaller(pixels, (b + 1) * blocks.block); ++p) {
      const T* up = pixel_of<const T>(grad, k.e, n, p);
      const T* value = pixel_of<const T>(x, k.e, n, p);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        first[c] += widen(up[c]);
        second[c] += widen(up[c]) * (widen(value[c]) - centre[c]);
      }
    }
  });
  for (int64_t b = 0; b < blocks.count; ++b) {
    const A* own = parts.get() + 2 * channels * b;
    for (int64_t c = 0; c < channels; ++c) {
      sums[c].first += own[c];
      sums[c].second += own[channels + c];
    }
  }
}

template <class T>
void differentiate_channels(const GroupNorm<accumulator_t<T>>& k, Image dx, Image grad, Image x, Two<double>* sums) {
  using A = accumulator_t<T>;
  const int64_t channels = k.e.c;
  each_unit_of(k, true, [&](int64_t n, int64_t, int threads) {
    sums_of_sample<T>(k, grad, x, n, sums + n * channels, threads);
    if (!dx.data) return;
    const auto all = room<Channel<A>>(channels);
    for (int64_t g = 0; g < k.e.groups; ++g) k.backward_of(n, g, sums + n * channels, all.get());
    const auto own = room<A>(4 * channels);  // side by side, so that the loop below reads vectors
    A *gain = own.get(), *mean = gain + channels, *base = mean + channels, *slope = base + channels;
    for (int64_t c = 0; c < channels; ++c) {
      gain[c] = all[c].gain;
      mean[c] = all[c].mean;
      base[c] = all[c].base;
      slope[c] = all[c].slope;
    }
    share(k.pixels(), threads, [&](int64_t p) {
      const T* up = pixel_of<const T>(grad, k.e, n, p);
      const T* value = pixel_of<const T>(x, k.e, n, p);
      T* to = pixel_of<T>(dx, k.e, n, p);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        gradient(up[c], value[c], Channel<A>{gain[c], mean[c], base[c], slope[c]}, to[c]);
      }
    });
  });
}

}  // namespace bcos::BCOS_ISA
