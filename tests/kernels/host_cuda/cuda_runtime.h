// CUDA's words for a C++ compiler: kernels run on the host, one block after the other, with two pretended devices.
#pragma once
#include <cstdint>

#include "fibers.hpp"

#define __global__
#define __device__
#define __host__
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host_cuda {
inline Block block;
inline int device = 0;
inline uint64_t exchanged[1024];  // by the threads of a block

inline unsigned thread_number() { return threadIdx.y * blockDim.x + threadIdx.x; }
}  // namespace host_cuda

inline void __syncthreads() { host_cuda::block.barrier(); }

template <class A>
A __shfl_xor_sync(unsigned, A value, unsigned mask) {
  const unsigned place = host_cuda::thread_number();
  reinterpret_cast<A&>(host_cuda::exchanged[place]) = value;
  host_cuda::block.barrier();
  const A other = reinterpret_cast<A&>(host_cuda::exchanged[place ^ mask]);
  host_cuda::block.barrier();
  return other;
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration, cudaErrorInvalidDevice, cudaErrorInvalidResourceHandle };
struct cudaFuncAttributes {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream = nullptr;
};

inline const char* cudaGetErrorString(cudaError_t error) {
  constexpr const char* words[] = {"no error", "invalid configuration argument", "invalid device ordinal",
                                   "invalid resource handle"};
  return words[error];
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 2, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* found) { return *found = host_cuda::device, cudaSuccess; }
inline cudaError_t cudaSetDevice(int wanted) {
  if (wanted < 0 || wanted > 1) return cudaErrorInvalidDevice;
  return host_cuda::device = wanted, cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return cudaSuccess;
}

// For tests, which see no C++ name.
extern "C" __attribute__((visibility("default"), used)) inline int current_device() { return host_cuda::device; }

// Stream 0 is of every device, stream 16 + d of device d.
template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Parameters... arguments) {
  const auto handle = reinterpret_cast<uintptr_t>(config->stream);
  if (handle != 0 && handle != 16u + host_cuda::device) return cudaErrorInvalidResourceHandle;
  const unsigned threads = config->blockDim.x * config->blockDim.y;
  if (threads == 0 || threads > 1024 || config->gridDim.x == 0) return cudaErrorInvalidConfiguration;
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  const std::function<void(unsigned)> run = [&](unsigned) { kernel(arguments...); };
  const std::function<void(unsigned)> moved = [](unsigned thread) {
    threadIdx = dim3(thread % blockDim.x, thread / blockDim.x);
  };
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) host_cuda::block.run(threads, run, moved);
  return cudaSuccess;
}
