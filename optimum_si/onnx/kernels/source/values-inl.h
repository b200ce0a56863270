// Values of each dtype as registers of floats, their scales and codes, for all targets on x86 with AVX2 and F16C.
#pragma once
#include <immintrin.h>

#include "packed-inl.h"

namespace si::SI_TARGET {
namespace {

inline __m128i load16(const uint8_t* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); }
inline __m128i load8(const uint8_t* at) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)); }
inline __m256i load32(const uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

// Hides where a register comes from: Zen 1 converts halves in memory at two thirds of the speed of those in registers.
inline __m128i opaque(__m128i value) {
  asm("" : "+x"(value));
  return value;
}

// Halves of a register that is made as a whole, which the compiler would make twice.
inline void split(__m256 whole, __m128& low, __m128& high) {
  asm("" : "+x"(whole));
  high = _mm256_extractf128_ps(whole, 1);
  low = _mm256_castps256_ps128(whole);
}

// Fetches what will be read some time after the `kBytes` at `at`.
template <int kBytes>
inline void prefetch(const uint8_t* at) {
  SI_UNROLL
  for (int line = 0; line < kBytes; line += 64)
    _mm_prefetch(reinterpret_cast<const char*>(at + line + 512), _MM_HINT_T0);
}

// How values are stored. `load` gives the 8 from `index` on, also in halves; `expand` puts as many as a mask has bits
// where these are; the mask is given times 16, the size of a shuffle.
struct Fp32 {
  static constexpr int kBits = 32;
  static SI_INLINE __m256 scaled(__m256 values, __m256) { return values; }
  static SI_INLINE __m256 load(const uint8_t* data, int64_t index) {
    return _mm256_castsi256_ps(load32(data + 4 * index));
  }
  static SI_INLINE void load(const uint8_t* data, int64_t index, __m128& low, __m128& high) {
    low = _mm_castsi128_ps(load16(data + 4 * index)), high = _mm_castsi128_ps(load16(data + 4 * index + 16));
  }
  static SI_INLINE __m256 expand(const uint8_t* data, int64_t index, size_t mask) {
    const int64_t second = index + __builtin_popcount(unsigned(mask & 0xf0));
    const __m128i low = _mm_shuffle_epi8(load16(data + 4 * index), load16(kShuffles.floats[0] + (mask & 0xf0)));
    const __m128i high = _mm_shuffle_epi8(load16(data + 4 * second), load16(kShuffles.floats[0] + (mask >> 4 & 0xf0)));
    return _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
  }
};

struct Fp16 {
  static constexpr int kBits = 16;
  static SI_INLINE __m256 scaled(__m256 values, __m256) { return values; }
  static SI_INLINE __m256 load(const uint8_t* data, int64_t index) {
    return _mm256_cvtph_ps(opaque(load16(data + 2 * index)));
  }
  static SI_INLINE void load(const uint8_t* data, int64_t index, __m128& low, __m128& high) {
    split(load(data, index), low, high);
  }
  static SI_INLINE __m256 expand(const uint8_t* data, int64_t index, size_t mask) {
    return _mm256_cvtph_ps(_mm_shuffle_epi8(load16(data + 2 * index), load16(kShuffles.halves[0] + mask)));
  }
};

struct Int8 {
  static constexpr int kBits = 8;
  static SI_INLINE __m256 scaled(__m256 values, __m256 scale) { return _mm256_mul_ps(values, scale); }
  static SI_INLINE __m256 from(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
  static SI_INLINE __m128 load_half(const uint8_t* data, int64_t index) {
    int32_t bytes;
    std::memcpy(&bytes, data + index, 4);
    return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(bytes)));
  }
  static SI_INLINE __m256 load(const uint8_t* data, int64_t index) { return from(load8(data + index)); }
  static SI_INLINE void load(const uint8_t* data, int64_t index, __m128& low, __m128& high) {
    low = load_half(data, index), high = load_half(data, index + 4);
  }
  static SI_INLINE __m256 expand(const uint8_t* data, int64_t index, size_t mask) {
    return from(_mm_shuffle_epi8(load8(data + index), load8(kShuffles.bytes[0] + mask / 2)));
  }
};

