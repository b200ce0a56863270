// 2:4 in integers times x in 8 bits: 16 inputs are shuffled at once for 4 rows, products summed in 16 and 32 bits.
#pragma once
#include "strips-inl.h"
#include "values-inl.h"

namespace si::SI_TARGET {
namespace {

// Scales of the 4 rows of a strip, each twice as sums have it; `index` counts groups of all strips.
template <int kBits>
SI_INLINE __m256 block_scales(const Packed& p, int64_t index) {
  if constexpr (kBits == 4) {
    const __m128i halves = load8(p.scales.data + 8 * index);
    return _mm256_cvtph_ps(_mm_unpacklo_epi16(halves, halves));
  }
  const __m256 own = _mm256_castsi256_ps(_mm256_castsi128_si256(load16(p.scales.data + 16 * index)));
  return _mm256_permutevar8x32_ps(own, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

// With `kFine` each unit has scales of its own, else whole chunks share them.
template <class Target, int kBits, bool kFine>
struct BlockStrip {
  static constexpr int64_t kHeight = kBlockStrip;
  using Rows = typename Target::BlockRows;

  static int64_t bytes(const Packed& p) { return p.padded_columns() * kBits / 4; }

  template <int kRows>
  static void multiply(const Task& task, int64_t strip, int64_t m) {
    using Register = typename Target::Register;
    // Scales of the weight join those of x at once, or a sum when it is complete.
    constexpr bool kJoined = kFine && Target::kJoinsScales;
    constexpr int kBytes = kBlockColumns * kBlockStrip / 2 * kBits / 8;  // of values in a chunk
    const Packed& p = *task.packed;
    const int64_t stride = p.padded_columns(), chunks = stride / kBlockColumns, units = stride / kUnit;
    const int64_t groups = p.groups(), shared = p.has_groups() ? p.group / kBlockColumns : chunks;
    const uint8_t* values = p.values.data + strip * chunks * kBytes;
    const uint8_t* indices = p.indices.data + strip * chunks * 32;
    const int8_t* x = task.x_int8 + m * stride;
    const float* x_scales = task.x_scales + m * units;
    Register sums[kRows], totals[kRows];
    SI_UNROLL
    for (int row = 0; row < kRows; ++row) sums[row] = totals[row] = Target::zero();
    auto add_sums = [&](__m256 scales) __attribute__((always_inline)) {
      const Register factor = Target::block_factor(scales);
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) {
        totals[row] = Target::fmadd(sums[row], factor, totals[row]);
        sums[row] = Target::zero();
      }
    };
    int64_t left = shared, group = strip * groups;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const auto positions = Target::load_positions(indices + chunk * 32);
      const uint8_t* at = values + chunk * kBytes;
      Target::template prefetch_values<kBytes>(at);
      typename Target::Integers products[2][kRows];
      Target::template block_products<kBits, 0>(at, positions, x + chunk * kBlockColumns, stride, products[0]);
      Target::template block_products<kBits, 2>(at, positions, x + chunk * kBlockColumns + kUnit, stride, products[1]);
      SI_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int64_t unit = 2 * chunk + half;
        __m256 scales;
        // The last chunk may have a unit of nothing, which has no scales of its own.
        if constexpr (kFine) scales = block_scales<kBits>(p, strip * groups + (unit < groups ? unit : groups - 1));
        SI_UNROLL
        for (int row = 0; row < kRows; ++row) {
          Register factor = Target::broadcast(x_scales[row * units + unit]);
          if constexpr (kJoined) factor = Target::mul(factor, Target::block_factor(scales));
          sums[row] = Target::fmadd(Target::to_floats(products[half][row]), factor, sums[row]);
        }
        if constexpr (kFine && !kJoined) add_sums(scales);
      }
      if (!kFine && (!--left || chunk == chunks - 1)) {
        add_sums(block_scales<kBits>(p, group++));
        left = shared;
      }
    }
    SI_UNROLL
    for (int row = 0; row < kRows; ++row) {
      alignas(32) float halves[8];
      _mm256_store_ps(halves, Target::block_sums(kJoined ? sums[row] : totals[row]));
      for (int place = 0; place < kBlockStrip; ++place)
        store(task, m + row, strip * kBlockStrip + place, halves[2 * place] + halves[2 * place + 1]);
    }
  }
};

template <class Target>
void multiply_blocks(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const bool fine = p.group == kUnit && p.has_groups();
  if (p.dtype == DType::kInt8)
    return fine ? multiply_strips<BlockStrip<Target, 8, true>>(task, first, last)
                : multiply_strips<BlockStrip<Target, 8, false>>(task, first, last);
  return fine ? multiply_strips<BlockStrip<Target, 4, true>>(task, first, last)
              : multiply_strips<BlockStrip<Target, 4, false>>(task, first, last);
}

}  // namespace
}  // namespace si::SI_TARGET
