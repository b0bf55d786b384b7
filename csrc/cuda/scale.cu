// The B-cos scale in one pass: each thread owns one output.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "scale.hpp"

namespace bcos {
namespace {

__device__ float widen(float value) { return value; }
__device__ float widen(__half value) { return __half2float(value); }
__device__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ void narrow(float value, float& out) { out = value; }
__device__ void narrow(float value, __half& out) { out = __float2half_rn(value); }
__device__ void narrow(float value, __nv_bfloat16& out) { out = __float2bfloat16_rn(value); }

__device__ float power(float v, float b) {
  if (b == 1.0f) return 1.0f;
  if (b == 1.5f) return sqrtf(v);
  if (b == 2.0f) return v;
  return powf(v, b - 1.0f);
}

template <class T>
__global__ void scale_kernel(T* out, const T* y, const float* norms, DenseImage image, float b, float delta) {
  const int64_t count = image.n * image.c * image.pixels;
  const int64_t per_group = image.c / image.groups;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const int64_t n = i / (image.c * image.pixels);
    const int64_t c = image.channels_last ? i % image.c : i / image.pixels % image.c;
    const int64_t pixel = image.channels_last ? i / image.c % image.pixels : i % image.pixels;
    const float value = widen(y[i]);
    const float norm = norms[(n * image.groups + c / per_group) * image.pixels + pixel];
    const float u = value == 0.0f ? 0.0f : fabsf(value) / norm;
    narrow(value * power(u + delta, b), out[i]);
  }
}

template <class T>
void launch(void* out, const void* y, const float* norms, DenseImage image, float b, float delta, cudaStream_t stream) {
  constexpr int64_t threads = 256, most_blocks = 65536;
  const int64_t blocks = (image.n * image.c * image.pixels + threads - 1) / threads;
  const auto grid = static_cast<unsigned>(blocks < most_blocks ? blocks : most_blocks);
  scale_kernel<T><<<grid, threads, 0, stream>>>(static_cast<T*>(out), static_cast<const T*>(y), norms, image, b, delta);
}

}  // namespace

const char* scale_forward(CudaDtype dtype, void* out, const void* y, const float* norms, DenseImage image, float b,
                          float delta, void* stream) {
  if (image.n * image.c * image.pixels == 0) return nullptr;
  const float offset = b == 2.0f ? 0.0f : delta;
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (dtype) {
    case CudaDtype::float32:
      launch<float>(out, y, norms, image, b, offset, queue);
      break;
    case CudaDtype::bfloat16:
      launch<__nv_bfloat16>(out, y, norms, image, b, offset, queue);
      break;
    case CudaDtype::float16:
      launch<__half>(out, y, norms, image, b, offset, queue);
      break;
    default:
      return "the CUDA scale takes float32, bfloat16 and float16";
  }
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace bcos