struct Int4 {
  static constexpr int kBits = 4;
  static SI_INLINE __m256 scaled(__m256 values, __m256 scale) { return _mm256_mul_ps(values, scale); }
  static SI_INLINE __m128i load_bytes(const uint8_t* data, int64_t index) {
    uint64_t word;
    std::memcpy(&word, data + (index >> 1), 8);
    const __m128i nibbles = _mm_cvtsi64_si128(int64_t(word >> (index & 1) * 4));
    const __m128i both = _mm_unpacklo_epi8(nibbles, _mm_srli_epi16(nibbles, 4));
    return _mm_sub_epi8(_mm_and_si128(both, _mm_set1_epi8(15)), _mm_set1_epi8(8));
  }
  static SI_INLINE __m256 load(const uint8_t* data, int64_t index) { return Int8::from(load_bytes(data, index)); }
  static SI_INLINE void load(const uint8_t* data, int64_t index, __m128& low, __m128& high) {
    split(load(data, index), low, high);
  }
  static SI_INLINE __m256 expand(const uint8_t* data, int64_t index, size_t mask) {
    return Int8::from(_mm_shuffle_epi8(load_bytes(data, index), load8(kShuffles.bytes[0] + mask / 2)));
  }
};

// Calls `function` with the type of a weight's values.
template <class Function>
void with_dtype(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::kFp32: return function(Fp32());
    case DType::kFp16: return function(Fp16());
    case DType::kInt8: return function(Int8());
    default: return function(Int4());
  }
}

// Scales of a weight; 1 for floating point.
struct Scales {
  const uint8_t* data;
  int64_t groups;
  bool halves;

  explicit Scales(const Packed& p) : data(p.scales.data), groups(p.groups()), halves(p.dtype == DType::kInt4) {}
  // Of a row of CSR.
  float one(int64_t row, int64_t group) const {
    if (!groups) return 1.0f;
    const int64_t index = row * groups + group;
    if (halves) {
      uint16_t half;
      std::memcpy(&half, data + 2 * index, 2);
      return _cvtsh_ss(half);
    }
    float scale;
    std::memcpy(&scale, data + 4 * index, 4);
    return scale;
  }
  // Of the 4 rows of a strip.
  __m128 four(int64_t strip, int64_t group) const {
    if (!groups) return _mm_set1_ps(1.0f);
    const int64_t index = (strip * groups + group) * 4;
    return halves ? _mm_cvtph_ps(load8(data + 2 * index)) : _mm_castsi128_ps(load16(data + 4 * index));
  }
};

// Steps that share scales.
inline int64_t shared_steps(const Packed& p) { return (p.has_groups() ? p.group : p.padded_columns()) / kStep; }

// Shuffles of 16 bytes by code.
class ShuffleTable {
 public:
  explicit ShuffleTable(const uint8_t (*first)[16]) : first_(first[0]) {}
  __m128i of(size_t code) const { return load16(first_ + 8 * code); }

 private:
  const uint8_t* first_;
};

// Codes of a step of `Word`. With `kAhead` they are taken from a register that is read a step ahead: loads whose
// address waits for another load fill the queue of Zen 1. This takes instructions, which only fp32 has to spare.
template <class Word, bool kAhead>
class Codes {
 public:
  explicit Codes(const uint8_t* at) : at_(at) { std::memcpy(&next_, at, sizeof next_); }
  SI_INLINE void step() {
    now_ = next_;
    at_ += sizeof(Word);
    std::memcpy(&next_, at_, sizeof next_);
  }
  // Code `index` of the step.
  SI_INLINE size_t of(int index) const { return kAhead ? now_ >> 8 * index & 0xff : at_[index - int(sizeof(Word))]; }

 private:
  const uint8_t* at_;
  Word now_ = 0, next_;
};

}  // namespace
}  // namespace si::SI_TARGET
