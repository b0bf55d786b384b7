// Which instruction set the kernels use: the best that this machine has, unless a test asks otherwise.
#pragma once
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace bcos {

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
inline bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
inline std::vector<const Kernels*> available() {
  if (has_avx2()) return {&avx2_kernels, &baseline_kernels};
  return {&baseline_kernels};
}
#else
inline std::vector<const Kernels*> available() { return {&baseline_kernels}; }
#endif

inline const Kernels*& selected() {
  static const Kernels* kernels = available().front();
  return kernels;
}

inline void select(const std::string& name) {
  for (const Kernels* kernels : available()) {
    if (name == kernels->name) {
      selected() = kernels;
      return;
    }
  }
  throw std::invalid_argument("instruction set \"" + name + "\" is not available on this machine");
}

}  // namespace bcos
