// What a kernel is told: sizes and strides, all in elements. Nothing here knows torch.
#pragma once
#include <cstdint>

namespace bcos {

enum class Dtype : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

// How a sum of squares becomes a norm: conv puts eps under the root, linear outside it.
enum class Finish { none, root_of_sum_plus_eps, root_plus_eps };

struct Image {
  void* data;
  int64_t n, c, h, w;  // strides
};

struct Extent {
  int64_t n, c, h, w;
  int64_t groups;
};

struct Window {
  int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int64_t top, bottom, left, right;
  int64_t out_h, out_w;

  bool is_a_pixel() const { return kernel_h * kernel_w == 1 && top + bottom + left + right == 0; }
};

struct Alignment {
  double b, delta;
};

}  // namespace bcos
