// What a kernel is asked for, and the kernels' entry for each target.
#pragma once
#include "packed.h"

namespace si {

// Tiles of x with its rows side by side: [tiles][padded columns][rows of a tile]. The last tile is narrower.
struct TransposedTiles {
  const float* data = nullptr;
  int64_t rows = 0;   // of a full tile
  int64_t lanes = 0;  // of which the rows of each tile are a multiple
};

// y[m, n] = sum over k of x[m, k] w[n, k] (+ bias[n]) for rows [first, last) of the weight, which begin and end with a
// strip. x is [count, padded columns], zeros after the columns; y has `stride` floats between its rows.
struct Task {
  const Packed* packed;
  const float* x;
  const int8_t* x_int8;  // for blocks: x in 8 bits, [count, padded columns], and a scale for each unit
  const float* x_scales;
  TransposedTiles transposed;  // for kernels of many rows
  int64_t count;
  const float* bias;
  float* y;
  int64_t stride;
  bool dense;  // multiply by zeros too, as where x holds an infinity
};
using Kernel = void (*)(const Task&, int64_t first, int64_t last);

namespace portable {
void multiply(const Task&, int64_t first, int64_t last);
}
namespace avx2 {
void multiply(const Task&, int64_t first, int64_t last);
// x in 8 bits with a scale for each unit; `count` is whole units.
void quantize(const float* x, int64_t count, int8_t* out, float* scales);
}  // namespace avx2
namespace avx512 {
void multiply(const Task&, int64_t first, int64_t last);
}

}  // namespace si
