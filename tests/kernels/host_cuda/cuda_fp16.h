#pragma once
#define BCOS_ISA host
#include "cpu/number.hpp"
#undef BCOS_ISA

struct __half {
  bcos::host::float16 value;
};

inline float __half2float(__half value) { return bcos::host::widen(value.value); }
inline __half __float2half_rn(float value) {
  __half out;
  bcos::host::narrow(value, out.value);
  return out;
}
