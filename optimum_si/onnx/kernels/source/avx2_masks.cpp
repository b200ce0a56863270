// Masks (4:8 and bitmasks) times few rows of x: values are spread over the columns that their mask keeps.
#include "avx2.h"

namespace si::avx2 {
namespace {

// Rows [kFirst, kFirst + kPlaces) of a strip times `kRows` rows of x. With `kFixed` each mask has 4 bits.
template <class Value, bool kFixed, int kRows, int kPlaces, int kFirst>
void some_rows(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep, stride = p.padded_columns();
  const uint8_t* values = p.values.data;
  const uint8_t* masks = p.indices.data + strip * steps * kMaskStrip;
  const float* x = task.x + m * stride;
  const int64_t each = p.group && p.group < p.columns ? p.group / kStep : steps;  // steps that share scales
  __m256 totals[kRows][kPlaces];
  SI_UNROLL
  for (auto& row : totals)
    SI_UNROLL
    for (auto& total : row) total = _mm256_setzero_ps();
  int64_t number = first_of(p, strip, steps), step = 0;
  for (int64_t group = 0; step < steps; ++group) {
    __m256 sums[kRows][kPlaces];
    SI_UNROLL
    for (auto& row : sums)
      SI_UNROLL
      for (auto& sum : row) sum = _mm256_setzero_ps();
    const int64_t stop = step + each < steps ? step + each : steps;
    for (; step < stop; ++step, masks += kMaskStrip) {
      uint32_t all;
      std::memcpy(&all, masks, 4);
      int64_t at = number + (kFixed ? 4 * kFirst : kFirst ? __builtin_popcount(all & ((1u << 8 * kFirst) - 1)) : 0);
      number += kFixed ? 16 : __builtin_popcount(all);
      SI_UNROLL
      for (int place = 0; place < kPlaces; ++place) {
        const unsigned mask = masks[kFirst + place];
        const __m256 weight = Value::spread(values, at, mask);
        at += kFixed ? 4 : __builtin_popcount(mask);
        SI_UNROLL
        for (int row = 0; row < kRows; ++row)
          sums[row][place] = _mm256_fmadd_ps(_mm256_loadu_ps(x + row * stride + step * kStep), weight, sums[row][place]);
      }
    }
    SI_UNROLL
    for (int row = 0; row < kRows; ++row)
      SI_UNROLL
      for (int place = 0; place < kPlaces; ++place) {
        const __m256 scale = _mm256_set1_ps(p.group ? padded_scale(p, strip * kMaskStrip + kFirst + place, group) : 1.0f);
        totals[row][place] = _mm256_fmadd_ps(sums[row][place], scale, totals[row][place]);
      }
  }
  SI_UNROLL
  for (int row = 0; row < kRows; ++row)
    SI_UNROLL
    for (int place = 0; place < kPlaces; ++place)
      put(task, m + row, strip * kMaskStrip + kFirst + place, sum_of(totals[row][place]));
}

// As many sums as fit into registers: 4 rows of the weight for 2 rows of x, else 2 at a time.
template <class Value, bool kFixed, int kRows>
void strips(const Task& task, int64_t first, int64_t last, int64_t m) {
  for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
    if constexpr (kRows <= 2) {
      some_rows<Value, kFixed, kRows, 4, 0>(task, strip, m);
    } else {
      some_rows<Value, kFixed, kRows, 2, 0>(task, strip, m);
      some_rows<Value, kFixed, kRows, 2, 2>(task, strip, m);
    }
  }
}

template <class Value, bool kFixed>
void all_rows(const Task& task, int64_t first, int64_t last) {
  int64_t m = 0;
  for (; m + 4 <= task.count; m += 4) strips<Value, kFixed, 4>(task, first, last, m);
  switch (task.count - m) {
    case 1: return strips<Value, kFixed, 1>(task, first, last, m);
    case 2: return strips<Value, kFixed, 2>(task, first, last, m);
    case 3: return strips<Value, kFixed, 3>(task, first, last, m);
    default: return;
  }
}

template <class Value>
void by_format(const Task& task, int64_t first, int64_t last) {
  if (task.packed->format == Format::kFourOfEight) return all_rows<Value, true>(task, first, last);
  all_rows<Value, false>(task, first, last);
}

}  // namespace

void masks(const Task& task, int64_t first, int64_t last) {
  switch (task.packed->values_kind) {
    case Values::kFp32: return by_format<Fp32>(task, first, last);
    case Values::kFp16: return by_format<Fp16>(task, first, last);
    case Values::kInt8: return by_format<Int8>(task, first, last);
    default: return by_format<Int4>(task, first, last);
  }
}

}  // namespace si::avx2
