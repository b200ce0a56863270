// 2:4 in floating point: two rows of the weight fill a register, and a shuffle picks the inputs that they meet, which
// halves the multiplications too.
#include <type_traits>

#include "avx2.h"

namespace si::avx2 {
namespace {

constexpr int64_t kAhead = 512;  // bytes that are asked for before they are needed

// Shuffle for two groups of 4 columns of a pair of rows.
inline __m256i picks(const uint8_t* indices) {
  const __m256i low = _mm256_castsi128_si256(load16(kShuffles.pick[indices[0]]));
  return _mm256_inserti128_si256(low, load16(kShuffles.pick[indices[1]]), 1);
}

inline void put_pair(const Task& task, int64_t m, int64_t row, __m128 sums) {
  sums = _mm_hadd_ps(sums, sums);
  put(task, m, row, _mm_cvtss_f32(sums));
  put(task, m, row + 1, _mm_cvtss_f32(_mm_shuffle_ps(sums, sums, 1)));
}

// Shuffle byte offsets for 4 pairs, two groups each: index bytes times 16.
inline uint64_t offset_of(uint64_t word, int number) {
  return number ? word >> (8 * number - 4) & 0xff0 : word << 4 & 0xff0;
}

// A strip times one row of x. In halves of registers, because shuffles of whole ones must first be put together.
template <class Value>
void one_row(const Task& task, int64_t strip, int64_t m) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep;
  const uint8_t* values = p.values.data;
  const uint8_t* indices = p.indices.data + strip * steps * kStep;
  const float* x = task.x + m * p.padded_columns();
  constexpr int kBytes = std::is_same_v<Value, Fp32> ? 4 : 2;
  __m128 sums[4][2];
  SI_UNROLL
  for (auto& pair : sums) pair[0] = pair[1] = _mm_setzero_ps();
  int64_t number = strip * steps * 32;
  for (int64_t step = 0; step < steps; ++step, number += 32, indices += 8) {
    const __m128i low = _mm_castps_si128(_mm_loadu_ps(x + step * 8));
    const __m128i high = _mm_castps_si128(_mm_loadu_ps(x + step * 8 + 4));
    for (int line = 0; line < 32 * kBytes; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(values + number * kBytes + line + kAhead), _MM_HINT_T0);
    uint64_t word = 0;
    if constexpr (kBytes == 4) std::memcpy(&word, indices, 8);
    SI_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
      const uint8_t *first = kShuffles.pick[0], *second = first;
      if constexpr (kBytes == 4) {
        first += offset_of(word, 2 * pair), second += offset_of(word, 2 * pair + 1);
      } else {
        first += 16 * size_t(indices[2 * pair]), second += 16 * size_t(indices[2 * pair + 1]);
      }
      const __m128 one = _mm_castsi128_ps(_mm_shuffle_epi8(low, load16(first)));
      const __m128 other = _mm_castsi128_ps(_mm_shuffle_epi8(high, load16(second)));
      if constexpr (kBytes == 4) {
        sums[pair][0] = _mm_fmadd_ps(one, Value::four(values, number + 8 * pair), sums[pair][0]);
        sums[pair][1] = _mm_fmadd_ps(other, Value::four(values, number + 8 * pair + 4), sums[pair][1]);
      } else {
        __m256 weight = Value::eight(values, number + 8 * pair);
        asm("" : "+x"(weight));  // one conversion of 8, not two of 4
        sums[pair][0] = _mm_fmadd_ps(one, _mm256_castps256_ps128(weight), sums[pair][0]);
        sums[pair][1] = _mm_fmadd_ps(other, _mm256_extractf128_ps(weight, 1), sums[pair][1]);
      }
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
  const uint8_t* indices = p.indices.data + strip * steps * kStep + 2 * kFirst;
  const float* x = task.x + m * stride;
  __m256 sums[kRows][kPairs];
  SI_UNROLL
  for (auto& row : sums)
    SI_UNROLL
    for (auto& sum : row) sum = _mm256_setzero_ps();
  int64_t number = strip * steps * 32 + 8 * kFirst;
  for (int64_t step = 0; step < steps; ++step, number += 32, indices += 8) {
    SI_UNROLL
    for (int pair = 0; pair < kPairs; ++pair) {
      const __m256i shuffle = picks(indices + 2 * pair);
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

template <class Value>
void all_rows(const Task& task, int64_t first, int64_t last) {
  // Four rows of x stay in the cache while strips pass.
  int64_t m = 0;
  for (; m + 4 <= task.count; m += 4)
    for (int64_t strip = first / kStrip; strip * kStrip < last; ++strip) strip_rows<Value, 4>(task, strip, m);
  for (int64_t strip = first / kStrip; strip * kStrip < last; ++strip) switch (task.count - m) {
    case 1: strip_rows<Value, 1>(task, strip, m); break;
    case 2: strip_rows<Value, 2>(task, strip, m); break;
    case 3: strip_rows<Value, 3>(task, strip, m); break;
    default: break;
  }
}

}  // namespace

void pairs(const Task& task, int64_t first, int64_t last) {
  if (task.packed->values_kind == Values::kFp32) return all_rows<Fp32>(task, first, last);
  all_rows<Fp16>(task, first, last);
}

}  // namespace si::avx2
