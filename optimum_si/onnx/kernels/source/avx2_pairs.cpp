// 2:4 in floating point: two rows of the weight fill a register, and a shuffle picks the inputs that they meet, which
// halves the multiplications too.
#include "avx2.h"

namespace si::avx2 {
namespace {

inline void put_pair(const Task& task, int64_t m, int64_t row, __m128 sums) {
  sums = _mm_hadd_ps(sums, sums);
  put(task, m, row, _mm_cvtss_f32(sums));
  put(task, m, row + 1, _mm_cvtss_f32(_mm_shuffle_ps(sums, sums, 1)));
}

// A strip times one row of x. In halves of registers, because shuffles of whole ones must first be put together.
template <class Value>
void one_row(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep;
  const Table pick(kShuffles.pick);
  Codes<uint64_t, Value::kBits == 32> codes(p.indices.data + strip * steps * kStep);
  const float* x = task.x + m * p.padded_columns();
  __m128 sums[4][2];
  SI_UNROLL
  for (auto& pair : sums) pair[0] = pair[1] = _mm_setzero_ps();
  int64_t number = strip * steps * 32;
  SI_TWICE
  for (int64_t step = 0; step < steps; ++step, number += 32) {
    codes.step();
    const __m128i low = _mm_castps_si128(_mm_loadu_ps(x + step * 8));
    const __m128i high = _mm_castps_si128(_mm_loadu_ps(x + step * 8 + 4));
    ask_ahead<32 * Value::kBits / 8>(p.values.data + number * Value::kBits / 8);
    SI_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
      __m128 weights[2];
      Value::fours(p.values.data, number + 8 * pair, weights[0], weights[1]);
      const __m128i one = _mm_shuffle_epi8(low, pick.of(codes.of(2 * pair)));
      const __m128i other = _mm_shuffle_epi8(high, pick.of(codes.of(2 * pair + 1)));
      sums[pair][0] = _mm_fmadd_ps(_mm_castsi128_ps(one), weights[0], sums[pair][0]);
      sums[pair][1] = _mm_fmadd_ps(_mm_castsi128_ps(other), weights[1], sums[pair][1]);
    }
  }
  for (int pair = 0; pair < 4; ++pair)
    put_pair(task, m, strip * kStrip + 2 * pair, _mm_add_ps(sums[pair][0], sums[pair][1]));
}

// Pairs [kFirst, kFirst + kPairs) of a strip times `kRows` rows of x: weights are decoded once for all of them.
template <class Value, int kRows, int kPairs, int kFirst>
void some_rows(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep, stride = p.padded_columns();
  const Table pick(kShuffles.pick);
  const uint8_t* indices = p.indices.data + strip * steps * kStep + 2 * kFirst;
  const float* x = task.x + m * stride;
  __m256 sums[kRows][kPairs];
  SI_UNROLL
  for (auto& row : sums)
    SI_UNROLL
    for (auto& sum : row) sum = _mm256_setzero_ps();
  int64_t number = strip * steps * 32 + 8 * kFirst;
  for (int64_t step = 0; step < steps; ++step, number += 32, indices += 8) {
    ask_ahead<32 * Value::kBits / 8>(p.values.data + number * Value::kBits / 8);
    SI_UNROLL
    for (int pair = 0; pair < kPairs; ++pair) {
      const __m256i first = _mm256_castsi128_si256(pick.of(indices[2 * pair]));
      const __m256i shuffle = _mm256_inserti128_si256(first, pick.of(indices[2 * pair + 1]), 1);
      const __m256 weight = Value::eight(p.values.data, number + 8 * pair);
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) {
        const __m256i inputs = _mm256_castps_si256(_mm256_loadu_ps(x + row * stride + step * kStep));
        const __m256 picked = _mm256_castsi256_ps(_mm256_shuffle_epi8(inputs, shuffle));
        sums[row][pair] = _mm256_fmadd_ps(picked, weight, sums[row][pair]);
      }
    }
  }
  SI_UNROLL
  for (int row = 0; row < kRows; ++row)
    SI_UNROLL
    for (int pair = 0; pair < kPairs; ++pair) {
      const __m256 sum = sums[row][pair];
      put_pair(task, m + row, strip * kStrip + 2 * (kFirst + pair),
               _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1)));
    }
}

// As many sums as fit into registers: 4 pairs for 2 rows of x, else 2 at a time.
template <class Value, int kRows>
void strip_rows(const Task& task, int64_t strip, int64_t m) {
  if constexpr (kRows == 1) {
    one_row<Value>(task, strip, m);
  } else if constexpr (kRows == 2) {
    some_rows<Value, 2, 4, 0>(task, strip, m);
  } else {
    some_rows<Value, kRows, 2, 0>(task, strip, m);
    some_rows<Value, kRows, 2, 2>(task, strip, m);
  }
}

template <class Value, int kRows>
void strips(const Task& task, int64_t first, int64_t last, int64_t m) {
  for (int64_t strip = first / kStrip; strip * kStrip < last; ++strip) strip_rows<Value, kRows>(task, strip, m);
}

template <class Value>
void all_rows(const Task& task, int64_t first, int64_t last) {
  const int64_t bytes = task.packed->padded_columns() * kStrip / 2 * Value::kBits / 8;
  in_pieces(first, last, kStrip, bytes, [&](int64_t start, int64_t stop) {
    int64_t m = 0;
    for (; m + 4 <= task.count; m += 4) strips<Value, 4>(task, start, stop, m);
    switch (task.count - m) {
      case 1: return strips<Value, 1>(task, start, stop, m);
      case 2: return strips<Value, 2>(task, start, stop, m);
      case 3: return strips<Value, 3>(task, start, stop, m);
      default: return;
    }
  });
}

}  // namespace

void pairs(const Task& task, int64_t first, int64_t last) {
  if (task.packed->values_kind == Values::kFp32) return all_rows<Fp32>(task, first, last);
  all_rows<Fp16>(task, first, last);
}

}  // namespace si::avx2
