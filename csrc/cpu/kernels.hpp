// What a kernel is told: pointers, sizes and strides (all in elements). Nothing here knows torch.
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

// Three dimensions that stay and three that are summed: sizes, then strides in x and in g, outermost first.
struct Products {
  int64_t kept[3], summed[3], x_kept[3], x_summed[3], g_kept[3], g_summed[3];
};

// What a norm divides by and what is constant in its gradient. per_pixel: statistics over the channels of each pixel,
// [N, 1, H, W], else over those of a group and all pixels, [N, g]; about_mean: deviations, else root mean squares;
// centred: the mean is subtracted; held: what is divided by is a constant; given: statistics are read, not computed.
struct Norm {
  bool per_pixel, about_mean, centred, held, given;
  double eps;
};

// One entry per kernel, filled once per instruction set. Per-pixel factors (norms, coefficients) are
// contiguous [N, g, H, W] in the accumulation type: double for double, float for everything else.
struct Kernels {
  const char* name;
  void (*reduce_squares)(Dtype, Extent, Image x, void* sums, Finish, double eps, int threads);
  void (*box_sum)(Dtype, int64_t planes, int64_t h, int64_t w, const Window&, const void* sums, void* norms, double eps,
                  int threads);
  void (*box_spread)(Dtype, int64_t planes, int64_t h, int64_t w, const Window&, const void* coefficients, void* spread,
                     int threads);
  void (*add_scaled)(Dtype, Extent, Image dx, Image x, const void* factor, int threads);
  // lengths: ‖w‖ per unit in the accumulation type, by which the response w·x is divided, or null. y: w·x, then out.
  void (*scale)(Dtype, Extent, Image y, const void* norms, const void* lengths, Alignment, int threads);
  void (*apply_factor)(Dtype, Extent, Image out, Image v, Image kept, const void* norms, const void* lengths, Alignment,
                       int threads);
  void (*scale_backward)(Dtype, Extent, Image grad_y, Image grad, Image kept, const void* norms, const void* lengths,
                         void* coefficients, Alignment, int threads);
  void (*project_rows)(Dtype, int64_t rows, int64_t columns, void* grad, const void* weight, const void* lengths,
                       int threads);
  void (*contribution)(Dtype, const Products&, const void* x, const void* g, void* sums, bool along_sums, int threads);
  // Statistics in the accumulation type, weight [C] in it too or null. No out (dx): nothing but the statistics (dw).
  void (*normalise)(Dtype, Extent, const Norm&, Image out, Image x, void* mean, void* rstd, const void* weight,
                    int threads);
  void (*normalise_backward)(Dtype, Extent, const Norm&, Image dx, Image grad, Image x, void* mean, void* rstd,
                             const void* weight, void* dw, int threads);
};

extern const Kernels baseline_kernels;
extern const Kernels avx2_kernels;  // only where BCOS_HAS_AVX2

}  // namespace bcos
