// Traits of AVX-512 with VBMI2 and VNNI. Registers hold twice the rows of the weight; what one instruction does that AVX2
// needs several for is here: values are expanded by a mask, products of 8 bits are summed up in 32.
#pragma once
#include "strips-inl.h"
#include "values-inl.h"

namespace si::SI_TARGET {
namespace {

struct Avx512 {
  using Register = __m512;
  using Integers = __m512i;
  static constexpr int kLanes = 16;

  static SI_INLINE Register zero() { return _mm512_setzero_ps(); }
  static SI_INLINE Register broadcast(float value) { return _mm512_set1_ps(value); }
  static SI_INLINE Register broadcast(__m256 half) {
    return _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(half)));
  }
  static SI_INLINE Register load(const float* at) { return _mm512_loadu_ps(at); }
  static SI_INLINE void store(float* at, Register value) { _mm512_storeu_ps(at, value); }
  static SI_INLINE Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
  static SI_INLINE Register fmadd(Register a, Register b, Register sum) { return _mm512_fmadd_ps(a, b, sum); }
  static SI_INLINE Register to_floats(Integers values) { return _mm512_cvtepi32_ps(values); }
  static SI_INLINE __m256 half(Register both, int which) {
    if (!which) return _mm512_castps512_ps256(both);
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(both), 1));
  }
  // Inputs of 8 columns, for as many rows of the weight as a register holds.
  static SI_INLINE Register load_inputs(const float* x) { return broadcast(_mm256_loadu_ps(x)); }
  static SI_INLINE Register load(Fp32, const uint8_t* data, int64_t index) { return _mm512_loadu_ps(data + 4 * index); }
  static SI_INLINE Register load(Fp16, const uint8_t* data, int64_t index) {
    return _mm512_cvtph_ps(load32(data + 2 * index));
  }
  // These machines fetch what is read in order by themselves.
  template <int kBytes>
  static SI_INLINE void prefetch_values(const uint8_t*) {}

  // Pairs.
  static constexpr int kPairs = 2;  // in a register
  static constexpr bool kCodesAhead = false;
  using PairRows = RowCounts<4, 1>;
  template <int kRows>
  using PairVector = Avx512;
  template <class Codes>
  static SI_INLINE __m512i pair_shuffle(const ShuffleTable& pick, const Codes& codes, int first) {
    __m512i shuffle = _mm512_castsi128_si512(pick.of(codes.of(first)));
    shuffle = _mm512_inserti32x4(shuffle, pick.of(codes.of(first + 1)), 1);
    shuffle = _mm512_inserti32x4(shuffle, pick.of(codes.of(first + 2)), 2);
    return _mm512_inserti32x4(shuffle, pick.of(codes.of(first + 3)), 3);
  }
  static SI_INLINE Register shuffle(Register inputs, __m512i by) {
    return _mm512_castsi512_ps(_mm512_shuffle_epi8(_mm512_castps_si512(inputs), by));
  }
  static SI_INLINE __m128 pair_sum(Register sums, int pair) {
    const __m256 slots = half(sums, pair);
    return _mm_add_ps(_mm256_castps256_ps128(slots), _mm256_extractf128_ps(slots, 1));
  }

  // Masks.
  static constexpr int kMasks = 2;  // rows of the weight in a register
  using MaskRows = RowCounts<4, 1>;
  template <bool kFixed>
  static SI_INLINE __mmask16 mask(uint32_t indices, int part) {
    const uint32_t both = indices >> 16 * part & 0xffff;
    return __mmask16(kFixed ? kShuffles.masks[both & 0xff] | kShuffles.masks[both >> 8] << 8 : both);
  }
  static SI_INLINE Register from(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }
  static SI_INLINE Register expand(Fp32, const uint8_t* data, int64_t index, __mmask16 mask) {
    const Register values = _mm512_loadu_ps(data + 4 * index);
    return _mm512_maskz_expand_ps(mask, values);
  }
  static SI_INLINE Register expand(Fp16, const uint8_t* data, int64_t index, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_expand_epi16(mask, load32(data + 2 * index)));
  }
  static SI_INLINE Register expand(Int8, const uint8_t* data, int64_t index, __mmask16 mask) {
    return from(_mm_maskz_expand_epi8(mask, load16(data + index)));
  }
  static SI_INLINE Register expand(Int4, const uint8_t* data, int64_t index, __mmask16 mask) {
    const __m128i low = Int4::load_bytes(data, index), high = Int4::load_bytes(data, index + 8);
    return from(_mm_maskz_expand_epi8(mask, _mm_unpacklo_epi64(low, high)));
  }
  static SI_INLINE Register mask_scales(const float* scales) {
    return _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(scales[0]), _mm512_set1_ps(scales[1]));
  }
  static SI_INLINE float mask_sum(Register sums, int row) {
    __m128 sum = pair_sum(sums, row);
    sum = _mm_hadd_ps(sum, sum);
    return _mm_cvtss_f32(_mm_hadd_ps(sum, sum));
  }

  // Blocks, one in each half of a register.
  static constexpr bool kJoinsScales = false;
  using BlockRows = RowCounts<2, 1>;
  static SI_INLINE __m512i load_positions(const uint8_t* at) { return _mm512_broadcast_i64x4(load32(at)); }
  // Shifts of 16 bits to the right, by half.
  static SI_INLINE __m512i shifted(__m512i bits, int low, int high) {
    const __m512i by = _mm512_inserti64x4(_mm512_set1_epi16(int16_t(low)), _mm256_set1_epi16(int16_t(high)), 1);
    return _mm512_srlv_epi16(bits, by);
  }
  template <int kBits, int kBlock>
  static SI_INLINE __m512i load_blocks(const uint8_t* chunk) {
    if constexpr (kBits == 8) return _mm512_loadu_si512(chunk + 32 * kBlock);
    const __m512i nibbles = shifted(_mm512_broadcast_i64x4(load32(chunk + 16 * kBlock)), 0, 4);
    return _mm512_sub_epi8(_mm512_and_si512(nibbles, _mm512_set1_epi8(15)), _mm512_set1_epi8(8));
  }
  // Products of a unit of 32 columns, which are blocks kBlock and kBlock + 1, for `kRows` rows of x.
  template <int kBits, int kBlock, int kRows>
  static SI_INLINE void block_products(const uint8_t* chunk, __m512i positions, const int8_t* x, int64_t stride,
                                       __m512i (&products)[kRows]) {
    const __m512i base = _mm512_set1_epi64(0x0c0c080804040000);
    const __m512i bits = _mm512_and_si512(shifted(positions, 2 * kBlock, 2 * kBlock + 2), _mm512_set1_epi8(3));
    const __m512i place = _mm512_or_si512(bits, base), weight = load_blocks<kBits, kBlock>(chunk);
    SI_UNROLL
    for (int row = 0; row < kRows; ++row) {
      const __m512i both = _mm512_castsi256_si512(load32(reinterpret_cast<const uint8_t*>(x + row * stride)));
      __m512i picked = _mm512_shuffle_epi8(_mm512_shuffle_i64x2(both, both, 0x50), place);
      // One factor must be unsigned: the weight's magnitude, with its sign given to x, which is never -128.
      picked = _mm512_mask_sub_epi8(picked, _mm512_movepi8_mask(weight), _mm512_setzero_si512(), picked);
      products[row] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_abs_epi8(weight), picked);
    }
  }
  // Scales as sums of blocks have them, and the two sums of each row.
  static SI_INLINE Register block_factor(__m256 scales) { return broadcast(scales); }
  static SI_INLINE __m256 block_sums(Register totals) { return _mm256_add_ps(half(totals, 0), half(totals, 1)); }
};

}  // namespace
}  // namespace si::SI_TARGET
