// Bias-free normalisation and its gradients: chooses how to walk the image.
#pragma once
#include "norm_channels.hpp"
#include "norm_pixels.hpp"

namespace bcos::BCOS_ISA {

template <class T>
void normalise_of(Extent e, const Norm& norm, Image out, Image x, void* mean, void* rstd, const void* weight,
                  int threads) {
  using A = accumulator_t<T>;
  if (!out.data) out = {nullptr, x.n, x.c, x.h, x.w};
  merge_rows(e, out, x);
  if (norm.per_pixel) merge_samples(e, out, x);
  const auto weights = weight_or_ones(static_cast<const A*>(weight), e.c);
  const int64_t statistics = norm.per_pixel ? e.n * e.h * e.w : e.n * e.groups;
  const auto unasked = room<A>(rstd ? 0 : 2 * statistics);
  if (!rstd) {
    rstd = unasked.get();
    mean = unasked.get() + statistics;
  }
  const bool channels = walk_channels(e, out.c == 1 && x.c == 1, pixels_adjoin(out, x)), adjoin = pixels_adjoin(out, x);
  if (norm.per_pixel) {
    const PixelNorm<A> k{e, norm, static_cast<A*>(mean), static_cast<A*>(rstd), weights.get(), threads};
    if (channels) return normalise_rows<T>(k, out, x);
    return adjoin ? normalise_runs<T, true>(k, out, x) : normalise_runs<T, false>(k, out, x);
  }
  const GroupNorm<A> k{e, norm, static_cast<A*>(mean), static_cast<A*>(rstd), weights.get(), threads};
  if (channels) return normalise_channels<T>(k, out, x);
  return adjoin ? normalise_planes<T, true>(k, out, x) : normalise_planes<T, false>(k, out, x);
}

template <class T>
void differentiate_of(Extent e, const Norm& norm, Image dx, Image grad, Image x, void* mean, void* rstd,
                      const void* weight, void* dw, int threads) {
  using A = accumulator_t<T>;
  if (!dx.data) dx = {nullptr, x.n, x.c, x.h, x.w};
  merge_rows(e, dx, grad, x);
  if (norm.per_pixel) merge_samples(e, dx, grad, x);
  const auto weights = weight_or_ones(static_cast<const A*>(weight), e.c);
  const bool adjoin = pixels_adjoin(dx, grad, x);
  const bool channels = walk_channels(e, dx.c == 1 && grad.c == 1 && x.c == 1, adjoin);
  if (norm.per_pixel) {
    const PixelNorm<A> k{e, norm, static_cast<A*>(mean), static_cast<A*>(rstd), weights.get(), threads};
    const int64_t parts = runs_of(e, channels);
    const auto shares = room<A>(dw ? parts * e.c : 0);
    A* into = dw ? shares.get() : nullptr;
    if (channels) {
      differentiate_rows<T>(k, dx, grad, x, into);
    } else if (adjoin) {
      differentiate_runs<T, true>(k, dx, grad, x, into);
    } else {
      differentiate_runs<T, false>(k, dx, grad, x, into);
    }
    if (dw) sum_rows(into, parts, e.c, static_cast<A*>(dw));
    return;
  }
  const GroupNorm<A> k{e, norm, static_cast<A*>(mean), static_cast<A*>(rstd), weights.get(), threads};
  const auto sums = room<Two<double>>(e.n * e.c);
  if (channels) {
    differentiate_channels<T>(k, dx, grad, x, sums.get());
  } else if (adjoin) {
    differentiate_planes<T, true>(k, dx, grad, x, sums.get());
  } else {
    differentiate_planes<T, false>(k, dx, grad, x, sums.get());
  }
  if (!dw) return;
  for (int64_t c = 0; c < e.c; ++c) {
    double total = 0;
    for (int64_t n = 0; n < e.n; ++n) total += sums[n * e.c + c].second * k.rstd[n * e.groups + c / k.members()];
    static_cast<A*>(dw)[c] = static_cast<A>(total);
  }
}

template <class A>
void track_of(int64_t channels, A* running_mean, A* running_power, const A* mean, const A* rstd, double eps, double share,
              double gain) {
  for (int64_t c = 0; c < channels; ++c) {
    const double power = 1 / (static_cast<double>(rstd[c]) * rstd[c]) - eps;
    running_power[c] += static_cast<A>(share * ((power < 0 ? 0 : power) * gain - running_power[c]));
    if (running_mean) running_mean[c] += static_cast<A>(share * (static_cast<double>(mean[c]) - running_mean[c]));
  }
}

inline void track(Dtype dtype, int64_t channels, void* running_mean, void* running_power, const void* mean,
                  const void* rstd, double eps, double share, double gain) {
  with_type(dtype, [&](auto zero) {
    using A = accumulator_t<decltype(zero)>;
    track_of(channels, static_cast<A*>(running_mean), static_cast<A*>(running_power), static_cast<const A*>(mean),
             static_cast<const A*>(rstd), eps, share, gain);
  });
}

inline void normalise(Dtype dtype, Extent e, const Norm& norm, Image out, Image x, void* mean, void* rstd,
                      const void* weight, int threads) {
  with_type(dtype, [&](auto zero) { normalise_of<decltype(zero)>(e, norm, out, x, mean, rstd, weight, threads); });
}

inline void normalise_backward(Dtype dtype, Extent e, const Norm& norm, Image dx, Image grad, Image x, void* mean,
                               void* rstd, const void* weight, void* dw, int threads) {
  with_type(dtype, [&](auto zero) {
    differentiate_of<decltype(zero)>(e, norm, dx, grad, x, mean, rstd, weight, dw, threads);
  });
}

}  // namespace bcos::BCOS_ISA
