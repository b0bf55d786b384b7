// How a kernel walks through images: which way neighbouring threads lie, and how many elements each reads at once.
//
// Packs of V elements lie along the channels of a pixel (channels_last, rows of a matrix) or along the pixels of a line
// (everything else). V is as many as 16 bytes hold where memory allows that, else 1.
#pragma once
#include <type_traits>

#include "launch.cuh"
#include "number.cuh"

namespace bcos::cuda {

enum class Along { channels, pixels };

// Lines that follow one another in every image become one; a column becomes a line.
template <class... Images>
void merge_lines(Extent& e, Images&... images) {
  if (e.w == 1) {
    ((images.w = images.h), ...);
    e.w = e.h;
    e.h = 1;
  } else if (((images.h == e.w * images.w) && ...)) {
    e.w *= e.h;
    e.h = 1;
  }
}

// An expanded dimension costs no traffic either.
inline bool adjoins(int64_t stride) { return stride == 0 || stride == 1; }

template <class... Images>
Along direction(const Extent& e, const Images&... images) {
  const bool channels = (adjoins(images.c) && ...) && e.c >= 2 * e.groups;
  const bool pixels = (adjoins(images.w) && ...) && e.h * e.w > 1;
  return channels && !pixels ? Along::channels : Along::pixels;
}

// Whether packs of V elements start at multiples of their size.
template <int V, class T>
bool aligned(const Extent& e, Along along, const Image& image) {
  const int64_t fast = along == Along::channels ? image.c : image.w;
  const int64_t slow = along == Along::channels ? image.w : image.c;
  const bool even = image.n % V == 0 && (e.h == 1 || image.h % V == 0) && slow % V == 0 &&
                    (e.groups == 1 || along == Along::pixels || e.c / e.groups % V == 0);
  return fast == 1 && even && reinterpret_cast<uintptr_t>(image.data) % (V * sizeof(T)) == 0;
}

// Calls body(the direction, the length of packs), both known at compile time.
template <class T, class Body, class... Images>
void with_layout(const Extent& e, const Body& body, const Images&... images) {
  constexpr int V = widest<T>;
  const Along along = direction(e, images...);
  const int64_t fast = along == Along::channels ? e.c / e.groups : e.w;
  const bool wide = fast % V == 0 && (aligned<V, T>(e, along, images) && ...);
  const auto with_length = [&](auto way) {
    if (wide) return body(way, std::integral_constant<int, V>{});
    body(way, std::integral_constant<int, 1>{});
  };
  if (along == Along::channels) return with_length(std::integral_constant<Along, Along::channels>{});
  with_length(std::integral_constant<Along, Along::pixels>{});
}

// The least power of 2 that holds count, at most `most`, which is one.
inline int64_t power_of_2(int64_t count, int64_t most) {
  int64_t found = 1;
  while (found < count && found < most) found *= 2;
  return found;
}

}  // namespace bcos::cuda
