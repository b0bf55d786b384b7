// The B-cos factor of a linear response y = gain (w·x), times something: y itself in the forward pass, gradients and
// tangents in an explanation. The gain is 1/‖w‖, or 1.
#include "each.cuh"
#include "kernels.hpp"
#include "power.cuh"

namespace bcos::cuda {
namespace {

// |cos|^(b-1) from the response, or from the output that the forward pass kept.
template <class A>
struct Factor {
  Aligned<A> aligned;
  bool from_output;

  __device__ A operator()(A kept, A inverse, A gain) const {
    const A magnitude = std::fabs(kept) * inverse;
    A ratio;
    return from_output ? aligned(magnitude, ratio) : aligned.power(magnitude * gain + aligned.power.delta);
  }
};

template <class T, int V, Along along>
__global__ void apply_factor_kernel(Grid grid, Stack out, Stack v, Image kept, const accumulator_t<T>* norms,
                                    const accumulator_t<T>* lengths, Factor<accumulator_t<T>> factor_of) {
  using A = accumulator_t<T>;
  constexpr bool channels = along == Along::channels;
  const Tile tile = Tile::of(grid);
  const A* norms_of_line = norms + factors_of(grid, tile);
  A known[V];  // gains along channels, inverse norms along pixels
  each_pack<V, along>(
      tile,
      [&](int64_t place) {
#pragma unroll
        for (int i = 0; i < V; ++i) known[i] = channels ? gain_of(lengths, place + i) : inverse_of(norms_of_line[place + i]);
      },
      [&](int64_t c, int64_t w) {
        const A other = channels ? inverse_of(norms_of_line[w]) : gain_of(lengths, c);
        A factors[V], values[V];
        load(at<const T>(kept, tile, c, w), factors);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          const A gain = channels ? known[i] : other;
          factors[i] = gain * factor_of(factors[i], channels ? other : known[i], gain);
        }
        const T* from = at<const T>(v.first, tile, c, w);
        T* to = at<T>(out.first, tile, c, w);
        for (int64_t part = 0; part < v.parts; ++part, from += v.hop, to += out.hop) {
          load(from, values);
#pragma unroll
          for (int i = 0; i < V; ++i) values[i] *= factors[i];
          store(values, to);
        }
      });
}

void run(const Queue& queue, Dtype dtype, Extent e, Stack out, Stack v, Image kept, const void* norms,
         const void* lengths, Alignment alignment, bool from_output) {
  merge_lines(e, out.first, v.first, kept);
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using A = accumulator_t<T>;
    with_layout<T>(e, [&](auto along, auto length) {
      constexpr int V = decltype(length)::value;
      constexpr Along way = decltype(along)::value;
      const Plan plan = plan_each<V, way>(e);
      launch(queue, apply_factor_kernel<T, V, way>, plan.blocks, plan.threads, plan.grid, out, v, kept,
             static_cast<const A*>(norms), static_cast<const A*>(lengths), Factor<A>{Aligned<A>(alignment), from_output});
    }, out.first, v.first, kept);
  });
}

}  // namespace

void scale(const Queue& queue, Dtype dtype, const Extent& e, const Image& y, const void* norms, const void* lengths,
           Alignment alignment) {
  run(queue, dtype, e, {y, 1, 0}, {y, 1, 0}, y, norms, lengths, alignment, false);
}

void apply_factor(const Queue& queue, Dtype dtype, const Extent& e, const Stack& out, const Stack& v, const Image& kept,
                  const void* norms, const void* lengths, Alignment alignment) {
  run(queue, dtype, e, out, v, kept, norms, lengths, alignment, true);
}

}  // namespace bcos::cuda
