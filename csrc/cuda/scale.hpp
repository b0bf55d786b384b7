// out = y (|y|/n + delta)^(b-1) on a CUDA device; see csrc/cpu/scale.hpp.
#pragma once
#include <cstdint>

namespace bcos {

enum class CudaDtype : int { float32 = 0, bfloat16 = 2, float16 = 3 };

// y and out share one dense layout: [N, O, L] with pixels together, or [N, L, O] with channels together.
struct DenseImage {
  int64_t n, c, pixels, groups;
  bool channels_last;
};

// norms: contiguous [N, g, L], float32. Returns a CUDA error as text, or nullptr.
const char* scale_forward(CudaDtype dtype, void* out, const void* y, const float* norms, DenseImage image, float b,
                          float delta, void* stream);

}  // namespace bcos
