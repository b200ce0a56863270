// What kernels for AVX2 share. Files that include this are compiled for AVX2, FMA, F16C and BMI2, so that all of it is
// static: a copy must never be taken by code for other machines.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "packed.h"

#if defined(__clang__)
#define SI_UNROLL _Pragma("clang loop unroll(full)")
#define SI_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define SI_UNROLL _Pragma("GCC unroll 8")
#define SI_TWICE _Pragma("GCC unroll 2")
#endif

// Compilers are not to leave a call in the innermost loop.
#define SI_INLINE inline __attribute__((always_inline))

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

// Asks for what will be read some time after the `kBytes` at `at`.
template <int kBytes>
inline void ask_ahead(const uint8_t* at) {
  SI_UNROLL
  for (int line = 0; line < kBytes; line += 64)
    _mm_prefetch(reinterpret_cast<const char*>(at + line + 512), _MM_HINT_T0);
}

// Tables of 16-byte shuffles by code.
class Table {
 public:
  explicit Table(const uint8_t (*first)[16]) : first_(first[0]) {}
  __m128i of(size_t code) const { return load16(first_ + 8 * code); }

 private:
  const uint8_t* first_;
};

// Codes of a step of `Word`. With values in fp32 they are taken from a register that is read a step ahead: loads whose
// address waits for another load fill the queue of Zen 1. Other values need the instructions that this takes.
template <class Word, bool kAhead>
class Codes {
 public:
  explicit Codes(const uint8_t* at) : at_(at) { std::memcpy(&next_, at, sizeof next_); }
  SI_INLINE void step() {
    now_ = next_;
    at_ += sizeof(Word);
    std::memcpy(&next_, at_, sizeof next_);
  }
  // Code `number` of the step.
  SI_INLINE size_t of(int number) const {
    return kAhead ? now_ >> 8 * number & 0xff : at_[number - int(sizeof(Word))];
  }

 private:
  const uint8_t* at_;
  Word now_ = 0, next_;
};

// How values are stored. `fours` and `eight` are those from `number` on; `spread` puts as many as a mask has bits where
// these are; the mask is given times 16, the size of a shuffle.
struct Fp32 {
  static SI_INLINE __m256 scaled(__m256 values, __m256) { return values; }
  static constexpr int kBits = 32;
  static SI_INLINE void fours(const uint8_t* data, int64_t number, __m128& low, __m128& high) {
    low = _mm_castsi128_ps(load16(data + 4 * number)), high = _mm_castsi128_ps(load16(data + 4 * number + 16));
  }
  static SI_INLINE __m256 eight(const uint8_t* data, int64_t number) { return _mm256_castsi256_ps(load32(data + 4 * number)); }
  static SI_INLINE __m256 spread(const uint8_t* data, int64_t number, size_t mask) {
    const int64_t second = number + __builtin_popcount(unsigned(mask & 0xf0));
    const __m128i low = _mm_shuffle_epi8(load16(data + 4 * number), load16(kShuffles.floats[0] + (mask & 0xf0)));
    const __m128i high = _mm_shuffle_epi8(load16(data + 4 * second), load16(kShuffles.floats[0] + (mask >> 4 & 0xf0)));
    return _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
  }
};
// Halves of a register that is made as a whole, which the compiler would make twice.
inline void halve(__m256 whole, __m128& low, __m128& high) {
  asm("" : "+x"(whole));
  high = _mm256_extractf128_ps(whole, 1);
  low = _mm256_castps256_ps128(whole);
}

