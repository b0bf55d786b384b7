// bcos_kernels._cpu: the kernels as Python functions over addresses, sizes and strides.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>

#include "cpu/select.hpp"

namespace py = pybind11;

namespace {

using bcos::Dtype;
using Two = std::array<int64_t, 2>;
using Three = std::array<int64_t, 3>;
using Four = std::array<int64_t, 4>;

struct Call {  // without the interpreter lock, so that other Python threads run meanwhile
  py::gil_scoped_release release;
  const bcos::Kernels& kernels = *bcos::selected();
};

bcos::Image image(uintptr_t address, const Four& strides) {
  return {reinterpret_cast<void*>(address), strides[0], strides[1], strides[2], strides[3]};
}

bcos::Extent extent(const Four& shape, int64_t groups) { return {shape[0], shape[1], shape[2], shape[3], groups}; }

bcos::Window window(Two kernel, Two stride, Two dilation, Four padding, Two out) {
  return {kernel[0],  kernel[1],  stride[0],  stride[1],  dilation[0], dilation[1],
          padding[0], padding[1], padding[2], padding[3], out[0],      out[1]};
}

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

// Room for one number of the accumulation type per pixel and group.
std::unique_ptr<double[]> scratch(Dtype dtype, int64_t count) {
  const int64_t doubles = dtype == Dtype::float64 ? count : (count + 1) / 2;
  return std::unique_ptr<double[]>(new double[static_cast<size_t>(doubles)]);
}

void row_norm(int dtype, uintptr_t x, Two shape, Two strides, uintptr_t norms, double eps, int threads) {
  const Call call;
  const bcos::Extent rows{1, shape[1], 1, shape[0], 1};  // a matrix is an image of one line: row = pixel
  call.kernels.reduce_squares(Dtype(dtype), rows, {pointer(x), 0, strides[1], 0, strides[0]}, pointer(norms),
                              bcos::Finish::root_plus_eps, eps, threads);
}

void scale(int dtype, uintptr_t y, Four strides, Four shape, uintptr_t norms, uintptr_t lengths, int64_t groups,
           double b, double delta, int threads) {
  const Call call;
  call.kernels.scale(Dtype(dtype), extent(shape, groups), image(y, strides), pointer(norms), pointer(lengths),
                     {b, delta}, threads);
}

// The lengths of dense rows, if an address is given for them.
void row_lengths(const Call& call, int dtype, uintptr_t weight, int64_t rows, int64_t elements, uintptr_t lengths,
                 int threads) {
  if (lengths == 0 || rows == 0) return;
  const int64_t columns = elements / rows;
  call.kernels.reduce_squares(Dtype(dtype), {1, columns, 1, rows, 1}, {pointer(weight), 0, 1, 0, columns},
                              pointer(lengths), bcos::Finish::root_plus_eps, 0, threads);
}

void patch_norms(const Call& call, int dtype, bcos::Image input, bcos::Extent e, const bcos::Window& v, void* norms,
                 double eps, int threads) {
  if (v.is_a_pixel()) {  // read only the pixels that are asked for
    input.h *= v.stride_h;
    input.w *= v.stride_w;
    e.h = v.out_h;
    e.w = v.out_w;
    return call.kernels.reduce_squares(Dtype(dtype), e, input, norms, bcos::Finish::root_of_sum_plus_eps, eps, threads);
  }
  const auto sums = scratch(Dtype(dtype), e.n * e.groups * e.h * e.w);
  call.kernels.reduce_squares(Dtype(dtype), e, input, sums.get(), bcos::Finish::none, 0, threads);
  call.kernels.box_sum(Dtype(dtype), e.n * e.groups, e.h, e.w, v, sums.get(), norms, eps, threads);
}

void patch_norm(int dtype, uintptr_t x, Four shape, Four strides, uintptr_t norms, Two kernel, Two stride, Four padding,
                Two dilation, Two out, int64_t groups, double eps, int threads) {
  const Call call;
  patch_norms(call, dtype, image(x, strides), extent(shape, groups), window(kernel, stride, dilation, padding, out),
              pointer(norms), eps, threads);
}

void finish_rows(int dtype, uintptr_t x, Two shape, Two strides, uintptr_t weight, int64_t units, int64_t elements,
                 uintptr_t y, Two y_strides, uintptr_t norms, uintptr_t lengths, double eps, double b, double delta,
                 int threads) {
  const Call call;
  row_lengths(call, dtype, weight, units, elements, lengths, threads);
  call.kernels.reduce_squares(Dtype(dtype), {1, shape[1], 1, shape[0], 1}, {pointer(x), 0, strides[1], 0, strides[0]},
                              pointer(norms), bcos::Finish::root_plus_eps, eps, threads);
  call.kernels.scale(Dtype(dtype), {1, units, 1, shape[0], 1}, {pointer(y), 0, y_strides[1], 0, y_strides[0]},
                     pointer(norms), pointer(lengths), {b, delta}, threads);
}

void finish_patches(int dtype, uintptr_t x, Four shape, Four strides, uintptr_t weight, int64_t units, int64_t elements,
                    uintptr_t y, Four y_shape, Four y_strides, uintptr_t norms, uintptr_t lengths, Two kernel,
                    Two stride, Four padding, Two dilation, int64_t groups, double eps, double b, double delta,
                    int threads) {
  const Call call;
  row_lengths(call, dtype, weight, units, elements, lengths, threads);
  const bcos::Window v = window(kernel, stride, dilation, padding, {y_shape[2], y_shape[3]});
  patch_norms(call, dtype, image(x, strides), extent(shape, groups), v, pointer(norms), eps, threads);
  call.kernels.scale(Dtype(dtype), extent(y_shape, groups), image(y, y_strides), pointer(norms), pointer(lengths),
                     {b, delta}, threads);
}

void apply_factor(int dtype, uintptr_t out, Four out_strides, uintptr_t v, Four v_strides, uintptr_t kept,
                  Four kept_strides, Four shape, uintptr_t norms, uintptr_t lengths, int64_t groups, double b,
                  double delta, int threads) {
  const Call call;
  call.kernels.apply_factor(Dtype(dtype), extent(shape, groups), image(out, out_strides), image(v, v_strides),
                            image(kept, kept_strides), pointer(norms), pointer(lengths), {b, delta}, threads);
}

void scale_backward(int dtype, uintptr_t grad_y, Four grad_y_strides, uintptr_t grad, Four grad_strides, uintptr_t kept,
                    Four kept_strides, Four shape, uintptr_t norms, uintptr_t lengths, uintptr_t coefficients,
                    int64_t groups, double b, double delta, int threads) {
  const Call call;
  call.kernels.scale_backward(Dtype(dtype), extent(shape, groups), image(grad_y, grad_y_strides),
                              image(grad, grad_strides), image(kept, kept_strides), pointer(norms), pointer(lengths),
                              pointer(coefficients), {b, delta}, threads);
}

void project_rows(int dtype, uintptr_t grad, uintptr_t weight, Two shape, uintptr_t lengths, int threads) {
  const Call call;
  call.kernels.project_rows(Dtype(dtype), shape[0], shape[1], pointer(grad), pointer(weight), pointer(lengths), threads);
}

void spread(int dtype, uintptr_t dx, Four dx_strides, uintptr_t x, Four x_strides, Four shape, uintptr_t coefficients,
            Two kernel, Two stride, Four padding, Two dilation, Two out, int64_t groups, int threads) {
  const Call call;
  const bcos::Window v = window(kernel, stride, dilation, padding, out);
  const bcos::Extent e = extent(shape, groups);
  const bcos::Image to = image(dx, dx_strides), from = image(x, x_strides);
  if (v.is_a_pixel() && v.stride_h * v.stride_w == 1) {
    return call.kernels.add_scaled(Dtype(dtype), e, to, from, pointer(coefficients), threads);
  }
  const auto factor = scratch(Dtype(dtype), e.n * groups * e.h * e.w);
  call.kernels.box_spread(Dtype(dtype), e.n * groups, e.h, e.w, v, pointer(coefficients), factor.get(), threads);
  call.kernels.add_scaled(Dtype(dtype), e, to, from, factor.get(), threads);
}

void spread_rows(int dtype, uintptr_t dx, Two dx_strides, uintptr_t x, Two x_strides, Two shape, uintptr_t coefficients,
                 int threads) {
  const Call call;
  call.kernels.add_scaled(Dtype(dtype), {1, shape[1], 1, shape[0], 1}, {pointer(dx), 0, dx_strides[1], 0, dx_strides[0]},
                          {pointer(x), 0, x_strides[1], 0, x_strides[0]}, pointer(coefficients), threads);
}

void contribution(int dtype, uintptr_t x, uintptr_t g, uintptr_t sums, Three kept, Three summed, Three x_kept,
                  Three x_summed, Three g_kept, Three g_summed, bool along_sums, int threads) {
  const Call call;
  bcos::Products products;
  std::copy(kept.begin(), kept.end(), products.kept);
  std::copy(summed.begin(), summed.end(), products.summed);
  std::copy(x_kept.begin(), x_kept.end(), products.x_kept);
  std::copy(x_summed.begin(), x_summed.end(), products.x_summed);
  std::copy(g_kept.begin(), g_kept.end(), products.g_kept);
  std::copy(g_summed.begin(), g_summed.end(), products.g_summed);
  call.kernels.contribution(Dtype(dtype), products, pointer(x), pointer(g), pointer(sums), along_sums, threads);
}

// Norm: per_pixel, about_mean, centred, held, given.
bcos::Norm norm_of(const std::array<bool, 5>& flags, double eps) {
  return {flags[0], flags[1], flags[2], flags[3], flags[4], eps};
}

void normalise(int dtype, uintptr_t out, Four out_strides, uintptr_t x, Four x_strides, Four shape, uintptr_t mean,
               uintptr_t rstd, uintptr_t weight, int64_t groups, std::array<bool, 5> flags, double eps, int threads) {
  const Call call;
  call.kernels.normalise(Dtype(dtype), extent(shape, groups), norm_of(flags, eps), image(out, out_strides),
                         image(x, x_strides), pointer(mean), pointer(rstd), pointer(weight), threads);
}

void normalise_backward(int dtype, uintptr_t dx, Four dx_strides, uintptr_t grad, Four grad_strides, uintptr_t x,
                        Four x_strides, Four shape, uintptr_t mean, uintptr_t rstd, uintptr_t weight, uintptr_t dw,
                        int64_t groups, std::array<bool, 5> flags, int threads) {
  const Call call;
  call.kernels.normalise_backward(Dtype(dtype), extent(shape, groups), norm_of(flags, 0), image(dx, dx_strides),
                                  image(grad, grad_strides), image(x, x_strides), pointer(mean), pointer(rstd),
                                  pointer(weight), pointer(dw), threads);
}

void track(int dtype, int64_t channels, uintptr_t running_mean, uintptr_t running_power, uintptr_t mean, uintptr_t rstd,
           double eps, double share, double gain) {
  bcos::selected()->track(Dtype(dtype), channels, pointer(running_mean), pointer(running_power), pointer(mean),
                          pointer(rstd), eps, share, gain);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "B-cos kernels for the CPU over raw addresses; bcos_kernels.ops.epilogue.cpu checks and calls them.";
  m.def("row_norm", &row_norm);
  m.def("patch_norm", &patch_norm);
  m.def("scale", &scale);
  m.def("finish_rows", &finish_rows);
  m.def("finish_patches", &finish_patches);
  m.def("project_rows", &project_rows);
  m.def("apply_factor", &apply_factor);
  m.def("scale_backward", &scale_backward);
  m.def("spread", &spread);
  m.def("spread_rows", &spread_rows);
  m.def("contribution", &contribution);
  m.def("normalise", &normalise);
  m.def("normalise_backward", &normalise_backward);
  m.def("track", &track);
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const bcos::Kernels* kernels : bcos::available()) names.emplace_back(kernels->name);
    return names;
  });
  m.def("instruction_set", [] { return std::string(bcos::selected()->name); });
  m.def("select_instruction_set", &bcos::select);
#ifdef _OPENMP
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
}
