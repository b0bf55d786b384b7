// bcos_kernels._cuda: the kernels as Python functions over device addresses, sizes and a stream handle.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "scale.hpp"

namespace py = pybind11;

namespace {

void scale(int dtype, uintptr_t out, uintptr_t y, uintptr_t norms, int64_t n, int64_t c, int64_t pixels, int64_t groups,
           bool channels_last, float b, float delta, uintptr_t stream) {
  const py::gil_scoped_release release;
  const char* error =
      bcos::scale_forward(bcos::CudaDtype(dtype), reinterpret_cast<void*>(out), reinterpret_cast<const void*>(y),
                          reinterpret_cast<const float*>(norms), {n, c, pixels, groups, channels_last}, b, delta,
                          reinterpret_cast<void*>(stream));
  if (error != nullptr) throw std::runtime_error(error);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "B-cos kernels for CUDA devices over raw addresses.";
  m.def("scale", &scale);
}
