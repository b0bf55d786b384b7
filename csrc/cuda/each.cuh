// One pack of elements after the other. A thread keeps its place along the direction in which memory runs, for which it
// loads factors once, and steps along the other one.
#pragma once
#include "tile.cuh"

namespace bcos::cuda {

template <int V, Along along>
Plan plan_each(const Extent& e) {
  constexpr int64_t most_steps = 16, enough_blocks = 1024;
  const int64_t members = e.c / e.groups;
  const int64_t fast = along == Along::channels ? members : e.w, slow = along == Along::channels ? e.w : members;
  if (e.n * e.h * fast * slow == 0) return {};
  const int64_t packs = fast / V;
  const int64_t lanes = packs < threads_per_block ? packs : threads_per_block, rows = threads_per_block / lanes;
  // Many steps reuse what a thread knows of its place, few give every multiprocessor work.
  const int64_t blocks = e.n * e.groups * e.h * ceil_div(packs, lanes) * ceil_div(slow, rows);
  const int64_t share = ceil_div(blocks, enough_blocks), steps = share < most_steps ? share : most_steps;
  const int64_t long_side = lanes * V, short_side = rows * steps;
  return along == Along::channels ? plan_of(e, long_side, short_side, lanes, rows)
                                  : plan_of(e, short_side, long_side, lanes, rows);
}

// Calls prepare(place) and then body(c, w) with the first channel and pixel of each pack of this thread; place: the one
// of the two that stays.
template <int V, Along along, class Prepare, class Body>
__device__ void each_pack(const Tile& tile, const Prepare& prepare, const Body& body) {
  if (along == Along::channels) {
    const int64_t c = tile.c + threadIdx.x * V;
    if (c >= tile.c_end) return;
    prepare(c);
    for (int64_t w = tile.w + threadIdx.y; w < tile.w_end; w += blockDim.y) body(c, w);
  } else {
    const int64_t w = tile.w + threadIdx.x * V;
    if (w >= tile.w_end) return;
    prepare(w);
    for (int64_t c = tile.c + threadIdx.y; c < tile.c_end; c += blockDim.y) body(c, w);
  }
}

}  // namespace bcos::cuda
