// The kernels for the instruction set that every machine of this architecture has.
#define BCOS_ISA baseline
#include "box.hpp"
#include "contribution.hpp"
#include "norm.hpp"
#include "project.hpp"
#include "reduce.hpp"
#include "scale.hpp"
#include "spread.hpp"

namespace bcos {
const Kernels baseline_kernels{
    "baseline", baseline::reduce_squares, baseline::box_sum, baseline::box_spread, baseline::add_scaled,
    baseline::scale, baseline::apply_factor, baseline::scale_backward, baseline::project_rows,
    baseline::contribution, baseline::normalise, baseline::normalise_backward, baseline::track};
}  // namespace bcos
