// The gradient of weights through w / ‖w‖: of each row of the gradient, what points along the weight is taken away.
#pragma once
#include "traverse.hpp"

namespace bcos::BCOS_ISA {

template <class T>
void project_rows_of(int64_t rows, int64_t columns, T* grad, const T* weight, const accumulator_t<T>* lengths,
                     int threads) {
  using A = accumulator_t<T>;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * columns >= parallel_from)
  for (int64_t row = 0; row < rows; ++row) {
    if (lengths[row] == A(0)) continue;  // a row of zeros was not normalised
    T* g = grad + row * columns;
    const T* w = weight + row * columns;
    const A inverse = 1 / lengths[row];
    const A along = sum_of<A>(columns, [&](int64_t i) { return widen(w[i]) * inverse * widen(g[i]); }) * inverse;
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) narrow(widen(g[i]) - along * widen(w[i]), g[i]);
  }
}

inline void project_rows(Dtype dtype, int64_t rows, int64_t columns, void* grad, const void* weight,
                         const void* lengths, int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    project_rows_of(rows, columns, static_cast<T*>(grad), static_cast<const T*>(weight),
                    static_cast<const accumulator_t<T>*>(lengths), threads);
  });
}

}  // namespace bcos::BCOS_ISA
