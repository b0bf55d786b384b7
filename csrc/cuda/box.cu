// The sum over each patch of a plane, and its adjoint. One thread per result: planes are small beside the images.
#include <cmath>

#include "kernels.hpp"
#include "launch.cuh"

namespace bcos::cuda {
namespace {

__device__ int64_t thread_number() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

template <class A>
__global__ void box_sum_kernel(int64_t count, int64_t h, int64_t w, Window v, const A* sums, A* norms, A eps) {
  const int64_t i = thread_number();
  if (i >= count) return;
  const int64_t q = i % v.out_w, line = i / v.out_w, p = line % v.out_h;
  const A* plane = sums + line / v.out_h * h * w;
  A total = 0;
  for (int64_t a = 0; a < v.kernel_h; ++a) {
    const int64_t row = p * v.stride_h - v.top + a * v.dilation_h;
    if (row < 0 || row >= h) continue;
    for (int64_t b = 0; b < v.kernel_w; ++b) {
      const int64_t column = q * v.stride_w - v.left + b * v.dilation_w;
      if (column >= 0 && column < w) total += plane[row * w + column];
    }
  }
  norms[i] = std::sqrt(total + eps);
}

// Which patch has its tap `back` before a position of the padded image; -1: none.
__device__ int64_t patch_at(int64_t position, int64_t back, int64_t stride, int64_t patches) {
  const int64_t start = position - back;
  return start >= 0 && start % stride == 0 && start / stride < patches ? start / stride : -1;
}

template <class A>
__global__ void box_spread_kernel(int64_t count, int64_t h, int64_t w, Window v, const A* coefficients, A* spread) {
  const int64_t i = thread_number();
  if (i >= count) return;
  const int64_t column = i % w, line = i / w, row = line % h;
  const A* plane = coefficients + line / h * v.out_h * v.out_w;
  A total = 0;
  for (int64_t a = 0; a < v.kernel_h; ++a) {
    const int64_t p = patch_at(row + v.top, a * v.dilation_h, v.stride_h, v.out_h);
    if (p < 0) continue;
    for (int64_t b = 0; b < v.kernel_w; ++b) {
      const int64_t q = patch_at(column + v.left, b * v.dilation_w, v.stride_w, v.out_w);
      if (q >= 0) total += plane[p * v.out_w + q];
    }
  }
  spread[i] = total;
}

// Calls body(A{}) with the accumulation type of a type.
template <class Body>
void with_accumulator(Dtype dtype, const Body& body) {
  if (dtype == Dtype::float64) return body(double{});
  body(float{});
}

}  // namespace

void box_sum(const Queue& queue, Dtype dtype, int64_t planes, int64_t h, int64_t w, const Window& window,
             const void* sums, void* norms, double eps) {
  const int64_t count = planes * window.out_h * window.out_w;
  with_accumulator(dtype, [&](auto zero) {
    using A = decltype(zero);
    launch(queue, box_sum_kernel<A>, ceil_div(count, threads_per_block), threads_per_block, count, h, w, window,
           static_cast<const A*>(sums), static_cast<A*>(norms), static_cast<A>(eps));
  });
}

void box_spread(const Queue& queue, Dtype dtype, int64_t planes, int64_t h, int64_t w, const Window& window,
                const void* coefficients, void* spread) {
  const int64_t count = planes * h * w;
  with_accumulator(dtype, [&](auto zero) {
    using A = decltype(zero);
    launch(queue, box_spread_kernel<A>, ceil_div(count, threads_per_block), threads_per_block, count, h, w, window,
           static_cast<const A*>(coefficients), static_cast<A*>(spread));
  });
}

std::string why_not_on(int device) {
  try {
    const OnDevice on(device);
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, box_sum_kernel<float>));
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

}  // namespace bcos::cuda
