#include "product.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "aligned_buffer.h"
#include "task.h"

namespace si {
namespace {

using portable::AlignedBuffer;

constexpr int64_t kRowsPerTask = 64;  // of the weight
// Rows of x at a time, so that copies of a long prompt stay small.
constexpr int64_t kMostRows = 512;
// From so many rows of x on they are transposed, so that zeros save multiplications.
constexpr int64_t kManyForFours = 6, kManyForMasks = 12, kManyForPairs = 16;
// Floats of a tile of transposed x that stay in the second cache; CSR takes its columns in any order.
constexpr int64_t kCsrTile = 1 << 16;

bool all_finite(const float* x, int64_t count) {
  uint32_t wrong = 0;
  for (int64_t at = 0; at < count; ++at) {
    uint32_t bits;
    std::memcpy(&bits, x + at, 4);
    wrong |= uint32_t((bits & 0x7f800000) == 0x7f800000);
  }
  return !wrong;
}

bool wants_transposed(const Packed& packed, int64_t count) {
  if (packed.format == Format::kCsr) return count > 1 || (packed.has_groups());
  if (packed.format == Format::kTwoOfFour) return count >= kManyForPairs;
  return count >= (packed.format == Format::kFourOfEight ? kManyForFours : kManyForMasks);
}

// x in tiles of at most 8 registers of rows.
AlignedBuffer<float> transpose(const Task& task, int64_t lanes, TransposedTiles& tiles) {
  const int64_t columns = task.packed->padded_columns(), count = task.count;
  const int64_t fit = task.packed->format == Format::kCsr ? kCsrTile / columns / lanes : 8;
  tiles.lanes = lanes;
  tiles.rows = lanes * (fit < 1 ? 1 : fit > 8 ? 8 : fit);
  AlignedBuffer<float> data((count + lanes - 1) / lanes * lanes * columns);
  for (int64_t m = 0; m < count; m += tiles.rows) {
    const int64_t left = count - m < tiles.rows ? count - m : tiles.rows;
    const int64_t width = (left + lanes - 1) / lanes * lanes;
    for (int64_t start = 0; start < columns; start += 16)  // a cache line of each row of x at a time
      for (int64_t at = 0; at < width; ++at)
        for (int64_t column = start; column < start + 16 && column < columns; ++column)
          data.get()[m * columns + column * width + at] = at < left ? task.x[(m + at) * columns + column] : 0.0f;
  }
  tiles.data = data.get();
  return data;
}

}  // namespace

bool supported(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx2)  // F16C came with the first of these, and old compilers do not know its name
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#if defined(SI_EMULATED_AVX512)  // by the tests
  if (isa == Isa::kAvx512) return supported(Isa::kAvx2);
#endif
  if (isa == Isa::kAvx512)
    return supported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2") &&
           __builtin_cpu_supports("avx512vnni");
#endif
  return isa == Isa::kPortable;
}

Isa best_isa() {
  static const Isa best = [] {
    const char* wanted = std::getenv("OPTIMUM_SI_ISA");
    for (const auto& [isa, name] : {std::pair(Isa::kAvx512, "avx512"), std::pair(Isa::kAvx2, "avx2")}) {
      if (wanted && !std::strcmp(wanted, "portable")) break;
      if (wanted && !std::strcmp(wanted, "avx2") && isa == Isa::kAvx512) continue;
      if (supported(isa) && self_test(isa)) return isa;
    }
    return Isa::kPortable;
  }();
  return best;
}

void product(const Packed& packed, Isa isa, const float* x, int64_t count, const float* bias, float* y,
             const Parallel& parallel) {
  const int64_t columns = packed.columns, padded = packed.padded_columns();
  if (count > kMostRows) {
    for (int64_t m = 0; m < count; m += kMostRows)
      product(packed, isa, x + m * columns, count - m < kMostRows ? count - m : kMostRows, bias, y + m * packed.rows,
              parallel);
    return;
  }
  Task task{&packed, x, nullptr, nullptr, {}, count, bias, y, packed.rows, !all_finite(x, count * columns)};
  std::unique_ptr<float[]> wide;
  if (padded != columns) {
    wide.reset(new float[size_t(count * padded)]());
    for (int64_t m = 0; m < count; ++m)
      std::memcpy(wide.get() + m * padded, x + m * columns, size_t(columns) * sizeof(float));
    task.x = wide.get();
  }
  std::unique_ptr<int8_t[]> narrow;
  std::unique_ptr<float[]> scales;
  AlignedBuffer<float> transposed;
  if (isa != Isa::kPortable && !task.dense) {
    if (packed.in_blocks()) {
      narrow.reset(new int8_t[size_t(count * padded)]);
      scales.reset(new float[size_t(count * padded / kUnit)]);
      task.x_int8 = narrow.get(), task.x_scales = scales.get();
#if defined(__x86_64__)
      avx2::quantize(task.x, count * padded, narrow.get(), scales.get());
#endif
    } else if (wants_transposed(packed, count)) {
      transposed = transpose(task, isa == Isa::kAvx512 && count > 8 ? 16 : 8, task.transposed);
    }
  }
  Kernel kernel = portable::multiply;
#if defined(__x86_64__)
  if (isa == Isa::kAvx2) kernel = avx2::multiply;
  if (isa == Isa::kAvx512) kernel = avx512::multiply;
#endif
  const int64_t rows = packed.padded_rows();
  parallel(size_t((rows + kRowsPerTask - 1) / kRowsPerTask), [&](size_t index) {
    const int64_t first = int64_t(index) * kRowsPerTask;
    kernel(task, first, first + kRowsPerTask < rows ? first + kRowsPerTask : rows);
  });
}

}  // namespace si
