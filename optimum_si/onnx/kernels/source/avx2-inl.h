// Traits of AVX2 with FMA, F16C and BMI2: its registers, and the steps of algorithms that it takes in its own way.
#pragma once
#include <type_traits>

#include "strips-inl.h"
#include "values-inl.h"

namespace si::SI_TARGET {
namespace {

// Registers in halves for pairs times one row of x, because shuffles of whole ones must first be put together.
struct Avx2Halves {
  struct Register {
    __m128 low, high;
  };
  static constexpr int kPairs = 1;
  static constexpr bool kCodesAhead = true;

  static SI_INLINE Register zero() { return {_mm_setzero_ps(), _mm_setzero_ps()}; }
  static SI_INLINE Register load_inputs(const float* x) { return {_mm_loadu_ps(x), _mm_loadu_ps(x + 4)}; }
  template <class Value>
  static SI_INLINE Register load(Value, const uint8_t* data, int64_t index) {
    Register values;
    Value::load(data, index, values.low, values.high);
    return values;
  }
  template <class Codes>
  static SI_INLINE Register pair_shuffle(const ShuffleTable& pick, const Codes& codes, int first) {
    return {_mm_castsi128_ps(pick.of(codes.of(first))), _mm_castsi128_ps(pick.of(codes.of(first + 1)))};
  }
  static SI_INLINE __m128 shuffle(__m128 inputs, __m128 by) {
    return _mm_castsi128_ps(_mm_shuffle_epi8(_mm_castps_si128(inputs), _mm_castps_si128(by)));
  }
  static SI_INLINE Register shuffle(Register inputs, Register by) {
    return {shuffle(inputs.low, by.low), shuffle(inputs.high, by.high)};
  }
  static SI_INLINE Register fmadd(Register a, Register b, Register sum) {
    return {_mm_fmadd_ps(a.low, b.low, sum.low), _mm_fmadd_ps(a.high, b.high, sum.high)};
  }
  static SI_INLINE __m128 pair_sum(Register sums, int) { return _mm_add_ps(sums.low, sums.high); }
};

struct Avx2 {
  using Register = __m256;
  using Integers = __m256i;
  static constexpr int kLanes = 8;

  static SI_INLINE Register zero() { return _mm256_setzero_ps(); }
  static SI_INLINE Register broadcast(float value) { return _mm256_set1_ps(value); }
  static SI_INLINE Register load(const float* at) { return _mm256_loadu_ps(at); }
  static SI_INLINE void store(float* at, Register value) { _mm256_storeu_ps(at, value); }
  static SI_INLINE Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  static SI_INLINE Register mul(Register a, Register b) { return _mm256_mul_ps(a, b); }
  static SI_INLINE Register fmadd(Register a, Register b, Register sum) { return _mm256_fmadd_ps(a, b, sum); }
  static SI_INLINE Register to_floats(Integers values) { return _mm256_cvtepi32_ps(values); }
  // Inputs of 8 columns, for as many rows of the weight as a register holds.
  static SI_INLINE Register load_inputs(const float* x) { return _mm256_loadu_ps(x); }
  template <class Value>
  static SI_INLINE Register load(Value, const uint8_t* data, int64_t index) {
    return Value::load(data, index);
  }
  template <int kBytes>
  static SI_INLINE void prefetch_values(const uint8_t* at) {
    prefetch<kBytes>(at);
  }

