// Masks (4:8 and bitmasks) times few rows of x: values are spread over the columns that their mask keeps.
#pragma once
#include "strips-inl.h"
#include "values-inl.h"

namespace si::SI_TARGET {
namespace {

// With `kFixed` it is 4:8, of which each mask has 4 values.
template <class Target, class Value, bool kFixed>
struct MaskStrip {
  static constexpr int64_t kHeight = kMaskStrip;
  using Rows = typename Target::MaskRows;

  static int64_t bytes(const Packed& p) { return p.padded_columns() * 8; }

  template <int kRows>
  static void multiply(const Task& task, int64_t strip, int64_t m) {
    constexpr int kAll = kMaskStrip / Target::kMasks, kFew = kTogether<kRows, kAll>;
    multiply_some<kRows, 0, kFew>(task, strip, m);
    if constexpr (kFew < kAll) multiply_some<kRows, kFew, kFew>(task, strip, m);
  }

 private:
  // Registers [kFirst, kFirst + kCount) of each step, which hold `kMasks` rows of the strip each.
  template <int kRows, int kFirst, int kCount>
  static SI_NOINLINE void multiply_some(const Task& task, int64_t strip, int64_t m) {
    constexpr int kMasks = Target::kMasks, kBefore = kFirst * kMasks;
    constexpr bool kWhole = kCount * kMasks == kMaskStrip;
    const Packed& p = *task.packed;
    const Scales scales(p);
    const int64_t stride = p.padded_columns(), steps = stride / kStep, shared = shared_steps(p);
    const uint8_t *values = p.values.data, *masks = p.indices.data + strip * steps * kMaskStrip;
    const float* x = task.x + m * stride;
    typename Target::Register totals[kRows][kCount];
    clear<Target>(totals);
    int64_t index = first_value(p, strip, steps), step = 0;
    uint32_t next;
    std::memcpy(&next, masks, 4);
    for (int64_t group = 0; step < steps; ++group) {
      typename Target::Register sums[kRows][kCount];
      clear<Target>(sums);
      const int64_t stop = step + shared < steps ? step + shared : steps;
      for (; step < stop; ++step) {
        const uint32_t all = next;
        std::memcpy(&next, masks += kMaskStrip, 4);
        int64_t at = index + (kFixed ? 4 * kBefore : __builtin_popcount(all & ((1u << 8 * kBefore) - 1)));
        if (!kWhole) index += kFixed ? 16 : __builtin_popcount(all);
        SI_UNROLL
        for (int each = 0; each < kCount; ++each) {
          const auto mask = Target::template mask<kFixed>(all, kFirst + each);
          const auto weight = Target::expand(Value(), values, at, mask);
          at += kFixed ? 4 * kMasks : __builtin_popcount(unsigned(mask));
          SI_UNROLL
          for (int row = 0; row < kRows; ++row)
            sums[row][each] = Target::fmadd(Target::load_inputs(x + row * stride + step * kStep), weight, sums[row][each]);
        }
        if (kWhole) index = at;
      }
      alignas(16) float four[kMaskStrip];
      _mm_store_ps(four, scales.four(strip, group));
      SI_UNROLL
      for (int row = 0; row < kRows; ++row)
        SI_UNROLL
        for (int each = 0; each < kCount; ++each)
          totals[row][each] =
              Target::fmadd(sums[row][each], Target::mask_scales(four + (kFirst + each) * kMasks), totals[row][each]);
    }
    SI_UNROLL
    for (int row = 0; row < kRows; ++row)
      SI_UNROLL
      for (int place = 0; place < kCount * kMasks; ++place)
        store(task, m + row, strip * kMaskStrip + kBefore + place,
              Target::mask_sum(totals[row][place / kMasks], place % kMasks));
  }
};

template <class Target>
void multiply_masks(const Task& task, int64_t first, int64_t last) {
  const bool fixed = task.packed->format == Format::kFourOfEight;
  with_dtype(task.packed->dtype, [&](auto value) {
    using Value = decltype(value);
    if (fixed) return multiply_strips<MaskStrip<Target, Value, true>>(task, first, last);
    multiply_strips<MaskStrip<Target, Value, false>>(task, first, last);
  });
}

}  // namespace
}  // namespace si::SI_TARGET
