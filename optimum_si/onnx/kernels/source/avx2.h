// What kernels for AVX2 share. Files that include this are compiled for AVX2, FMA, F16C and BMI2, so that all of it is
// static: a copy must never be taken by code for other machines.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "packed.h"
#include "tables.h"

#if defined(__clang__)
#define SI_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SI_UNROLL _Pragma("GCC unroll 8")
#endif

namespace si::avx2 {
namespace {

inline __m128i load16(const uint8_t* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); }
inline __m128i load8(const uint8_t* at) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)); }
inline __m256i load32(const uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

// Hides where a register comes from: Zen 1 converts halves in memory at two thirds of the speed of those in registers.
inline __m128i apart(__m128i value) {
  asm("" : "+x"(value));
  return value;
}

// How values are stored. `eight` are those from `number` on; `spread` puts as many as a mask has bits where these are.
struct Fp32 {
  static __m128 four(const uint8_t* data, int64_t number) { return _mm_castsi128_ps(load16(data + 4 * number)); }
  static __m256 eight(const uint8_t* data, int64_t number) { return _mm256_castsi256_ps(load32(data + 4 * number)); }
  static __m256 spread(const uint8_t* data, int64_t number, unsigned mask) {
    const int64_t second = number + __builtin_popcount(mask & 15);
    const __m128i low = _mm_shuffle_epi8(load16(data + 4 * number), load16(kShuffles.floats[mask & 15]));
    const __m128i high = _mm_shuffle_epi8(load16(data + 4 * second), load16(kShuffles.floats[mask >> 4]));
    return _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
  }
};
struct Fp16 {
  static __m256 eight(const uint8_t* data, int64_t number) {
    return _mm256_cvtph_ps(apart(load16(data + 2 * number)));
  }
  static __m256 spread(const uint8_t* data, int64_t number, unsigned mask) {
    return _mm256_cvtph_ps(_mm_shuffle_epi8(load16(data + 2 * number), load16(kShuffles.halves[mask])));
  }
};
struct Int8 {
  static __m256 from(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
  static __m256 eight(const uint8_t* data, int64_t number) { return from(load8(data + number)); }
  static __m256 spread(const uint8_t* data, int64_t number, unsigned mask) {
    return from(_mm_shuffle_epi8(load8(data + number), load8(kShuffles.bytes[mask])));
  }
};
struct Int4 {
  static __m128i bytes(const uint8_t* data, int64_t number) {
    uint64_t word;
    std::memcpy(&word, data + number / 2, 8);
    const __m128i nibbles = _mm_cvtsi64_si128(int64_t(word >> (number % 2 * 4)));
    const __m128i both = _mm_unpacklo_epi8(nibbles, _mm_srli_epi16(nibbles, 4));
    return _mm_sub_epi8(_mm_and_si128(both, _mm_set1_epi8(15)), _mm_set1_epi8(8));
  }
  static __m256 eight(const uint8_t* data, int64_t number) { return Int8::from(bytes(data, number)); }
  static __m256 spread(const uint8_t* data, int64_t number, unsigned mask) {
    return Int8::from(_mm_shuffle_epi8(bytes(data, number), load8(kShuffles.bytes[mask])));
  }
};

inline float sum_of(__m256 all) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  sum = _mm_hadd_ps(sum, sum);
  return _mm_cvtss_f32(_mm_hadd_ps(sum, sum));
}

// What every kernel ends with.
inline void put(const Task& task, int64_t m, int64_t row, float sum) {
  if (row < task.packed->rows) task.y[m * task.stride + row] = sum + (task.bias ? task.bias[row] : 0.0f);
}

// Scale of a row that may be there only to fill up a strip.
inline float padded_scale(const Packed& p, int64_t row, int64_t group) {
  return row < p.rows ? scale_of(p, row, group) : 0.0f;
}

}  // namespace

// Kernels, each in a file of its name: 2:4 in floating point, 2:4 in integers, 4:8 and bitmasks with few rows of x,
// CSR with one row, and 4:8, bitmasks and CSR with many rows.
void pairs(const Task&, int64_t first, int64_t last);
void blocks(const Task&, int64_t first, int64_t last);
void masks(const Task&, int64_t first, int64_t last);
void csr(const Task&, int64_t first, int64_t last);
void many(const Task&, int64_t first, int64_t last);

}  // namespace si::avx2