  // Pairs.
  static constexpr int kPairs = 1;  // in a register
  static constexpr bool kCodesAhead = false;
  using PairRows = RowCounts<4, 3, 2, 1>;
  template <int kRows>
  using PairVector = std::conditional_t<kRows == 1, Avx2Halves, Avx2>;
  template <class Codes>
  static SI_INLINE __m256i pair_shuffle(const ShuffleTable& pick, const Codes& codes, int first) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(pick.of(codes.of(first))), pick.of(codes.of(first + 1)), 1);
  }
  static SI_INLINE Register shuffle(Register inputs, __m256i by) {
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(_mm256_castps_si256(inputs), by));
  }
  static SI_INLINE __m128 pair_sum(Register sums, int) {
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  }

  // Masks, times 16.
  static constexpr int kMasks = 1;  // rows of the weight in a register
  using MaskRows = RowCounts<4, 3, 2, 1>;
  template <bool kFixed>
  static SI_INLINE size_t mask(uint32_t indices, int row) {
    if (kFixed) return size_t(kShuffles.masks[indices >> 8 * row & 0xff]) << 4;
    return row ? indices >> (8 * row - 4) & 0xff0 : indices << 4 & 0xff0;
  }
  template <class Value>
  static SI_INLINE Register expand(Value, const uint8_t* data, int64_t index, size_t mask) {
    return Value::expand(data, index, mask);
  }
  static SI_INLINE Register mask_scales(const float* scales) { return _mm256_set1_ps(*scales); }
  static SI_INLINE float mask_sum(Register sums, int) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
    sum = _mm_hadd_ps(sum, sum);
    return _mm_cvtss_f32(_mm_hadd_ps(sum, sum));
  }

  // Blocks.
  static constexpr bool kJoinsScales = true;
  using BlockRows = RowCounts<4, 2, 1>;
  static SI_INLINE __m256i load_positions(const uint8_t* at) { return load32(at); }
  // Weights of block `kBlock` of a chunk.
  template <int kBits, int kBlock>
  static SI_INLINE __m256i load_block(const uint8_t* chunk) {
    if constexpr (kBits == 8) return load32(chunk + 32 * kBlock);
    const __m256i pairs = load32(chunk + 32 * (kBlock / 2));
    const __m256i nibbles = _mm256_and_si256(kBlock % 2 ? _mm256_srli_epi16(pairs, 4) : pairs, _mm256_set1_epi8(15));
    return _mm256_sub_epi8(nibbles, _mm256_set1_epi8(8));
  }
  // Products of a unit of 32 columns, which are blocks kBlock and kBlock + 1, for `kRows` rows of x.
  template <int kBits, int kBlock, int kRows>
  static SI_INLINE void block_products(const uint8_t* chunk, __m256i positions, const int8_t* x, int64_t stride,
                                       __m256i (&products)[kRows]) {
    const __m256i base = _mm256_set1_epi64x(0x0c0c080804040000), ones = _mm256_set1_epi16(1);
    SI_UNROLL
    for (auto& product : products) product = _mm256_setzero_si256();
    auto block = [&](__m256i bits, __m256i weight, const int8_t* at) __attribute__((always_inline)) {
      const __m256i place = _mm256_or_si256(_mm256_and_si256(bits, _mm256_set1_epi8(3)), base);
      // One factor must be unsigned: the weight's magnitude, with its sign given to x, which is never -128.
      const __m256i magnitude = _mm256_abs_epi8(weight);
      SI_UNROLL
      for (int row = 0; row < kRows; ++row) {
        const __m128i inputs = load16(reinterpret_cast<const uint8_t*>(at + row * stride));
        const __m256i picked = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(inputs), place);
        const __m256i both = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(picked, weight));
        // Two products of 8 bits fit into 16; of 4 bits four do, and are widened together.
        products[row] = kBits == 8 ? _mm256_add_epi32(products[row], _mm256_madd_epi16(both, ones))
                                   : _mm256_add_epi16(products[row], both);
      }
    };
    block(kBlock ? _mm256_srli_epi16(positions, 2 * kBlock) : positions, load_block<kBits, kBlock>(chunk), x);
    block(_mm256_srli_epi16(positions, 2 * kBlock + 2), load_block<kBits, kBlock + 1>(chunk), x + 16);
    if constexpr (kBits == 4)
      SI_UNROLL
      for (auto& product : products) product = _mm256_madd_epi16(product, ones);
  }
  // Scales as sums of blocks have them, and the two sums of each row.
  static SI_INLINE Register block_factor(__m256 scales) { return scales; }
  static SI_INLINE __m256 block_sums(Register totals) { return totals; }
};

}  // namespace
}  // namespace si::SI_TARGET
