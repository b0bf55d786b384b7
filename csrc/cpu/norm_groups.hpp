// Norms whose statistics [N, g] are over the channels of a group and all pixels. A batch norm is one of them: of an
// image of one sample, whose lines are the samples of the batch.
//
// Planes: one group after the other, each channel a run of pixels (NCHW and every odd layout). Channelwise: all groups
// of a sample at once, a pixel after the other (channels_last). Threads share groups, or samples, where there are
// enough, and the inside of each where not; what is summed with what never depends on their number.
#pragma once
#include "moments.hpp"

namespace bcos::BCOS_ISA {

// What a channel is multiplied by and what is taken from it: (x - mean) gain, and for gradients
// grad gain - base - slope (x - mean).
template <class A>
struct Channel {
  A gain, mean, base = 0, slope = 0;
};

template <class A>
struct GroupNorm {
  Extent e;
  Norm norm;
  A* mean;  // [N, g]
  A* rstd;
  const A* weight;  // [C]
  int threads;

  int64_t members() const { return e.c / e.groups; }
  int64_t pixels() const { return e.h * e.w; }

  void keep(int64_t n, int64_t g, const Moments& found) const {
    if (norm.about_mean) mean[n * e.groups + g] = static_cast<A>(found.mean);
    rstd[n * e.groups + g] = static_cast<A>(inverse_root(found, norm.eps));
  }

  Channel<A> forward_of(int64_t n, int64_t c) const {
    const int64_t at = n * e.groups + c / members();
    return {rstd[at] * weight[c], norm.centred ? mean[at] : A(0)};
  }

  // The mean that products of the gradient with x are summed about: their sum is then small where it should be.
  A centre(int64_t n, int64_t c) const { return norm.centred ? mean[n * e.groups + c / members()] : A(0); }

