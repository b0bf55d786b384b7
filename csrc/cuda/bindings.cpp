// bcos_kernels._cuda: the kernels as Python functions over device addresses, sizes, strides and a stream.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "kernels.hpp"

namespace py = pybind11;

namespace {

using namespace bcos;
using cuda::Queue;
using Two = std::array<int64_t, 2>;
using Four = std::array<int64_t, 4>;
using Release = py::gil_scoped_release;  // other Python threads run while a full queue waits

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

Image image(uintptr_t address, const Four& strides) {
  return {pointer(address), strides[0], strides[1], strides[2], strides[3]};
}

Extent extent(const Four& shape, int64_t groups) { return {shape[0], shape[1], shape[2], shape[3], groups}; }

Window window(Two kernel, Two stride, Two dilation, Four padding, Two out) {
  return {kernel[0],  kernel[1],  stride[0],  stride[1],  dilation[0], dilation[1],
          padding[0], padding[1], padding[2], padding[3], out[0],      out[1]};
}

void row_norm(int device, uintptr_t stream, int dtype, uintptr_t x, Four strides, Four shape, uintptr_t norms,
              double eps) {
  const Release release;
  cuda::reduce_squares({device, pointer(stream)}, Dtype(dtype), extent(shape, 1), image(x, strides), pointer(norms),
                       Finish::root_plus_eps, eps);
}

// sums: room for the squares of each pixel, or 0 where a patch is a pixel.
void patch_norm(int device, uintptr_t stream, int dtype, uintptr_t x, Four strides, Four shape, uintptr_t sums,
                uintptr_t norms, Two kernel, Two stride, Four padding, Two dilation, Two out, int64_t groups,
                double eps) {
  const Release release;
  const Queue queue{device, pointer(stream)};
  Image input = image(x, strides);
  Extent e = extent(shape, groups);
  if (sums == 0) {  // read only the pixels that are asked for
    input.h *= stride[0];
    input.w *= stride[1];
    e.h = out[0];
    e.w = out[1];
    return cuda::reduce_squares(queue, Dtype(dtype), e, input, pointer(norms), Finish::root_of_sum_plus_eps, eps);
  }
  cuda::reduce_squares(queue, Dtype(dtype), e, input, pointer(sums), Finish::none, 0);
  cuda::box_sum(queue, Dtype(dtype), e.n * groups, e.h, e.w, window(kernel, stride, dilation, padding, out),
                pointer(sums), pointer(norms), eps);
}

void scale(int device, uintptr_t stream, int dtype, uintptr_t y, Four strides, Four shape, uintptr_t norms,
           uintptr_t lengths, int64_t groups, double b, double delta) {
  const Release release;
  cuda::scale({device, pointer(stream)}, Dtype(dtype), extent(shape, groups), image(y, strides), pointer(norms),
              pointer(lengths), {b, delta});
}

void apply_factor(int device, uintptr_t stream, int dtype, int64_t parts, uintptr_t out, Four out_strides,
                  int64_t out_hop, uintptr_t v, Four v_strides, int64_t v_hop, uintptr_t kept, Four kept_strides,
                  Four shape, uintptr_t norms, uintptr_t lengths, int64_t groups, double b, double delta) {
  const Release release;
  cuda::apply_factor({device, pointer(stream)}, Dtype(dtype), extent(shape, groups),
                     {image(out, out_strides), parts, out_hop}, {image(v, v_strides), parts, v_hop},
                     image(kept, kept_strides), pointer(norms), pointer(lengths), {b, delta});
}

void scale_backward(int device, uintptr_t stream, int dtype, uintptr_t grad_y, Four grad_y_strides, uintptr_t grad,
                    Four grad_strides, uintptr_t kept, Four kept_strides, Four shape, uintptr_t norms,
                    uintptr_t lengths, uintptr_t coefficients, int64_t groups, double b, double delta) {
  const Release release;
  cuda::scale_backward({device, pointer(stream)}, Dtype(dtype), extent(shape, groups), image(grad_y, grad_y_strides),
                       image(grad, grad_strides), image(kept, kept_strides), pointer(norms), pointer(lengths),
                       pointer(coefficients), {b, delta});
}

void project_rows(int device, uintptr_t stream, int dtype, uintptr_t grad, uintptr_t weight, Two shape,
                  uintptr_t lengths) {
  const Release release;
  cuda::project_rows({device, pointer(stream)}, Dtype(dtype), shape[0], shape[1], pointer(grad), pointer(weight),
                     pointer(lengths));
}

// factors: room for a number per pixel and group, or 0 where each pixel is a patch.
void spread(int device, uintptr_t stream, int dtype, uintptr_t dx, Four dx_strides, uintptr_t x, Four x_strides,
            Four shape, uintptr_t coefficients, uintptr_t factors, Two kernel, Two stride, Four padding, Two dilation,
            Two out, int64_t groups) {
  const Release release;
  const Queue queue{device, pointer(stream)};
  const Extent e = extent(shape, groups);
  if (factors != 0) {
    cuda::box_spread(queue, Dtype(dtype), e.n * groups, e.h, e.w, window(kernel, stride, dilation, padding, out),
                     pointer(coefficients), pointer(factors));
  }
  cuda::add_scaled(queue, Dtype(dtype), e, image(dx, dx_strides), image(x, x_strides),
                   pointer(factors != 0 ? factors : coefficients));
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "B-cos kernels for CUDA devices over raw addresses.";
  m.def("why_not_on", &cuda::why_not_on);
  m.def("row_norm", &row_norm);
  m.def("patch_norm", &patch_norm);
  m.def("scale", &scale);
  m.def("apply_factor", &apply_factor);
  m.def("scale_backward", &scale_backward);
  m.def("project_rows", &project_rows);
  m.def("spread", &spread);
}