struct Fp16 {
  static SI_INLINE __m256 scaled(__m256 values, __m256) { return values; }
  static constexpr int kBits = 16;
  static SI_INLINE void fours(const uint8_t* data, int64_t number, __m128& low, __m128& high) {
    halve(eight(data, number), low, high);
  }
  static SI_INLINE __m256 eight(const uint8_t* data, int64_t number) {
    return _mm256_cvtph_ps(apart(load16(data + 2 * number)));
  }
  static SI_INLINE __m256 spread(const uint8_t* data, int64_t number, size_t mask) {
    return _mm256_cvtph_ps(_mm_shuffle_epi8(load16(data + 2 * number), load16(kShuffles.halves[0] + mask)));
  }
};
struct Int8 {
  static SI_INLINE __m256 scaled(__m256 values, __m256 scale) { return _mm256_mul_ps(values, scale); }
  static constexpr int kBits = 8;
  static SI_INLINE __m128 four(const uint8_t* data, int64_t number) {
    int32_t bytes;
    std::memcpy(&bytes, data + number, 4);
    return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(bytes)));
  }
  static SI_INLINE void fours(const uint8_t* data, int64_t number, __m128& low, __m128& high) {
    low = four(data, number), high = four(data, number + 4);
  }
  static SI_INLINE __m256 from(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
  static SI_INLINE __m256 eight(const uint8_t* data, int64_t number) { return from(load8(data + number)); }
  static SI_INLINE __m256 spread(const uint8_t* data, int64_t number, size_t mask) {
    return from(_mm_shuffle_epi8(load8(data + number), load8(kShuffles.bytes[0] + mask / 2)));
  }
};
struct Int4 {
  static SI_INLINE __m256 scaled(__m256 values, __m256 scale) { return _mm256_mul_ps(values, scale); }
  static constexpr int kBits = 4;
  static SI_INLINE void fours(const uint8_t* data, int64_t number, __m128& low, __m128& high) {
    halve(eight(data, number), low, high);
  }
  static SI_INLINE __m128i bytes(const uint8_t* data, int64_t number) {
    uint64_t word;
    std::memcpy(&word, data + (number >> 1), 8);
    const __m128i nibbles = _mm_cvtsi64_si128(int64_t(word >> (number & 1) * 4));
    const __m128i both = _mm_unpacklo_epi8(nibbles, _mm_srli_epi16(nibbles, 4));
    return _mm_sub_epi8(_mm_and_si128(both, _mm_set1_epi8(15)), _mm_set1_epi8(8));
  }
  static SI_INLINE __m256 eight(const uint8_t* data, int64_t number) { return Int8::from(bytes(data, number)); }
  static SI_INLINE __m256 spread(const uint8_t* data, int64_t number, size_t mask) {
    return Int8::from(_mm_shuffle_epi8(bytes(data, number), load8(kShuffles.bytes[0] + mask / 2)));
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

// Scales of a weight; 1 for floating point.
struct Scales {
  const uint8_t* data;
  int64_t groups;
  bool halves;

  explicit Scales(const Packed& p) : data(p.scales.data), groups(p.groups()), halves(p.values_kind == Values::kInt4) {}
  // Of a row of CSR.
  float one(int64_t row, int64_t group) const {
    if (!groups) return 1.0f;
    const int64_t number = row * groups + group;
    if (halves) {
      uint16_t half;
      std::memcpy(&half, data + 2 * number, 2);
      return _cvtsh_ss(half);
    }
    float scale;
    std::memcpy(&scale, data + 4 * number, 4);
    return scale;
  }
  // Of the 4 rows of a strip.
  __m128 four(int64_t strip, int64_t group) const {
    if (!groups) return _mm_set1_ps(1.0f);
    const int64_t number = (strip * groups + group) * 4;
    return halves ? _mm_cvtph_ps(load8(data + 2 * number)) : _mm_castsi128_ps(load16(data + 4 * number));
  }
};

// Calls `each` for rows [first, last) in pieces of whole strips of `bytes` that stay in the second cache.
template <class Each>
void in_pieces(int64_t first, int64_t last, int64_t strip, int64_t bytes, Each&& each) {
  const int64_t together = bytes < (1 << 17) ? (1 << 17) / bytes * strip : strip;
  for (int64_t start = first; start < last; start += together) each(start, start + together < last ? start + together : last);
}

}  // namespace

// Kernels, each in a file of its name: 2:4 in floating point, 2:4 in integers, 4:8 and bitmasks with few rows of x,
// CSR with one row, and all but 2:4 in integers with many rows.
void pairs(const Task&, int64_t first, int64_t last);
void blocks(const Task&, int64_t first, int64_t last);
void masks(const Task&, int64_t first, int64_t last);
void csr(const Task&, int64_t first, int64_t last);
void many(const Task&, int64_t first, int64_t last);

}  // namespace si::avx2
