// The sum over each patch of a plane, and its adjoint. Separable: rows first, then columns.
#pragma once
#include <memory>

#include "traverse.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace bcos::BCOS_ISA {

inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Calls body(plane, row, scratch) for each row; scratch holds `width` numbers of the calling thread, zero at
// the first call.
template <class A, class Body>
void each_row(int64_t planes, int64_t rows, int64_t width, int threads, const Body& body) {
  const std::unique_ptr<A[]> scratch(new A[static_cast<size_t>(width * threads)]());
#pragma omp parallel for num_threads(threads) schedule(static) if (planes * rows * width >= parallel_from)
  for (int64_t task = 0; task < planes * rows; ++task) {
    body(task / rows, task % rows, scratch.get() + width * thread_index());
  }
}

template <class A>
void add_row(A* __restrict into, const A* __restrict row, int64_t length) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) into[i] += row[i];
}

template <class A>
void box_sum_of(int64_t planes, int64_t h, int64_t w, const Window& v, const A* sums, A* norms, A eps, int threads) {
  const int64_t width = v.left + w + v.right;
  each_row<A>(planes, v.out_h, width, threads, [&](int64_t plane, int64_t p, A* column_sums) {
    A* inner = column_sums + v.left;  // the margins stay zero
    for (int64_t i = 0; i < w; ++i) inner[i] = 0;
    for (int64_t k = 0; k < v.kernel_h; ++k) {
      const int64_t row = p * v.stride_h - v.top + k * v.dilation_h;
      if (row >= 0 && row < h) add_row(inner, sums + (plane * h + row) * w, w);
    }
    A* out = norms + (plane * v.out_h + p) * v.out_w;
    for (int64_t q = 0; q < v.out_w; ++q) out[q] = eps;
    for (int64_t k = 0; k < v.kernel_w; ++k) {
      const A* shifted = column_sums + k * v.dilation_w;
      if (v.stride_w == 1) {
        add_row(out, shifted, v.out_w);
      } else {
        for (int64_t q = 0; q < v.out_w; ++q) out[q] += shifted[q * v.stride_w];
      }
    }
#pragma omp simd
    for (int64_t q = 0; q < v.out_w; ++q) out[q] = std::sqrt(out[q]);
  });
}

template <class A>
void box_spread_of(int64_t planes, int64_t h, int64_t w, const Window& v, const A* coefficients, A* spread,
                   int threads) {
  const int64_t width = v.left + w + v.right;
  each_row<A>(planes, h, v.out_w + width, threads, [&](int64_t plane, int64_t row, A* gathered) {
    A* padded = gathered + v.out_w;
    for (int64_t i = 0; i < v.out_w + width; ++i) gathered[i] = 0;
    for (int64_t k = 0; k < v.kernel_h; ++k) {
      const int64_t reach = row + v.top - k * v.dilation_h;
      if (reach < 0 || reach % v.stride_h || reach / v.stride_h >= v.out_h) continue;
      add_row(gathered, coefficients + (plane * v.out_h + reach / v.stride_h) * v.out_w, v.out_w);
    }
    for (int64_t k = 0; k < v.kernel_w; ++k) {
      A* shifted = padded + k * v.dilation_w;
      if (v.stride_w == 1) {
        add_row(shifted, gathered, v.out_w);
      } else {
        for (int64_t q = 0; q < v.out_w; ++q) shifted[q * v.stride_w] += gathered[q];
      }
    }
    A* out = spread + (plane * h + row) * w;
    for (int64_t i = 0; i < w; ++i) out[i] = padded[v.left + i];
  });
}

inline void box_sum(Dtype dtype, int64_t planes, int64_t h, int64_t w, const Window& window, const void* sums,
                    void* norms, double eps, int threads) {
  if (dtype == Dtype::float64) {
    box_sum_of(planes, h, w, window, static_cast<const double*>(sums), static_cast<double*>(norms), eps, threads);
  } else {
    box_sum_of(planes, h, w, window, static_cast<const float*>(sums), static_cast<float*>(norms),
               static_cast<float>(eps), threads);
  }
}

inline void box_spread(Dtype dtype, int64_t planes, int64_t h, int64_t w, const Window& window,
                       const void* coefficients, void* spread, int threads) {
  if (dtype == Dtype::float64) {
    box_spread_of(planes, h, w, window, static_cast<const double*>(coefficients), static_cast<double*>(spread),
                  threads);
  } else {
    box_spread_of(planes, h, w, window, static_cast<const float*>(coefficients), static_cast<float*>(spread), threads);
  }
}

}  // namespace bcos::BCOS_ISA
