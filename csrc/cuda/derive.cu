// The gradient of the response w·x, and per pixel and group the coefficient of that through the norm (mathematics §2).
#include "kernels.hpp"
#include "power.cuh"
#include "sum.cuh"

namespace bcos::cuda {
namespace {

// From the output that the forward pass kept.
template <class A>
struct Derivative {
  Aligned<A> aligned;

  // The gradient of w·x, given that of the output; share: what of it goes through the norm.
  __device__ A operator()(A grad, A kept, A inverse, A gain, A& share) const {
    A ratio;
    const A s = aligned(std::fabs(kept) * inverse, ratio);
    share = grad * kept * ratio;
    return grad * s * gain * (A(1) + aligned.power.exponent * ratio);
  }
};

template <class T, int V, Along along>
__global__ void scale_backward_kernel(Grid grid, Image grad_y, Image grad, Image kept, const accumulator_t<T>* norms,
                                      const accumulator_t<T>* lengths, accumulator_t<T>* coefficients,
                                      Derivative<accumulator_t<T>> derivative) {
  using A = accumulator_t<T>;
  constexpr bool channels = along == Along::channels;
  const Tile tile = Tile::of(grid);
  const int64_t w = pixel_of<V, along>(tile), first = factors_of(grid, tile) + w;
  A inverses[pixels_of<V, along>];
#pragma unroll
  for (int i = 0; i < pixels_of<V, along>; ++i) inverses[i] = w < tile.w_end ? inverse_of(norms[first + i]) : A(1);
  sum_channels<V, along, A>(
      tile,
      [&](int64_t c, A(&shares)[V]) {
        A upstream[V], values[V];
        load(at<const T>(grad, tile, c, w), upstream);
        load(at<const T>(kept, tile, c, w), values);
        const A common = channels ? A(1) : gain_of(lengths, c);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          const A gain = channels ? gain_of(lengths, c + i) : common;
          values[i] = derivative(upstream[i], values[i], inverses[channels ? 0 : i], gain, shares[i]);
        }
        store(values, at<T>(grad_y, tile, c, w));
      },
      [&](int i, A sum) {
        coefficients[first + i] = sum == A(0) ? A(0) : -derivative.aligned.power.exponent * (sum * inverses[i]) * inverses[i];
      });
}

}  // namespace

void scale_backward(const Queue& queue, Dtype dtype, const Extent& extent, const Image& to, const Image& upstream,
                    const Image& from, const void* norms, const void* lengths, void* coefficients,
                    Alignment alignment) {
  Extent e = extent;
  Image grad_y = to, grad = upstream, kept = from;
  merge_lines(e, grad_y, grad, kept);
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using A = accumulator_t<T>;
    with_layout<T>(e, [&](auto along, auto length) {
      constexpr int V = decltype(length)::value;
      constexpr Along way = decltype(along)::value;
      const Plan plan = plan_sums<V, way>(e);
      launch(queue, scale_backward_kernel<T, V, way>, plan.blocks, plan.threads, plan.grid, grad_y, grad, kept,
             static_cast<const A*>(norms), static_cast<const A*>(lengths), static_cast<A*>(coefficients),
             Derivative<A>{Aligned<A>(alignment)});
    }, grad_y, grad, kept);
  });
}

}  // namespace bcos::cuda
