// dx += x * factor, one factor per pixel and group.
#include "each.cuh"
#include "kernels.hpp"

namespace bcos::cuda {
namespace {

template <class T, int V, Along along>
__global__ void add_scaled_kernel(Grid grid, Image dx, Image x, const accumulator_t<T>* factors) {
  using A = accumulator_t<T>;
  constexpr bool channels = along == Along::channels;
  const Tile tile = Tile::of(grid);
  const A* of_line = factors + factors_of(grid, tile);
  A known[V];
  each_pack<V, along>(
      tile,
      [&](int64_t place) {
#pragma unroll
        for (int i = 0; i < V; ++i) known[i] = channels ? A(0) : of_line[place + i];
      },
      [&](int64_t c, int64_t w) {
        const A shared = channels ? of_line[w] : A(0);
        T* to = at<T>(dx, tile, c, w);
        A sums[V], values[V];
        load(to, sums);
        load(at<const T>(x, tile, c, w), values);
#pragma unroll
        for (int i = 0; i < V; ++i) sums[i] += values[i] * (channels ? shared : known[i]);
        store(sums, to);
      });
}

}  // namespace

void add_scaled(const Queue& queue, Dtype dtype, const Extent& extent, const Image& to, const Image& from,
                const void* factors) {
  Extent e = extent;
  Image dx = to, x = from;
  merge_lines(e, dx, x);
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    with_layout<T>(e, [&](auto along, auto length) {
      constexpr int V = decltype(length)::value;
      constexpr Along way = decltype(along)::value;
      const Plan plan = plan_each<V, way>(e);
      launch(queue, add_scaled_kernel<T, V, way>, plan.blocks, plan.threads, plan.grid, dx, x,
             static_cast<const accumulator_t<T>*>(factors));
    }, dx, x);
  });
}

}  // namespace bcos::cuda
