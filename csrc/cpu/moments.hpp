// Mean and sum of squares of many numbers, in parts that fit the first-level cache: read once from memory, but summed
// as if twice, the squares about the mean of their own part. Parts are joined in double, in a fixed order.
#pragma once
#include <memory>

#include "traverse.hpp"

namespace bcos::BCOS_ISA {

constexpr int64_t part_length = 1024;

struct Moments {
  double count = 0, mean = 0, squares = 0;  // squares: of the distances from the mean, or from zero with mean 0
};

inline void join(Moments& into, const Moments& other) {
  if (into.count == 0) {
    into = other;
    return;
  }
  const double count = into.count + other.count, apart = other.mean - into.mean;
  into.squares += other.squares + apart * apart * (into.count * other.count / count);
  into.mean += apart * (other.count / count);
  into.count = count;
}

inline double inverse_root(const Moments& m, double eps) { return 1 / std::sqrt(m.squares / m.count + eps); }

template <class A>
struct Two {
  A first = 0, second = 0;
};

// As sum_of, of two terms at once.
template <class A, class Term>
inline Two<A> two_sums_of(int64_t count, const Term& term) {
  constexpr int64_t width = Lanes<A>::width;
  Lanes<A> first, second;
  int64_t i = 0;
  for (; i + width <= count; i += width) {
#pragma omp simd
    for (int64_t lane = 0; lane < width; ++lane) {
      const Two<A> terms = term(i + lane);
      first.sums[lane] += terms.first;
      second.sums[lane] += terms.second;
    }
  }
  Two<A> rest;
  for (; i < count; ++i) {
    const Two<A> terms = term(i);
    rest.first += terms.first;
    rest.second += terms.second;
  }
  return {first.total() + rest.first, second.total() + rest.second};
}

template <class T, bool adjoin>
inline Moments moments_of_part(const T* x, int64_t stride, int64_t length, bool about_mean) {
  using A = accumulator_t<T>;
  const int64_t step = adjoin ? 1 : stride;
  A mean = 0;
  if (about_mean) mean = sum_of<A>(length, [&](int64_t i) { return widen(x[i * step]); }) / static_cast<A>(length);
  const A squares = sum_of<A>(length, [&](int64_t i) {
    const A distance = widen(x[i * step]) - mean;
    return distance * distance;
  });
  return {static_cast<double>(length), mean, squares};
}

// Compiled once: of two copies of a loop one may fuse a product with a sum where the other rounds it.
#if defined(_MSC_VER)
#define BCOS_ONE_COPY __declspec(noinline)
#elif defined(__clang__)
#define BCOS_ONE_COPY __attribute__((noinline))
#else
#define BCOS_ONE_COPY __attribute__((noipa))
#endif

template <class Body>
BCOS_ONE_COPY void each_task(int64_t first, int64_t last, const Body& body) {
  for (int64_t task = first; task < last; ++task) body(task);
}

// body(task) for every task, the same bits for every number of threads; even an idle parallel region costs as much as
// some thousand additions.
template <class Body>
void share(int64_t tasks, int threads, const Body& body) {
  if (threads == 1) return each_task(0, tasks, body);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    each_task(tasks * thread / threads, tasks * (thread + 1) / threads, body);
  }
}

#undef BCOS_ONE_COPY

template <class A>
std::unique_ptr<A[]> room(int64_t count) {
  return std::unique_ptr<A[]>(new A[static_cast<size_t>(count)]());
}

// The weight, or ones where there is none.
template <class A>
std::unique_ptr<A[]> weight_or_ones(const A* weight, int64_t channels) {
  auto all = room<A>(channels);
  for (int64_t c = 0; c < channels; ++c) all[c] = weight ? weight[c] : A(1);
  return all;
}

// into[c] = sum over the rows, in order, of parts [rows, channels].
template <class A>
void sum_rows(const A* parts, int64_t rows, int64_t channels, A* into) {
  const auto totals = room<double>(channels);
  for (int64_t row = 0; row < rows; ++row) {
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) totals[c] += parts[row * channels + c];
  }
  for (int64_t c = 0; c < channels; ++c) into[c] = static_cast<A>(totals[c]);
}

}  // namespace bcos::BCOS_ISA
