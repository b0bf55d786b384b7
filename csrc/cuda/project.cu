// The gradient of weights through w / ‖w‖: of each row of the gradient, what points along the weight is taken away.
#include "collect.cuh"
#include "kernels.hpp"
#include "launch.cuh"

namespace bcos::cuda {
namespace {

template <class T, int V>
__global__ void project_rows_kernel(int64_t columns, T* grad, const T* weight, const accumulator_t<T>* lengths) {
  using A = accumulator_t<T>;
  const A length = lengths[blockIdx.x];
  if (length == A(0)) return;  // a row of zeros was not normalised
  const A inverse = A(1) / length;
  T* g = grad + blockIdx.x * columns;
  const T* w = weight + blockIdx.x * columns;
  A along = 0, of_grad[V], of_weight[V];
  const int64_t first = threadIdx.x * V, step = blockDim.x * V;
  for (int64_t i = first; i < columns; i += step) {
    load(g + i, of_grad);
    load(w + i, of_weight);
#pragma unroll
    for (int k = 0; k < V; ++k) along += of_weight[k] * inverse * of_grad[k];
  }
  along = sum_over_lanes(along) * inverse;
  for (int64_t i = first; i < columns; i += step) {
    load(g + i, of_grad);
    load(w + i, of_weight);
#pragma unroll
    for (int k = 0; k < V; ++k) of_grad[k] -= along * of_weight[k];
    store(of_grad, g + i);
  }
}

}  // namespace

void project_rows(const Queue& queue, Dtype dtype, int64_t rows, int64_t columns, void* grad, const void* weight,
                  const void* lengths) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int V = widest<T>;
    const auto places = reinterpret_cast<uintptr_t>(grad) | reinterpret_cast<uintptr_t>(weight);
    const bool wide = columns % V == 0 && places % (V * sizeof(T)) == 0;
    launch(queue, wide ? project_rows_kernel<T, V> : project_rows_kernel<T, 1>, rows, threads_per_block, columns,
           static_cast<T*>(grad), static_cast<const T*>(weight), static_cast<const accumulator_t<T>*>(lengths));
  });
}

}  // namespace bcos::cuda
