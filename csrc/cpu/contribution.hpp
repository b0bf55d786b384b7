// Sums of products x·g over some dimensions of two tensors of any strides: one read of each.
#pragma once
#include <memory>
#include <type_traits>

#include "traverse.hpp"

namespace bcos::BCOS_ISA {

constexpr int64_t sum_length = 4096;  // products that one sum in the accumulation type takes in
constexpr int64_t most_pieces = 64;   // of the sum for one output, so that few outputs still are many tasks
constexpr int64_t unbroken = 16;      // products added up before they meet what was summed before them

// Calls body(step_of_x, step_of_g); a step known to the compiler, 1 or 0 (expanded), lets it read vectors.
template <class Body>
void with_steps(int64_t x, int64_t g, const Body& body) {
  using One = std::integral_constant<int64_t, 1>;
  using Zero = std::integral_constant<int64_t, 0>;
  if (x == 1 && g == 1) return body(One{}, One{});
  if (x == 1 && g == 0) return body(One{}, Zero{});
  body(x, g);
}

template <class T>
inline accumulator_t<T> product(T x, T g) {
  return widen(x) * widen(g);
}

struct Line {
  int64_t x, g;
};

// Where line number `number` of the two outer dimensions starts.
inline Line line_of(int64_t number, const int64_t* sizes, const int64_t* x, const int64_t* g) {
  const int64_t first = number / sizes[1], second = number % sizes[1];
  return {first * x[0] + second * x[1], first * g[0] + second * g[1]};
}

inline Line kept_line(const Products& p, int64_t number) { return line_of(number, p.kept, p.x_kept, p.g_kept); }

inline Line summed_line(const Products& p, int64_t number) {
  return line_of(number, p.summed, p.x_summed, p.g_summed);
}

// Neighbours are summed: one output after the other, each cut into pieces where there are few.
template <class T>
void contribution_of_rows(const Products& p, const T* x, const T* g, accumulator_t<T>* sums, int threads) {
  using A = accumulator_t<T>;
  const int64_t outputs = p.kept[0] * p.kept[1] * p.kept[2];
  const int64_t runs = ceil_div(p.summed[2], sum_length), blocks = p.summed[0] * p.summed[1] * runs;
  const int64_t pieces = outputs >= most_pieces ? 1 : smaller(blocks, most_pieces);
  const std::unique_ptr<double[]> parts(new double[static_cast<size_t>(pieces > 1 ? outputs * pieces : 0)]);
  with_steps(p.x_summed[2], p.g_summed[2], [&](auto x_step, auto g_step) {
#pragma omp parallel for num_threads(threads) schedule(static) if (outputs * blocks * p.summed[2] >= parallel_from)
    for (int64_t task = 0; task < outputs * pieces; ++task) {
      const int64_t output = task / pieces, piece = task % pieces, k = output % p.kept[2];
      const Line kept = kept_line(p, output / p.kept[2]);
      double total = 0;
      for (int64_t block = piece * blocks / pieces; block < (piece + 1) * blocks / pieces; ++block) {
        const Line line = summed_line(p, block / runs);
        const int64_t start = block % runs * sum_length;
        const T* a = x + kept.x + k * p.x_kept[2] + line.x + start * p.x_summed[2];
        const T* b = g + kept.g + k * p.g_kept[2] + line.g + start * p.g_summed[2];
        total += sum_of<A>(smaller(sum_length, p.summed[2] - start),
                           [&](int64_t i) { return product(a[i * x_step], b[i * g_step]); });
      }
      if (pieces > 1) {
        parts[task] = total;
      } else {
        sums[output] = static_cast<A>(total);
      }
    }
  });
  for (int64_t output = 0; pieces > 1 && output < outputs; ++output) {
    double total = 0;
    for (int64_t piece = 0; piece < pieces; ++piece) total += parts[output * pieces + piece];
    sums[output] = static_cast<A>(total);
  }
}

// Neighbours stay: runs of outputs, one product of each after the other.
template <class T>
void contribution_of_runs(const Products& p, const T* x, const T* g, accumulator_t<T>* sums, int threads) {
  using A = accumulator_t<T>;
  const int64_t lines = p.summed[0] * p.summed[1], parts = ceil_div(p.summed[2], unbroken);
  const Extent e{p.kept[0] * p.kept[1], lines * p.summed[2], 1, p.kept[2], 1};
  with_steps(p.x_kept[2], p.g_kept[2], [&](auto x_step, auto g_step) {
    planar(e, threads, [&](int64_t outer, int64_t, int64_t, int64_t w, int64_t length) {
      const Line kept = kept_line(p, outer);
      const T* x_run = x + kept.x + w * p.x_kept[2];
      const T* g_run = g + kept.g + w * p.g_kept[2];
      A* run = sums + outer * p.kept[2] + w;
      A block[longest_run];
      for (int64_t i = 0; i < length; ++i) run[i] = 0;
      for (int64_t part = 0; part < lines * parts; ++part) {
        const Line line = summed_line(p, part / parts);
        const int64_t first = part % parts * unbroken, last = smaller(first + unbroken, p.summed[2]);
        for (int64_t i = 0; i < length; ++i) block[i] = 0;
        for (int64_t s = first; s < last; ++s) {
          const T* a = x_run + line.x + s * p.x_summed[2];
          const T* b = g_run + line.g + s * p.g_summed[2];
#pragma omp simd
          for (int64_t i = 0; i < length; ++i) block[i] += product(a[i * x_step], b[i * g_step]);
        }
#pragma omp simd
        for (int64_t i = 0; i < length; ++i) run[i] += block[i];
      }
    });
  });
}

inline void contribution(Dtype dtype, const Products& p, const void* x, const void* g, void* sums, bool along_sums,
                         int threads) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto run = along_sums ? contribution_of_rows<T> : contribution_of_runs<T>;
    run(p, static_cast<const T*>(x), static_cast<const T*>(g), static_cast<accumulator_t<T>*>(sums), threads);
  });
}

}  // namespace bcos::BCOS_ISA
