// Masks (4:8 and bitmasks) times few rows of x: values are spread over the columns that their mask keeps.
#include "avx2.h"

namespace si::avx2 {
namespace {

// Strips of 4:8 times one row of x: inputs are picked to meet the values, of which each mask has 4.
template <class Value>
void picked_strips(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep;
  const int64_t each = p.group && p.group < p.columns ? p.group / kStep : steps;  // steps that share scales
  const Scales scales(p);
  const Table low_pick(kShuffles.low_pick), high_pick(kShuffles.high_pick);
  for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
    Codes<uint32_t, Value::kBits == 32> codes(p.indices.data + strip * steps * kMaskStrip);
    __m128 totals[kMaskStrip];
    SI_UNROLL
    for (auto& total : totals) total = _mm_setzero_ps();
    int64_t number = strip * steps * 16, step = 0;
    for (int64_t group = 0; step < steps; ++group) {
      __m128 sums[kMaskStrip];
      SI_UNROLL
      for (auto& sum : sums) sum = _mm_setzero_ps();
      const int64_t stop = step + each < steps ? step + each : steps;
      SI_TWICE
      for (; step < stop; ++step, number += 16) {
        codes.step();
        const __m128i low = _mm_castps_si128(_mm_loadu_ps(task.x + step * 8));
        const __m128i high = _mm_castps_si128(_mm_loadu_ps(task.x + step * 8 + 4));
        ask_ahead<16 * Value::kBits / 8>(p.values.data + number * Value::kBits / 8);
        SI_UNROLL
        for (int pair = 0; pair < 2; ++pair) {
          __m128 weights[2];
          Value::fours(p.values.data, number + 8 * pair, weights[0], weights[1]);
          SI_UNROLL
          for (int half = 0; half < 2; ++half) {
            const size_t code = codes.of(2 * pair + half);
            const __m128i picked =
                _mm_or_si128(_mm_shuffle_epi8(low, low_pick.of(code)), _mm_shuffle_epi8(high, high_pick.of(code)));
            sums[2 * pair + half] = _mm_fmadd_ps(_mm_castsi128_ps(picked), weights[half], sums[2 * pair + half]);
          }
        }
      }
      const __m128 scale = scales.four(strip, group);
      totals[0] = _mm_fmadd_ps(sums[0], _mm_permute_ps(scale, 0x00), totals[0]);
      totals[1] = _mm_fmadd_ps(sums[1], _mm_permute_ps(scale, 0x55), totals[1]);
      totals[2] = _mm_fmadd_ps(sums[2], _mm_permute_ps(scale, 0xaa), totals[2]);
      totals[3] = _mm_fmadd_ps(sums[3], _mm_permute_ps(scale, 0xff), totals[3]);
    }
    const __m128 all = _mm_hadd_ps(_mm_hadd_ps(totals[0], totals[1]), _mm_hadd_ps(totals[2], totals[3]));
    alignas(16) float each_row[kMaskStrip];
    _mm_store_ps(each_row, all);
    for (int row = 0; row < kMaskStrip; ++row) put(task, 0, strip * kMaskStrip + row, each_row[row]);
  }
}

// Rows [kFirst, kFirst + kPlaces) of a strip times `kRows` rows of x. With `kFixed` it is 4:8.
template <class Value, bool kFixed, int kRows, int kPlaces, int kFirst>
void some_rows(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep, stride = p.padded_columns();
  const uint8_t* values = p.values.data;
  const Scales scales(p);
  const uint8_t* masks = p.indices.data + strip * steps * kMaskStrip;
  const float* x = task.x + m * stride;
  const int64_t each = p.group && p.group < p.columns ? p.group / kStep : steps;  // steps that share scales
  __m256 totals[kRows][kPlaces];
  SI_UNROLL
  for (auto& row : totals)
    SI_UNROLL
    for (auto& total : row) total = _mm256_setzero_ps();
  int64_t number = first_of(p, strip, steps), step = 0;
  uint32_t next;
  std::memcpy(&next, masks, 4);
  for (int64_t group = 0; step < steps; ++group) {
    __m256 sums[kRows][kPlaces];
    SI_UNROLL
    for (auto& row : sums)
      SI_UNROLL
      for (auto& sum : row) sum = _mm256_setzero_ps();
    const int64_t stop = step + each < steps ? step + each : steps;
    for (; step < stop; ++step) {
      const uint32_t all = next;
      std::memcpy(&next, masks += kMaskStrip, 4);
      int64_t at = number + (kFixed ? 4 * kFirst : __builtin_popcount(all & ((1u << 8 * kFirst) - 1)));
      number += kFixed ? 16 : kPlaces < 4 ? __builtin_popcount(all) : 0;
      SI_UNROLL
      for (int place = kFirst; place < kFirst + kPlaces; ++place) {
        const size_t mask = kFixed ? size_t(kShuffles.masks[all >> 8 * place & 0xff]) << 4
                                   : place ? all >> (8 * place - 4) & 0xff0 : all << 4 & 0xff0;
        const __m256 weight = Value::spread(values, at, mask);
        at += kFixed ? 4 : __builtin_popcount(unsigned(mask));
        SI_UNROLL
        for (int row = 0; row < kRows; ++row)
          sums[row][place - kFirst] =
              _mm256_fmadd_ps(_mm256_loadu_ps(x + row * stride + step * kStep), weight, sums[row][place - kFirst]);
      }
      if (kPlaces == 4) number = at;
    }
    alignas(16) float four[4];
    _mm_store_ps(four, scales.four(strip, group));
    SI_UNROLL
    for (int row = 0; row < kRows; ++row)
      SI_UNROLL
      for (int place = 0; place < kPlaces; ++place) {
        const __m256 scale = _mm256_set1_ps(four[kFirst + place]);
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
  if (kFixed && task.count == 1) return picked_strips<Value>(task, first, last);
  in_pieces(first, last, kMaskStrip, task.packed->padded_columns() * 8, [&](int64_t start, int64_t stop) {
    int64_t m = 0;
    for (; m + 4 <= task.count; m += 4) strips<Value, kFixed, 4>(task, start, stop, m);
    switch (task.count - m) {
      case 1: return strips<Value, kFixed, 1>(task, start, stop, m);
      case 2: return strips<Value, kFixed, 2>(task, start, stop, m);
      case 3: return strips<Value, kFixed, 3>(task, start, stop, m);
      default: return;
    }
  });
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
