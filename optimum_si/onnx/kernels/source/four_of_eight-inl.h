// 4:8 times one row of x: inputs are picked to meet the values, of which each mask has 4.
#pragma once
#include "strips-inl.h"
#include "values-inl.h"

namespace si::SI_TARGET {
namespace {

template <class Value>
SI_NOINLINE void multiply_four_of_eight_strips(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep, shared = shared_steps(p);
  const Scales scales(p);
  const ShuffleTable low_pick(kShuffles.low_pick), high_pick(kShuffles.high_pick);
  for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
    Codes<uint32_t, Value::kBits == 32> codes(p.indices.data + strip * steps * kMaskStrip);
    __m128 totals[kMaskStrip];
    SI_UNROLL
    for (auto& total : totals) total = _mm_setzero_ps();
    int64_t index = strip * steps * 16, step = 0;
    for (int64_t group = 0; step < steps; ++group) {
      __m128 sums[kMaskStrip];
      SI_UNROLL
      for (auto& sum : sums) sum = _mm_setzero_ps();
      const int64_t stop = step + shared < steps ? step + shared : steps;
      SI_UNROLL_2
      for (; step < stop; ++step, index += 16) {
        codes.step();
        const __m128i low = _mm_castps_si128(_mm_loadu_ps(task.x + step * 8));
        const __m128i high = _mm_castps_si128(_mm_loadu_ps(task.x + step * 8 + 4));
        prefetch<16 * Value::kBits / 8>(p.values.data + index * Value::kBits / 8);
        SI_UNROLL
        for (int pair = 0; pair < 2; ++pair) {
          __m128 weights[2];
          Value::load(p.values.data, index + 8 * pair, weights[0], weights[1]);
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
    for (int row = 0; row < kMaskStrip; ++row) store(task, 0, strip * kMaskStrip + row, each_row[row]);
  }
}

inline void multiply_four_of_eight(const Task& task, int64_t first, int64_t last) {
  with_dtype(task.packed->dtype, [&](auto value) {
    multiply_four_of_eight_strips<decltype(value)>(task, first, last);
  });
}

}  // namespace
}  // namespace si::SI_TARGET
