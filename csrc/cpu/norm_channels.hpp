// The norms of norm_groups.hpp where the channels of a pixel adjoin (channels_last): sums are vectors over channels.
#pragma once
#include "norm_groups.hpp"

namespace bcos::BCOS_ISA {

// Pixels that are read twice stay in the second-level cache; blocks of them are what threads share.
struct Blocks {
  int64_t few, block, count;

  Blocks(int64_t pixels, int64_t channels) {
    few = smaller(64, 4 + 4096 / channels * 4);
    block = 8 * few;
    count = ceil_div(pixels, block);
  }
};

// Calls body(first pixel, how many) for four pixels at a time, then one by one: what a loop over channels reads per
// channel, it then reads for a quarter of the pixels.
template <class Body>
inline void by_fours(int64_t first, int64_t last, const Body& body) {
  for (; first + 4 <= last; first += 4) body(first, std::integral_constant<int, 4>{});
  for (; first < last; ++first) body(first, std::integral_constant<int, 1>{});
}

template <class T>
inline T* pixel_of(const Image& image, const Extent& e, int64_t n, int64_t p) {
  return at<T>(image, n, 0, e.h == 1 ? 0 : p / e.w, e.h == 1 ? p : p % e.w);
}

// Some pixels, one after the other.
template <class T, int count>
struct Pixels {
  T* at[count];

  Pixels(const Image& image, const Extent& e, int64_t n, int64_t p) {
    for (int j = 0; j < count; ++j) at[j] = pixel_of<T>(image, e, n, p + j);
  }
};

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
      by_fours(start, end, [&](int64_t p, auto count) {
        const Pixels<const T, count> from(x, k.e, n, p);
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) {
          A sum = 0;
          for (int j = 0; j < count; ++j) sum += widen(from.at[j][c]);
          part_mean[c] += sum;
        }
      });
      const A share = A(1) / static_cast<A>(end - start);
      for (int64_t c = 0; c < channels; ++c) part_mean[c] *= share;
    }
    by_fours(start, end, [&](int64_t p, auto count) {
      const Pixels<const T, count> from(x, k.e, n, p);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        A sum = 0;
        for (int j = 0; j < count; ++j) {
          const A distance = widen(from.at[j][c]) - part_mean[c];
          sum += distance * distance;
        }
        part_squares[c] += sum;
      }
    });
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
    by_fours(b * blocks.block, smaller(pixels, (b + 1) * blocks.block), [&](int64_t p, auto count) {
      const Pixels<const T, count> up(grad, k.e, n, p), value(x, k.e, n, p);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        A plain = 0, along = 0;
        for (int j = 0; j < count; ++j) {
          plain += widen(up.at[j][c]);
          along += widen(up.at[j][c]) * (widen(value.at[j][c]) - centre[c]);
        }
        first[c] += plain;
        second[c] += along;
      }
    });
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
    const Blocks blocks(k.pixels(), channels);
    share(blocks.count, threads, [&](int64_t b) {
      by_fours(b * blocks.block, smaller(k.pixels(), (b + 1) * blocks.block), [&](int64_t p, auto count) {
        const Pixels<const T, count> up(grad, k.e, n, p), value(x, k.e, n, p);
        const Pixels<T, count> to(dx, k.e, n, p);
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) {
          const Channel<A> channel{gain[c], mean[c], base[c], slope[c]};
          for (int j = 0; j < count; ++j) gradient(up.at[j][c], value.at[j][c], channel, to.at[j][c]);
        }
      });
    });
  });
}

}  // namespace bcos::BCOS_ISA
