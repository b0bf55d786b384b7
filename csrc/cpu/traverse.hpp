// Two ways to walk an image. Planar: runs of pixels, one channel after the other (NCHW and every odd
#pragma once
// layout). Channelwise: the channels of one pixel (channels_last, rows of a matrix). Each output belongs
// to one task, so results do not depend on the number of threads.
#include "number.hpp"

namespace bcos::BCOS_ISA {

constexpr int64_t longest_run = 1024;  // accumulators of a run stay in the first-level cache
constexpr int64_t shortest_run = 64;
constexpr int64_t parallel_from = 32768;  // elements below which waking threads costs more than it saves

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline bool rows_follow(const Image& image, int64_t w) { return image.h == w * image.w; }

// Merge rows into one long row where every image allows it, and turn a column into a row.
template <class... Images>
void merge_rows(Extent& extent, Images&... images) {
  if (extent.w == 1) {
    ((images.w = images.h), ...);
    extent.w = extent.h;
    extent.h = 1;
  } else if (extent.h > 1 && (rows_follow(images, extent.w) && ...)) {
    extent.w *= extent.h;
    extent.h = 1;
  }
}

template <class... Images>
bool pixels_adjoin(const Images&... images) {
  return ((images.w == 1) && ...);
}

template <class... Images>
bool channelwise_is_better(const Extent& extent, const Images&... images) {
  const bool channels_adjoin = ((images.c == 1) && ...);
  return channels_adjoin && (extent.h * extent.w == 1 || !pixels_adjoin(images...)) && extent.c >= 2 * extent.groups;
}

// body(n, g, row, w, length): a run of `length` pixels of one row that starts at column w.
template <class Body>
void planar(const Extent& e, int threads, const Body& body) {
  if (e.n * e.h * e.w == 0) return;
  // Long runs read memory in order; short ones give every thread work. Multiples of the shortest: the vectors
  // then start at the same pixels, and the results are the same, for every number of threads.
  const int64_t share = ceil_div(e.n * e.groups * e.h * e.w, 4 * threads * shortest_run) * shortest_run;
  const int64_t run = smaller(longest_run, share);
  const int64_t runs = ceil_div(e.w, run);
  const int64_t tasks = e.n * e.groups * e.h * runs;
#pragma omp parallel for num_threads(threads) schedule(static) if (e.n * e.c * e.h * e.w >= parallel_from)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t w = task % runs * run;
    const int64_t row = task / runs % e.h;
    const int64_t plane = task / runs / e.h;
    body(plane / e.groups, plane % e.groups, row, w, smaller(run, e.w - w));
  }
}

// body(n, row, w): one pixel with all its channels.
template <class Body>
void channelwise(const Extent& e, int threads, const Body& body) {
  const int64_t pixels = e.n * e.h * e.w;
#pragma omp parallel for num_threads(threads) schedule(static) if (pixels * e.c >= parallel_from)
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    body(pixel / e.w / e.h, pixel / e.w % e.h, pixel % e.w);
  }
}

// Sums side by side, which hide the latency of the addition: 64 bytes of them, because GCC clears more by a slow loop.
template <class A>
struct Lanes {
  static constexpr int64_t width = 64 / sizeof(A);
  A sums[width] = {};

  template <class Term>
  void add(int64_t start, const Term& term) {
#pragma omp simd
    for (int64_t lane = 0; lane < width; ++lane) sums[lane] += term(start + lane);
  }

  A total() const {  // in a fixed order, four at a time
    A four[4] = {};
    for (int64_t lane = 0; lane < width; lane += 4) {
      for (int64_t i = 0; i < 4; ++i) four[i] += sums[lane + i];
    }
    return (four[0] + four[2]) + (four[1] + four[3]);
  }
};

// Sum of term(i) over i < count, in a fixed order.
template <class A, class Term>
inline A sum_of(int64_t count, const Term& term) {
  constexpr int64_t width = Lanes<A>::width;
  Lanes<A> even, odd;
  int64_t i = 0;
  for (; i + 2 * width <= count; i += 2 * width) {
    even.add(i, term);
    odd.add(i + width, term);
  }
  if (i + width <= count) {
    even.add(i, term);
    i += width;
  }
  A rest = 0;
  for (; i < count; ++i) rest += term(i);
  return (even.total() + odd.total()) + rest;
}

// Index of a per-pixel factor [N, g, H, W].
inline int64_t factor_at(const Extent& e, int64_t n, int64_t g, int64_t row, int64_t w) {
  return ((n * e.groups + g) * e.h + row) * e.w + w;
}

template <class T>
inline T* at(const Image& image, int64_t n, int64_t c, int64_t row, int64_t w) {
  return static_cast<T*>(image.data) + n * image.n + c * image.c + row * image.h + w * image.w;
}

}  // namespace bcos::BCOS_ISA
