// The same kernels for AVX2, chosen at run time: a wheel runs on every x86-64 and is fast on most.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

// Before the pragma: inline functions of the standard library are shared with other files and must stay baseline.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#ifdef _OPENMP
#include <omp.h>
#endif
#include "kernels.hpp"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define BCOS_ISA avx2
#include "box.hpp"
#include "contribution.hpp"
#include "norm.hpp"
#include "project.hpp"
#include "reduce.hpp"
#include "scale.hpp"
#include "spread.hpp"

#ifdef __clang__
#pragma clang attribute pop
#endif

namespace bcos {
const Kernels avx2_kernels{
    "avx2", avx2::reduce_squares, avx2::box_sum, avx2::box_spread, avx2::add_scaled,
    avx2::scale, avx2::apply_factor, avx2::scale_backward, avx2::project_rows,
    avx2::contribution, avx2::normalise, avx2::normalise_backward, avx2::track};
}  // namespace bcos

#endif
