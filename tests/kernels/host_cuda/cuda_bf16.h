#pragma once
#include "cuda_fp16.h"

struct __nv_bfloat16 {
  bcos::host::bfloat16 value;
};

inline float __bfloat162float(__nv_bfloat16 value) { return bcos::host::widen(value.value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  __nv_bfloat16 out;
  bcos::host::narrow(value, out.value);
  return out;
}
