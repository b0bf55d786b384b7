// Sums over the channels of a group, pixel by pixel: a warp or a block per pixel where channels lie together, else a
// column of threads.
#pragma once
#include "collect.cuh"
#include "tile.cuh"

namespace bcos::cuda {

template <int V, Along along>
Plan plan_sums(const Extent& e) {
  const int64_t members = e.c / e.groups;
  if (e.n * e.h * e.w * e.groups == 0) return {};
  if (along == Along::channels) {
    const int64_t packs = members / V;
    const int64_t lanes = packs >= threads_per_block ? threads_per_block : power_of_2(packs, warp);
    const int64_t rows = threads_per_block / lanes;
    return plan_of(e, members, rows, lanes, rows);
  }
  const int64_t packs = e.w / V;
  const int64_t together = power_of_2(packs, V > 1 ? 8 : warp);  // 128 bytes of a line, or 32 pixels
  const int64_t rows = power_of_2(members, threads_per_block / together);
  const int64_t lanes = power_of_2(packs, threads_per_block / rows);
  return plan_of(e, members, lanes * V, lanes, rows);
}

// How many pixels a thread has.
template <int V, Along along>
constexpr int pixels_of = along == Along::channels ? 1 : V;

// The first pixel of this thread, which may lie outside the tile.
template <int V, Along along>
__device__ inline int64_t pixel_of(const Tile& tile) {
  return tile.w + (along == Along::channels ? threadIdx.y : threadIdx.x * V);
}

// Calls term(c, values), which gives a value for each element of the pack at channel c and the pixels of this thread, and
// then finish(i, sum) for the i-th of these pixels, in one thread.
template <int V, Along along, class A, class Term, class Finish>
__device__ void sum_channels(const Tile& tile, const Term& term, const Finish& finish) {
  constexpr int pixels = pixels_of<V, along>;
  A sums[pixels] = {};
  const bool inside = pixel_of<V, along>(tile) < tile.w_end;
  const unsigned first = along == Along::channels ? threadIdx.x * V : threadIdx.y;
  const unsigned step = along == Along::channels ? blockDim.x * V : blockDim.y;
  for (int64_t c = tile.c + first; inside && c < tile.c_end; c += step) {
    A values[V];
    term(c, values);
#pragma unroll
    for (int i = 0; i < V; ++i) sums[pixels == 1 ? 0 : i] += values[i];
  }
  if constexpr (along == Along::channels) {
    sums[0] = sum_over_lanes(sums[0]);
  } else {
    sum_over_rows<threads_per_block>(sums);
  }
  if (!inside || (along == Along::channels ? threadIdx.x : threadIdx.y) != 0) return;
#pragma unroll
  for (int i = 0; i < pixels; ++i) finish(i, sums[i]);
}

}  // namespace bcos::cuda
