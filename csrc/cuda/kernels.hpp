// The kernels of a CUDA device as functions that enqueue them. They return before the device is done, and raise
// std::runtime_error with CUDA's own words.
#pragma once
#include <string>

#include "../arguments.hpp"

namespace bcos::cuda {

struct Queue {
  int device;
  void* stream;
};

// `parts` images behind one another, the first elements of two a hop apart.
struct Stack {
  Image first;
  int64_t parts, hop;
};

// Why kernels of this build cannot run on a device; empty if they can.
std::string why_not_on(int device);

// Per-pixel factors (norms, sums, coefficients) are contiguous [N, g, H, W] in the accumulation type: double for
// double, float for everything else. So are lengths [O], or null. y: w·x, then the output; kept: that output.
void reduce_squares(const Queue&, Dtype, const Extent&, const Image& x, void* sums, Finish, double eps);
void box_sum(const Queue&, Dtype, int64_t planes, int64_t h, int64_t w, const Window&, const void* sums, void* norms,
             double eps);
void box_spread(const Queue&, Dtype, int64_t planes, int64_t h, int64_t w, const Window&, const void* coefficients,
                void* spread);
void add_scaled(const Queue&, Dtype, const Extent&, const Image& dx, const Image& x, const void* factor);
void scale(const Queue&, Dtype, const Extent&, const Image& y, const void* norms, const void* lengths, Alignment);
void apply_factor(const Queue&, Dtype, const Extent&, const Stack& out, const Stack& v, const Image& kept,
                  const void* norms, const void* lengths, Alignment);
void scale_backward(const Queue&, Dtype, const Extent&, const Image& grad_y, const Image& grad, const Image& kept,
                    const void* norms, const void* lengths, void* coefficients, Alignment);
void project_rows(const Queue&, Dtype, int64_t rows, int64_t columns, void* grad, const void* weight,
                  const void* lengths);

}  // namespace bcos::cuda
