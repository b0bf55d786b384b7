// A block of threads owns a tile: some channels of one group, and some pixels of one line of one sample.
#pragma once
#include "image.cuh"

namespace bcos::cuda {

struct Grid {
  int64_t members, width, tile_c, tile_w;  // channels of a group, pixels of a line, and of both those of a tile
  unsigned tiles_c, tiles_w, lines, groups;
};

struct Plan {
  Grid grid;
  int64_t blocks;
  dim3 threads;
};

inline Plan plan_of(const Extent& e, int64_t tile_c, int64_t tile_w, int64_t lanes, int64_t rows) {
  const int64_t members = e.c / e.groups;
  const int64_t tiles_c = tile_c ? ceil_div(members, tile_c) : 1, tiles_w = ceil_div(e.w, tile_w);
  return {{members, e.w, tile_c, tile_w, static_cast<unsigned>(tiles_c), static_cast<unsigned>(tiles_w),
           static_cast<unsigned>(e.h), static_cast<unsigned>(e.groups)},
          e.n * e.groups * e.h * tiles_c * tiles_w,
          dim3(static_cast<unsigned>(lanes), static_cast<unsigned>(rows))};
}

struct Tile {
  int64_t n, g, h, c, c_end, w, w_end;

  __device__ static Tile of(const Grid& grid) {
    unsigned rest = blockIdx.x;
    const int64_t w = rest % grid.tiles_w * grid.tile_w;
    rest /= grid.tiles_w;
    const int64_t member = rest % grid.tiles_c * grid.tile_c;
    rest /= grid.tiles_c;
    const unsigned h = rest % grid.lines;
    rest /= grid.lines;
    const int64_t g = rest % grid.groups, first = g * grid.members;
    return {rest / grid.groups, g, h,
            first + member, first + (member + grid.tile_c < grid.members ? member + grid.tile_c : grid.members),
            w, w + grid.tile_w < grid.width ? w + grid.tile_w : grid.width};
  }
};

// Where a per-pixel factor [N, g, H, W] of the pixels of a tile begins.
__device__ inline int64_t factors_of(const Grid& grid, const Tile& tile) {
  return ((tile.n * grid.groups + tile.g) * grid.lines + tile.h) * grid.width;
}

template <class T>
__device__ inline T* at(const Image& image, const Tile& tile, int64_t c, int64_t w) {
  return static_cast<T*>(image.data) + tile.n * image.n + c * image.c + tile.h * image.h + w * image.w;
}

}  // namespace bcos::cuda
