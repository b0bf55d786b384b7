// The one place where kernels are launched: on the device and stream of the tensors, with errors as exceptions.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "kernels.hpp"

namespace bcos::cuda {

constexpr int64_t threads_per_block = 256;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // forgets it, so that the next launch does not report it again
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_));
    moved_ = before_ != device;
    if (moved_) check(cudaSetDevice(device));
  }
  ~OnDevice() {
    if (moved_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool moved_ = false;
};

template <class... Parameters, class... Arguments>
void launch(const Queue& queue, void (*kernel)(Parameters...), int64_t blocks, dim3 threads,
            const Arguments&... arguments) {
  if (blocks == 0) return;
  if (blocks > INT32_MAX) throw std::runtime_error("CUDA: a grid cannot have " + std::to_string(blocks) + " blocks");
  const OnDevice on(queue.device);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = threads;
  config.stream = static_cast<cudaStream_t>(queue.stream);
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

}  // namespace bcos::cuda
