// The four number types, converted by hand without branches so that every loop vectorises.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels.hpp"

namespace bcos::BCOS_ISA {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

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

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline float widen(bfloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }

inline float widen(float16 value) {
  const int32_t magnitude = (value.bits & 0x7fff) << 13;
  // The multiplication rebiases the exponent (15 -> 127) and normalises subnormals; infinities and NaN
  // keep their all-ones exponent.
  const uint32_t finite = bits_of(float_of(static_cast<uint32_t>(magnitude)) * 0x1p112f);
  const uint32_t special = magnitude >= (0x7c00 << 13) ? 0x7f800000u : 0u;
  return float_of(finite | special | ((value.bits & 0x8000u) << 16));
}

inline void narrow(float value, float& out) { out = value; }
inline void narrow(double value, double& out) { out = value; }

inline void narrow(float value, bfloat16& out) {  // round to nearest even
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  out.bits = static_cast<uint16_t>(value != value ? quiet_nan : rounded);
}

inline void narrow(float value, float16& out) {  // round to nearest even
  const uint32_t bits = bits_of(value);
  const int32_t magnitude = static_cast<int32_t>(bits & 0x7fffffffu);  // signed: AVX2 compares nothing else
  // Adding 0.5 makes the float adder round a subnormal result at the half's last bit.
  const int32_t subnormal = static_cast<int32_t>(bits_of(std::fabs(value) + 0.5f) - bits_of(0.5f));
  const int32_t normal = (magnitude - (112 << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const int32_t overflow = value != value ? 0x7e00 : 0x7c00;
  const int32_t finite = magnitude < (113 << 23) ? subnormal : normal;
  const int32_t result = magnitude >= (143 << 23) ? overflow : finite;
  out.bits = static_cast<uint16_t>(static_cast<uint32_t>(result) | ((bits >> 16) & 0x8000u));
}

// Calls body(T{}) with the type that the code names.
template <class Body>
void with_type(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::float32:
      return body(float{});
    case Dtype::float64:
      return body(double{});
    case Dtype::bfloat16:
      return body(bfloat16{});
    case Dtype::float16:
      return body(float16{});
  }
}

}  // namespace bcos::BCOS_ISA
