// Sum of squares over the channels of each group: one read of x.
#include <cmath>

#include "kernels.hpp"
#include "sum.cuh"

namespace bcos::cuda {
namespace {

template <class A>
__device__ A finished(A sum, Finish finish, A eps) {
  if (finish == Finish::none) return sum;
  return finish == Finish::root_plus_eps ? std::sqrt(sum) + eps : std::sqrt(sum + eps);
}

template <class T, int V, Along along>
__global__ void reduce_squares_kernel(Grid grid, Image x, accumulator_t<T>* sums, Finish finish,
                                      accumulator_t<T> eps) {
  using A = accumulator_t<T>;
  const Tile tile = Tile::of(grid);
  const int64_t w = pixel_of<V, along>(tile);
  A* of_pixels = sums + factors_of(grid, tile) + w;
  sum_channels<V, along, A>(
      tile,
      [&](int64_t c, A(&values)[V]) {
        load(at<T>(x, tile, c, w), values);
#pragma unroll
        for (int i = 0; i < V; ++i) values[i] *= values[i];
      },
      [&](int i, A sum) { of_pixels[i] = finished(sum, finish, eps); });
}

}  // namespace

void reduce_squares(const Queue& queue, Dtype dtype, const Extent& extent, const Image& image, void* sums,
                    Finish finish, double eps) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    Extent e = extent;
    Image x = image;
    merge_lines(e, x);
    with_layout<T>(e, [&](auto along, auto length) {
      constexpr int V = decltype(length)::value;
      constexpr Along way = decltype(along)::value;
      const Plan plan = plan_sums<V, way>(e);
      launch(queue, reduce_squares_kernel<T, V, way>, plan.blocks, plan.threads, plan.grid, x,
             static_cast<accumulator_t<T>*>(sums), finish, static_cast<accumulator_t<T>>(eps));
    }, x);
  });
}

}  // namespace bcos::cuda
