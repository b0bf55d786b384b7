// Sums over the threads of a block, which all take part. Their order is fixed: the same bits every time.
#pragma once
#include "number.cuh"

namespace bcos::cuda {

constexpr int warp = 32;

// Over the threads of this row of the block, to all of them: up to a warp, a power of 2; or the one row of the block.
template <class A>
__device__ A sum_over_lanes(A value) {
  const unsigned within = blockDim.x < warp ? blockDim.x : warp;
  for (unsigned step = within / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (blockDim.x <= warp) return value;
  __shared__ A parts[warp];
  if (threadIdx.x % warp == 0) parts[threadIdx.x / warp] = value;
  __syncthreads();
  A sum = 0;
  for (unsigned i = 0; i < blockDim.x / warp; ++i) sum += parts[i];
  return sum;
}

// Over the threads of each column of the block, whose rows are a power of 2, to the first of them.
template <int most_threads, class A, int V>
__device__ void sum_over_rows(A (&values)[V]) {
  __shared__ A room[V][most_threads];
  const unsigned place = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int i = 0; i < V; ++i) room[i][place] = values[i];
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
#pragma unroll
      for (int i = 0; i < V; ++i) room[i][place] = values[i] += room[i][place + half * blockDim.x];
    }
  }
}

}  // namespace bcos::cuda
