// The order of work that kernels of strips share: pieces of the weight, rows of x, strips.
#pragma once
#include "target.h"
#include "task.h"

namespace si::SI_TARGET {
namespace {

// What every kernel ends with.
inline void store(const Task& task, int64_t m, int64_t row, float sum) {
  if (row < task.packed->rows) task.y[m * task.stride + row] = sum + (task.bias ? task.bias[row] : 0.0f);
}

// Sums of registers, by rows of x and registers of the weight.
template <class Vector, int kRows, int kCount>
SI_INLINE void clear(typename Vector::Register (&sums)[kRows][kCount]) {
  SI_UNROLL
  for (auto& row : sums)
    SI_UNROLL
    for (auto& sum : row) sum = Vector::zero();
}

// Numbers of rows of x that a target multiplies at once, descending to 1.
template <int... kRows>
struct RowCounts {};

// Registers of the weight that are treated together, so that their sums with `kRows` rows of x fit into registers too.
template <int kRows, int kRegisters>
constexpr int kTogether = kRows * kRegisters <= 8 ? kRegisters : kRegisters / 2;

// Strips of rows [start, stop) times rows of x from `m` on, as long as `kRows` are left.
template <class Strip, int kRows>
void multiply_rows(const Task& task, int64_t start, int64_t stop, int64_t& m) {
  for (; m + kRows <= task.count; m += kRows)
    for (int64_t strip = start / Strip::kHeight; strip * Strip::kHeight < stop; ++strip)
      Strip::template multiply<kRows>(task, strip, m);
}

template <class Strip, int... kRows>
void multiply_piece(const Task& task, int64_t start, int64_t stop, RowCounts<kRows...>) {
  int64_t m = 0;
  (multiply_rows<Strip, kRows>(task, start, stop, m), ...);
}

// Rows [first, last) of the weight times x, in pieces of whole strips that stay in the second cache.
template <class Strip>
void multiply_strips(const Task& task, int64_t first, int64_t last) {
  constexpr int64_t kPiece = 1 << 17;
  const int64_t bytes = Strip::bytes(*task.packed);
  const int64_t rows = bytes < kPiece ? kPiece / bytes * Strip::kHeight : Strip::kHeight;
  for (int64_t start = first; start < last; start += rows)
    multiply_piece<Strip>(task, start, start + rows < last ? start + rows : last, typename Strip::Rows());
}

}  // namespace
}  // namespace si::SI_TARGET
