// The four number types on a device, read and written several at a time.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "../arguments.hpp"

namespace bcos::cuda {

template <class T>
struct accumulator {
  using type = float;
};
template <>
struct accumulator<double> {
  using type = double;
};
template <class T>
using accumulator_t = typename accumulator<T>::type;

__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ inline void narrow(float value, float& out) { out = value; }
__device__ inline void narrow(double value, double& out) { out = value; }
__device__ inline void narrow(float value, __half& out) { out = __float2half_rn(value); }
__device__ inline void narrow(float value, __nv_bfloat16& out) { out = __float2bfloat16_rn(value); }

// How many numbers the widest load of a device holds.
template <class T>
constexpr int widest = 16 / sizeof(T);

template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T items[V];
};

template <int V, class T>
__device__ inline void load(const T* from, accumulator_t<T> (&values)[V]) {
  const auto pack = *reinterpret_cast<const Pack<T, V>*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) values[i] = widen(pack.items[i]);
}

template <int V, class T>
__device__ inline void store(const accumulator_t<T> (&values)[V], T* to) {
  Pack<T, V> pack;
#pragma unroll
  for (int i = 0; i < V; ++i) narrow(values[i], pack.items[i]);
  *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

template <class T>
struct TypeTag {
  using type = T;
};

// Calls body(TypeTag<T>{}) with the type that the code names.
template <class Body>
void with_type(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::float32:
      return body(TypeTag<float>{});
    case Dtype::float64:
      return body(TypeTag<double>{});
    case Dtype::bfloat16:
      return body(TypeTag<__nv_bfloat16>{});
    case Dtype::float16:
      return body(TypeTag<__half>{});
  }
}

}  // namespace bcos::cuda
