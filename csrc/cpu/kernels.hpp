// The kernels of the CPU, one table per instruction set.
#pragma once
#include "../arguments.hpp"

namespace bcos {

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
  // Statistics in the accumulation type, weight [C] in it too or null. No out (dx): nothing but the statistics (dw). No
  // rstd: statistics that nobody asked for.
  void (*normalise)(Dtype, Extent, const Norm&, Image out, Image x, void* mean, void* rstd, const void* weight,
                    int threads);
  void (*normalise_backward)(Dtype, Extent, const Norm&, Image dx, Image grad, Image x, void* mean, void* rstd,
                             const void* weight, void* dw, int threads);
  // Moves the averages of a batch norm [C] by a share of the way to what it found: rstd gives back the power, which a
  // gain makes unbiased. No running mean: uncentred.
  void (*track)(Dtype, int64_t channels, void* running_mean, void* running_power, const void* mean, const void* rstd,
                double eps, double share, double gain);
};

extern const Kernels baseline_kernels;
extern const Kernels avx2_kernels;  // only where BCOS_HAS_AVX2

}  // namespace bcos
