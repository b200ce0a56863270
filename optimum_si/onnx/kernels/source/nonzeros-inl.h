// Non-zeros of a strip as lists of scaled values and columns, whatever the format.
#pragma once
#include "aligned_buffer.h"
#include "values-inl.h"

namespace si::SI_TARGET {
namespace {

constexpr int64_t kLongest = 512;  // non-zeros of a row that are decoded at once

// Non-zeros of a row, scaled, and their columns, 8 more of which may be read but are not used.
struct Nonzeros {
  int64_t count;
  alignas(64) float values[kLongest + 8];
  alignas(64) uint16_t columns[kLongest + 8];
};

// Appends the values from `index` on that stand in the columns of a mask; returns how many.
template <class Value>
SI_INLINE int append(Nonzeros& row, const uint8_t* data, int64_t index, unsigned mask, int64_t column, __m256 scale) {
  const int count = __builtin_popcount(mask);
  const __m128i columns = _mm_cvtepu8_epi16(load8(kShuffles.columns[mask]));
  _mm256_storeu_ps(row.values + row.count, Value::scaled(Value::load(data, index), scale));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(row.columns + row.count),
                   _mm_add_epi16(columns, _mm_set1_epi16(int16_t(column))));
  row.count += count;
  return count;
}

// Strips of masks, in turn for ranges of steps.
template <class Value>
struct MaskReader {
  static constexpr int64_t kHeight = kMaskStrip;
  const Packed& p;
  const Scales scales;
  const int64_t steps, shared, first;
  const AlignedBuffer<int64_t> next;  // value of each strip

  MaskReader(const Packed& packed, int64_t first_strip, int64_t count)
      : p(packed), scales(p), steps(p.padded_columns() / kStep), shared(shared_steps(p)), first(first_strip),
        next(count) {
    for (int64_t strip = 0; strip < count; ++strip) next.get()[strip] = first_value(p, first + strip, steps);
  }
  void read(int64_t strip, int64_t start, int64_t stop, Nonzeros* rows) {
    const uint8_t* masks = p.indices.data + (first + strip) * kHeight * steps;
    int64_t index = next.get()[strip];
    for (int64_t step = start, until; step < stop;) {
      const int64_t group = step / shared;
      until = (group + 1) * shared < stop ? (group + 1) * shared : stop;
      alignas(16) float four[kHeight];
      _mm_store_ps(four, scales.four(first + strip, group));
      for (; step < until; ++step)
        for (int row = 0; row < kHeight; ++row)
          index += append<Value>(rows[row], p.values.data, index, mask_of(p, masks[step * kHeight + row]),
                                 (step - start) * kStep, _mm256_set1_ps(four[row]));
    }
    next.get()[strip] = index;
  }
};

// Strips of 2:4 in floating point.
template <class Value>
struct PairReader {
  static constexpr int64_t kHeight = kPairStrip;
  const Packed& p;
  const int64_t steps, first;

  PairReader(const Packed& packed, int64_t first_strip, int64_t)
      : p(packed), steps(p.padded_columns() / kStep), first(first_strip) {}
  void read(int64_t strip, int64_t start, int64_t stop, Nonzeros* rows) {
    for (int64_t step = start; step < stop; ++step) {
      const int64_t at = (first + strip) * steps + step;
      const uint8_t* codes = p.indices.data + 8 * at;
      const int64_t column = 0x0001000100010001 * ((step - start) * kStep);
      for (int pair = 0; pair < 4; ++pair) {
        const __m256 slots = Value::load(p.values.data, 32 * at + 8 * pair);
        const __m256d by_row = _mm256_permute4x64_pd(_mm256_castps_pd(slots), 0xd8);  // from (group, row)
        // Columns of both groups: first the first row's two of each, then the second row's.
        uint64_t low, high;
        std::memcpy(&low, kShuffles.pair_columns[codes[2 * pair] / 2], 8);
        std::memcpy(&high, kShuffles.pair_columns[codes[2 * pair + 1] / 2], 8);
        const uint64_t columns[2] = {(low & 0xffffffff) | high << 32, low >> 32 | (high >> 32 << 32)};
        const __m128d values[2] = {_mm256_castpd256_pd128(by_row), _mm256_extractf128_pd(by_row, 1)};
        for (int half = 0; half < 2; ++half) {
          Nonzeros& row = rows[2 * pair + half];
          _mm_storeu_pd(reinterpret_cast<double*>(row.values + row.count), values[half]);
          const uint64_t found = columns[half] + uint64_t(column) + 0x0004000400000000;
          std::memcpy(row.columns + row.count, &found, 8);
          row.count += 4;
        }
      }
    }
  }
};

}  // namespace
}  // namespace si::SI_TARGET