  // From the sums over pixels of grad and of grad (x - centre), per channel, what makes dx of a group.
  void backward_of(int64_t n, int64_t g, const Two<double>* sums, Channel<A>* channels) const {
    double total = 0, along = 0;
    for (int64_t c = g * members(); c < (g + 1) * members(); ++c) {
      total += sums[c].first * weight[c];
      along += sums[c].second * weight[c];
    }
    const double r = rstd[n * e.groups + g], count = static_cast<double>(members() * pixels());
    const A base = norm.centred ? static_cast<A>(r * total / count) : A(0);
    const A slope = norm.held ? A(0) : static_cast<A>(r * r * r * along / count);
    for (int64_t c = g * members(); c < (g + 1) * members(); ++c) {
      channels[c] = {static_cast<A>(r) * weight[c], norm.about_mean ? mean[n * e.groups + g] : A(0), base, slope};
    }
  }
};

inline bool walk_channels(const Extent& e, bool channels_adjoin, bool pixels_adjoin) {
  return channels_adjoin && (e.h * e.w == 1 || !pixels_adjoin);
}

// Calls body(n, g, threads inside) for every group, or sample with all its groups, that threads may share.
template <class A, class Body>
void each_unit_of(const GroupNorm<A>& k, bool channelwise, const Body& body) {
  const int64_t groups = channelwise ? 1 : k.e.groups, units = k.e.n * groups;
  const bool many = units >= k.threads, large = k.e.n * k.e.c * k.pixels() >= parallel_from;
  share(units, many && large ? k.threads : 1, [&](int64_t unit) {
    body(unit / groups, unit % groups, many || !large ? 1 : k.threads);
  });
}

template <class T, bool adjoin>
Moments moments_of_group(const GroupNorm<accumulator_t<T>>& k, Image x, int64_t n, int64_t g, int threads) {
  int64_t channels = k.members(), length = k.e.w;
  const int64_t first = g * channels;
  if (adjoin && k.e.h == 1 && x.c == length) {  // the group is one run
    length *= channels;
    channels = 1;
  }
  const int64_t parts = ceil_div(length, part_length), tasks = channels * k.e.h * parts;
  const auto found = room<Moments>(tasks);
  share(tasks, threads, [&](int64_t task) {
    const int64_t w = task % parts * part_length, row = task / parts % k.e.h, c = first + task / parts / k.e.h;
    const int64_t count = smaller(part_length, length - w);
    found[task] = moments_of_part<T, adjoin>(at<const T>(x, n, c, row, w), x.w, count, k.norm.about_mean);
  });
  Moments whole;
  for (int64_t task = 0; task < tasks; ++task) join(whole, found[task]);
  return whole;
}

template <class T, bool adjoin>
void normalise_planes(const GroupNorm<accumulator_t<T>>& k, Image out, Image x) {
  each_unit_of(k, false, [&](int64_t n, int64_t g, int threads) {
    if (!k.norm.given) k.keep(n, g, moments_of_group<T, adjoin>(k, x, n, g, threads));
    if (!out.data) return;
    share(k.members() * k.e.h, threads, [&](int64_t line) {
      const int64_t c = g * k.members() + line / k.e.h, row = line % k.e.h;
      const auto channel = k.forward_of(n, c);
      const T* from = at<const T>(x, n, c, row, 0);
      T* to = at<T>(out, n, c, row, 0);
      const int64_t from_step = adjoin ? 1 : x.w, to_step = adjoin ? 1 : out.w;
#pragma omp simd
      for (int64_t i = 0; i < k.e.w; ++i) {
        narrow((widen(from[i * from_step]) - channel.mean) * channel.gain, to[i * to_step]);
      }
    });
  });
}

template <class T>
inline void gradient(T grad, T x, const Channel<accumulator_t<T>>& c, T& dx) {
  narrow(widen(grad) * c.gain - (c.base + c.slope * (widen(x) - c.mean)), dx);
}

template <class T, bool adjoin>
Two<double> sums_of_channel(const GroupNorm<accumulator_t<T>>& k, Image grad, Image x, int64_t n, int64_t c) {
  using A = accumulator_t<T>;
  const A centre = k.centre(n, c);
  const int64_t grad_step = adjoin ? 1 : grad.w, x_step = adjoin ? 1 : x.w;
  Two<double> sums;
  for (int64_t row = 0; row < k.e.h; ++row) {
    for (int64_t w = 0; w < k.e.w; w += part_length) {
      const T* g = at<const T>(grad, n, c, row, w);
      const T* value = at<const T>(x, n, c, row, w);
      const auto part = two_sums_of<A>(smaller(part_length, k.e.w - w), [&](int64_t i) {
        const A upstream = widen(g[i * grad_step]);
        return Two<A>{upstream, upstream * (widen(value[i * x_step]) - centre)};
      });
      sums.first += part.first;
      sums.second += part.second;
    }
  }
  return sums;
}

template <class T, bool adjoin>
void differentiate_planes(const GroupNorm<accumulator_t<T>>& k, Image dx, Image grad, Image x, Two<double>* sums) {
  const auto channels = room<Channel<accumulator_t<T>>>(k.e.n * k.e.c);
  each_unit_of(k, false, [&](int64_t n, int64_t g, int threads) {
    Two<double>* own = sums + n * k.e.c;
    share(k.members(), threads, [&](int64_t member) {
      const int64_t c = g * k.members() + member;
      own[c] = sums_of_channel<T, adjoin>(k, grad, x, n, c);
    });
    if (!dx.data) return;
    k.backward_of(n, g, own, channels.get() + n * k.e.c);
    share(k.members() * k.e.h, threads, [&](int64_t line) {
      const int64_t c = g * k.members() + line / k.e.h, row = line % k.e.h;
      const auto channel = channels[n * k.e.c + c];
      const T* up = at<const T>(grad, n, c, row, 0);
      const T* value = at<const T>(x, n, c, row, 0);
      T* to = at<T>(dx, n, c, row, 0);
      const int64_t up_step = adjoin ? 1 : grad.w, x_step = adjoin ? 1 : x.w, to_step = adjoin ? 1 : dx.w;
#pragma omp simd
      for (int64_t i = 0; i < k.e.w; ++i) gradient(up[i * up_step], value[i * x_step], channel, to[i * to_step]);
    });
  });
}

}  // namespace bcos::BCOS_ISA
