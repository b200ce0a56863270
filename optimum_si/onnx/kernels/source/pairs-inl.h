// 2:4 in floating point: rows of the weight fill a register in pairs, and a shuffle picks the inputs that they meet,
// which halves the multiplications too.
#pragma once
#include "strips-inl.h"
#include "values-inl.h"

namespace si::SI_TARGET {
namespace {

template <class Target, class Value>
struct PairStrip {
  static constexpr int64_t kHeight = kPairStrip;
  using Rows = typename Target::PairRows;

  static int64_t bytes(const Packed& p) { return p.padded_columns() * kHeight / 2 * Value::kBits / 8; }

  // Weights are decoded once for all `kRows` rows of x.
  template <int kRows>
  static void multiply(const Task& task, int64_t strip, int64_t m) {
    using Vector = typename Target::template PairVector<kRows>;
    constexpr int kAll = 4 / Vector::kPairs, kFew = kTogether<kRows, kAll>;
    multiply_some<Vector, kRows, 0, kFew>(task, strip, m);
    if constexpr (kFew < kAll) multiply_some<Vector, kRows, kFew, kFew>(task, strip, m);
  }

 private:
  // Registers [kFirst, kFirst + kCount) of each step.
  template <class Vector, int kRows, int kFirst, int kCount>
  static void multiply_some(const Task& task, int64_t strip, int64_t m) {
    const Packed& p = *task.packed;
    const int64_t stride = p.padded_columns(), steps = stride / kStep;
    const ShuffleTable pick(kShuffles.pick);
    Codes<uint64_t, Vector::kCodesAhead && Value::kBits == 32> codes(p.indices.data + strip * steps * kStep);
    const uint8_t* values = p.values.data;
    const float* x = task.x + m * stride;
    typename Vector::Register sums[kRows][kCount];
    clear<Vector>(sums);
    int64_t index = strip * steps * 32;
    SI_UNROLL_2
    for (int64_t step = 0; step < steps; ++step, index += 32) {
      codes.step();
      Target::template prefetch_values<32 * Value::kBits / 8>(values + index * Value::kBits / 8);
      SI_UNROLL
      for (int each = 0; each < kCount; ++each) {
        const int pair = (kFirst + each) * Vector::kPairs;
        const auto shuffle = Vector::pair_shuffle(pick, codes, 2 * pair);
        const auto weight = Vector::load(Value(), values, index + 8 * pair);
        SI_UNROLL
        for (int row = 0; row < kRows; ++row) {
          const auto inputs = Vector::load_inputs(x + row * stride + step * kStep);
          sums[row][each] = Vector::fmadd(Vector::shuffle(inputs, shuffle), weight, sums[row][each]);
        }
      }
    }
    SI_UNROLL
    for (int row = 0; row < kRows; ++row)
      SI_UNROLL
      for (int each = 0; each < kCount; ++each)
        SI_UNROLL
        for (int pair = 0; pair < Vector::kPairs; ++pair)
          store_pair(task, m + row, strip * kHeight + 2 * ((kFirst + each) * Vector::kPairs + pair),
                     Vector::pair_sum(sums[row][each], pair));
  }

  static void store_pair(const Task& task, int64_t m, int64_t row, __m128 sums) {
    sums = _mm_hadd_ps(sums, sums);
    store(task, m, row, _mm_cvtss_f32(sums));
    store(task, m, row + 1, _mm_cvtss_f32(_mm_shuffle_ps(sums, sums, 1)));
  }
};

template <class Target>
void multiply_pairs(const Task& task, int64_t first, int64_t last) {
  if (task.packed->dtype == DType::kFp32) return multiply_strips<PairStrip<Target, Fp32>>(task, first, last);
  multiply_strips<PairStrip<Target, Fp16>>(task, first, last);
}

}  // namespace
}  // namespace si::SI_TARGET
